"""What the station says beside its results: states and alarms, published, recorded, and their meaning."""

from __future__ import annotations

import threading
from typing import Protocol

from ..capture.recovery import CameraTrouble
from ..deliver.link.alarm import ALARMS
from ..deliver.publisher import Publisher
from ..deliver.store.rescue import Rescue
from ..deliver.store.rows import Level
from .condition import Condition


class Records(Protocol):
    """The audit, as far as it is needed here."""

    def write(self, event: str, **facts: object) -> bool:
        """Record an event."""
        ...


class Voices:
    """States and alarms of one station; safe to use from several threads.

    Whoever raises alarms is built before those who carry them: `audit` is set and `connect` called when they
    are there, and alarms from before wait. An alarm above a warning degrades the station while it stands.
    """

    def __init__(self) -> None:
        self.audit: Records | None = None
        self.condition = Condition(self.say_state)
        self._publisher: Publisher | None = None
        self._mutex = threading.Lock()
        self._waiting: dict[str, str | None] = {}

    def connect(self, publisher: Publisher) -> None:
        """From here on everything is published."""
        publisher.alarms.on_change = self._alarm_changed
        with self._mutex:
            self._publisher = publisher
            waiting = dict(self._waiting)
        for code, text in waiting.items():
            publisher.alarm(code, text)

    def alarms(self) -> dict[str, str]:
        """The sentences of the alarms that stand, by code."""
        return {} if self._publisher is None else self._publisher.alarms.standing()

    def say_state(self, state: str, reason: str | None) -> None:
        """Publish and record a state."""
        if self._publisher is not None:
            self._publisher.announce(state, reason)
        self.record("state", state=state, reason=reason)

    def alarm(self, code: str, text: str | None) -> None:
        """Raise an alarm of the closed list with this sentence, or clear it with None."""
        with self._mutex:
            publisher = self._publisher
            if publisher is None:
                self._waiting[code] = text
        if publisher is not None:
            publisher.alarm(code, text)

    def record(self, event: str, **facts: object) -> None:
        """A line of the audit, where there is one."""
        if self.audit is not None:
            self.audit.write(event, **facts)

    def outbox_level(self, level: Level, why: str) -> None:
        """The outbox became full, a fault, or ok again."""
        self.alarm("outbox.full", why if level == "full" else None)
        self.alarm("outbox.fault", why if level == "fault" else None)
        self.condition.fail("outbox", why if level == "fault" else None)

    def outbox_rescued(self, rescue: Rescue, why: str) -> None:
        """The outbox was damaged and saved: for a person to know, until the next start."""
        lost = f"{rescue.saved} rows were saved, {rescue.missing} sequences are missing"
        self.alarm("outbox.damaged", f"{why}; {lost}; the damaged file is {rescue.moved_to}")

    def camera(self, trouble: CameraTrouble) -> None:
        """The camera failed, is being helped, or gives good frames again."""
        code = trouble.alarm.replace("camera_", "camera.", 1)
        for other in self.alarms():
            if other.startswith("camera.") and other != code:
                self.alarm(other, None)
        helped = "" if trouble.step is None else f"; attempt {trouble.attempt}: {trouble.step}"
        self.alarm(code, None if trouble.is_over else f"{trouble.why}{helped}")

    def _alarm_changed(self, code: str, text: str | None) -> None:
        if ALARMS[code].severity != "warning":
            self.condition.trouble(code, None if text is None else f"{code}: {text}")
        self.record("alarm", code=code, text=text)
