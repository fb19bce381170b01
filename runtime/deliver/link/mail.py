"""Messages beside the reports: health, statistics, alarms, review, answers to commands.

Any thread posts them, the delivery thread sends them. A retained topic keeps its last message only; of every
other topic a bounded number waits while the broker is away, and the oldest goes first when there are more.
They are not in the outbox: what a process held when it ended is gone.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class Letter:
    """One message. `topic` is a name below the root, or the whole topic when `is_full` is set; `correlation`
    goes back to the sender of a command (MQTT 5)."""

    topic: str
    payload: str
    retain: bool = False
    is_full: bool = False
    correlation: bytes | None = None


@dataclass(frozen=True)
class Command:
    """A message on `cmd/<name>`. `is_retained`: the broker kept it from before, nobody sends it now.

    `response_topic` and `correlation` are those of MQTT 5; a client of 3.1.1 has none and reads
    `cmd-response`.
    """

    name: str
    payload: bytes
    is_retained: bool
    response_topic: str | None
    correlation: bytes | None


class Mail:
    """Letters that wait for their PUBACK; safe to use from several threads."""

    def __init__(self, most: int = 100) -> None:
        """`most`: letters that may wait on one topic that is not retained."""
        self.dropped: Counter[str] = Counter()  # by topic, since the start
        self._most = most
        self._mutex = threading.Lock()
        self._numbers = itertools.count()
        self._waiting: dict[int, Letter] = {}  # in the order of posting
        self._sent: set[int] = set()  # over the present connection
        self._retained: dict[str, Letter] = {}  # the last one of each retained topic, confirmed or not

    def post(self, letter: Letter) -> None:
        """Take a letter; one that the bound pushes out is counted in `dropped`."""
        with self._mutex:
            older = [n for n, waiting in self._waiting.items() if waiting.topic == letter.topic]
            if letter.retain:
                self._retained[letter.topic] = letter
                gone = older
            else:
                gone = older[: max(len(older) + 1 - self._most, 0)]
                self.dropped[letter.topic] += len(gone)
            for number in gone:
                del self._waiting[number]
                self._sent.discard(number)
            self._waiting[next(self._numbers)] = letter

    def begin(self) -> None:
        """A new connection: everything unconfirmed goes again, and what is retained goes in any case, since a
        broker may have forgotten it."""
        with self._mutex:
            self._sent.clear()
            waiting = {letter.topic for letter in self._waiting.values()}
            for topic, letter in self._retained.items():
                if topic not in waiting:
                    self._waiting[next(self._numbers)] = letter

    def take(self, most: int) -> list[tuple[int, Letter]]:
        """At most so many letters that this connection has not sent yet, each with its number."""
        with self._mutex:
            unsent = ((n, letter) for n, letter in self._waiting.items() if n not in self._sent)
            found = list(itertools.islice(unsent, max(most, 0)))
            self._sent.update(number for number, _ in found)
            return found

    def settle(self, number: int) -> Letter | None:
        """The broker confirmed a letter, or refused it for good; it is forgotten."""
        with self._mutex:
            self._sent.discard(number)
            return self._waiting.pop(number, None)

    def __len__(self) -> int:
        with self._mutex:
            return len(self._waiting)
