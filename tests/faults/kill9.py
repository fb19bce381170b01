"""kill -9 of outbox and publisher, again and again, with a real broker and a consumer behind it.

A worker is forked after all imports, so that a kill costs milliseconds. It does what the service does with
recorded results: open the outbox, report what the last run left accepted, accept, commit, publish, and
sometimes stop in good order. It is killed at a random moment, or at a random line of runtime/deliver: every
line that runs is a seam. What it had done before it says through a pipe that survives it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, NoReturn

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver import outbox as outbox_file
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.boxed import fork
from orinspect.tests.faults.campaign import Campaign, Tally
from orinspect.tests.faults.consumer import Consumer
from orinspect.tests.faults.recorded import digest, new_result_id, recorded_payload

ROOT, SOURCE = "plant/line", "recorded"
DELIVER = str(Path(outbox_file.__file__).parent) + os.sep
KILLS_A_ROUND = 100
KEEP = 60  # rows: rounds are long enough that old ones are deleted
LONGEST_S = 0.035  # a random moment lies between the fork and this
MOST_LINES = 6_000
WAIT_S = 20.0


@dataclass(frozen=True)
class Life:
    """What one worker does: how many parts before it stops by itself, and what kills it before."""

    parts: int
    kill_after_s: float | None = None
    kill_at_line: int | None = None


@dataclass
class Ledger:
    """What workers said: id -> digest of the content that `commit` had taken; accepted ids; killed places."""

    accepted: set[str]
    committed: dict[str, str]
    places: set[str]

    def read(self, said: bytes) -> None:
        """Take the lines of one worker; the last may be cut."""
        for line in said.split(b"\n")[:-1]:
            word, *rest = line.decode().split()
            if word == "accepted":
                self.accepted.add(rest[0])
            elif word == "committed":
                self.committed[rest[0]] = rest[1]
            elif word == "killed":
                self.places.add(rest[0])


def run_kill9(seed: int, folder: Path, kills: int = KILLS_A_ROUND) -> Tally:
    """One outbox, `kills` workers killed on it, then one that delivers the rest; what the consumer has."""
    random = Random(f"kill9 {seed}")
    ledger = Ledger(set(), {}, set())
    done, failures = 0, []
    with (
        mosquitto(folder, "allow_anonymous true", "max_queued_messages 0") as port,
        Consumer(port, ROOT, acknowledges=lambda result_id: digest(result_id) < "8") as consumer,
    ):
        lives = 0
        while done < kills and lives < 3 * kills:
            lives += 1
            code = _live(folder, port, random, _drawn_life(random), consumer, ledger)
            done += code == -signal.SIGKILL
            if code not in (0, -signal.SIGKILL):
                failures.append(f"worker {lives} ended with {code}: {_last_words(folder)}")
        code = _live(folder, port, random, Life(0), consumer, ledger)
        if code != 0:
            failures.append(f"the last worker ended with {code}: {_last_words(folder)}")
        consumer.pump_while_it_comes(lambda: ledger.accepted <= consumer.contents.keys())
        failures += _faults_of(folder, consumer, ledger)
    return Tally(done, tuple(failures), seams=frozenset(ledger.places))


def _drawn_life(random: Random) -> Life:
    parts = random.choice((1, 3, 1_000_000))  # a worker that stops by itself is killed while it stops, too
    if random.random() < 0.5:
        return Life(parts, kill_after_s=random.random() * LONGEST_S)
    return Life(parts, kill_at_line=int(MOST_LINES ** random.random()))


def _live(folder: Path, port: int, random: Random, life: Life, consumer: Consumer, ledger: Ledger) -> int:
    """Fork a worker, let it live; its exit code, negative for a signal."""
    reader, writer = os.pipe()
    child = Random(random.random())
    pid = fork()
    if pid == 0:
        os.close(reader)
        consumer.close_in_child()
        logging.disable()
        _worker(folder, port, child, life, lambda line: os.write(writer, line.encode() + b"\n"))
    os.close(writer)
    said, deadline = b"", time.monotonic() + WAIT_S
    kill_at = None if life.kill_after_s is None else time.monotonic() + life.kill_after_s
    while True:
        until = deadline if kill_at is None else kill_at
        if consumer.pump(until - time.monotonic(), reader):
            piece = os.read(reader, 1 << 16)
            said += piece
            if not piece:
                break
        if time.monotonic() >= until:
            os.kill(pid, signal.SIGKILL)
            kill_at, deadline = None, time.monotonic() + WAIT_S
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    ledger.read(said)
    return os.waitstatus_to_exitcode(status)


def _worker(folder: Path, port: int, random: Random, life: Life, tell: Callable[[str], object]) -> NoReturn:
    """The child's whole life; it never returns into the parent's code."""
    code = 9
    try:
        if life.kill_at_line is not None:
            _kill_at_line(life.kill_at_line, tell)
        code = _deliver(folder, port, random, life, tell)
    except BaseException:
        (folder / "last-words.txt").write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def _deliver(folder: Path, port: int, random: Random, life: Life, tell: Callable[[str], object]) -> int:
    config = MqttConfig(
        "127.0.0.1", ROOT, port=port, protocol=random.choice(("5", "3.1.1")), retry_least_s=0.01,
        retry_most_s=0.05, inflight=random.choice((1, 5, 20)),
    )  # fmt: skip
    facts = StationState("", None, None, "d", "s", "boot")
    with Outbox(folder / "outbox.sqlite", keep=KEEP) as outbox:
        publisher = Publisher(outbox, config, facts, on_failure=lambda: None, random=random.random)
        publisher.announce("starting")
        publisher.start()
        for row in outbox.abandoned():
            tell(f"accepted {row.result_id}")
            _commit(outbox, publisher, row.result_id, row.sequence, random, tell)
        last = outbox.last_source_sequence(SOURCE) or 0
        for number in range(last + 1, last + 1 + life.parts):
            result_id = new_result_id(random)
            sequence = outbox.accept(result_id, "boot", SOURCE, number, "{}")
            tell(f"accepted {result_id}")
            _commit(outbox, publisher, result_id, sequence, random, tell)
        left = publisher.close(WAIT_S / 2)
    if publisher.failure is not None:
        raise publisher.failure
    return 3 if left else 0


def _commit(
    outbox: Outbox, publisher: Publisher, result_id: str, sequence: int, random: Random,
    tell: Callable[[str], object],
) -> None:  # fmt: skip
    payload = recorded_payload(result_id, sequence, random)
    outbox.commit(result_id, payload)
    tell(f"committed {result_id} {digest(payload)}")
    publisher.wake()


def _kill_at_line(count: int, tell: Callable[[str], object]) -> None:
    """Kill this process at the `count`-th line of runtime/deliver that any of its threads runs."""
    left = count

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(DELIVER):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                tell(f"killed {Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)


def _faults_of(folder: Path, consumer: Consumer, ledger: Ledger) -> list[str]:
    """Everything that must hold of what the consumer stored and of what stayed in the outbox."""
    faults = []
    for result_id, content in ledger.committed.items():
        stored = consumer.contents.get(result_id, set())
        if content not in {digest(payload) for payload in stored}:
            faults.append(f"committed result {result_id} is {'another' if stored else 'lost'}")
    for result_id in ledger.accepted - consumer.contents.keys() - ledger.committed.keys():
        faults.append(f"accepted part {result_id} was never reported")
    for result_id, stored in consumer.contents.items():
        if len(stored) > 1:
            faults.append(f"result {result_id} came with {len(stored)} contents")
    with Outbox(folder / "outbox.sqlite") as outbox:
        counts = outbox.counts()
    if counts["accepted"] or counts["committed"]:
        faults.append(f"the last worker said that all is delivered, and the outbox holds {counts}")
    return faults


def _last_words(folder: Path) -> str:
    with suppress(OSError):
        return (folder / "last-words.txt").read_text(encoding="utf-8").strip().splitlines()[-1]
    return "without a word"


CAMPAIGN = Campaign(
    name="kill9",
    promise="outbox and publisher killed: no committed result lost at the consumer, none with two contents",
    point="kills",
    target=10_000,
    run=run_kill9,
    needs=("mosquitto",),
)
