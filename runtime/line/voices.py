"""What the station says beside its results: states and alarms, published, recorded, and remembered."""

from __future__ import annotations

import json
import threading
from typing import Protocol

from ..deliver.store.rescue import Rescue
from ..deliver.store.rows import Level
from .condition import Condition


class Says(Protocol):
    """The publisher, as far as it is needed here."""

    def announce(self, state: str, reason: str | None = None) -> None:
        """Publish the state."""
        ...

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        """Publish another message."""
        ...


class Records(Protocol):
    """The audit, as far as it is needed here."""

    def write(self, event: str, **facts: object) -> bool:
        """Record an event."""
        ...


class Voices:
    """States and alarms of one station; safe to use from several threads.

    Whoever raises alarms is built before those who carry them: `publisher` and `audit` are set when they are
    there, and an alarm from before waits for the publisher.
    """

    def __init__(self) -> None:
        self.audit: Records | None = None
        self.condition = Condition(self.say_state)
        self._publisher: Says | None = None
        self._mutex = threading.Lock()
        self._standing: dict[str, str] = {}

    def connect(self, publisher: Says) -> None:
        """From here on everything is published; alarms that stand already at once."""
        with self._mutex:
            self._publisher = publisher
            standing = dict(self._standing)
        for code, text in standing.items():
            self._publish(code, text)

    def alarms(self) -> dict[str, str]:
        """The sentences of the alarms that stand, by code."""
        with self._mutex:
            return dict(self._standing)

    def say_state(self, state: str, reason: str | None) -> None:
        """Publish and record a state."""
        if self._publisher is not None:
            self._publisher.announce(state, reason)
        self.record("state", state=state, reason=reason)

    def alarm(self, code: str, text: str | None) -> None:
        """Raise an alarm with this sentence, or clear it with None; each once."""
        with self._mutex:
            if self._standing.get(code) == text:
                return
            if text is None:
                del self._standing[code]
            else:
                self._standing[code] = text
        self._publish(code, text)
        self.record("alarm", code=code, text=text)

    def record(self, event: str, **facts: object) -> None:
        """A line of the audit, where there is one."""
        if self.audit is not None:
            self.audit.write(event, **facts)

    def outbox_level(self, level: Level, why: str) -> None:
        """The outbox became full, a fault, or ok again."""
        self.alarm("outbox.full", why if level == "full" else None)
        self.alarm("outbox.fault", why if level == "fault" else None)
        self.condition.trouble("outbox", f"parts are counted only: {why}" if level == "full" else None)
        self.condition.fail("outbox", why if level == "fault" else None)

    def outbox_rescued(self, rescue: Rescue, why: str) -> None:
        """The outbox was damaged and saved: for a person to know, until the next start."""
        self.alarm("outbox.damaged", f"{why}: {rescue}")
        self.condition.trouble("outbox.damaged", f"the outbox was damaged and saved: {why}")

    def _publish(self, code: str, text: str | None) -> None:
        if self._publisher is not None:
            table = {
                "schema": "orinspect.alarm/1.0",
                "code": code,
                "is_raised": text is not None,
                "text": text,
            }
            self._publisher.publish("alarm", json.dumps(table, ensure_ascii=False))
