"""The trigger by time: every so many seconds, counted from the start, so that no delay adds up."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..frame import Clock
from .signal import TriggerSignal


class TimerTrigger:
    """Calls `fire` every `every_s` seconds from a thread of its own until `close`; a context manager.

    A period that was missed (the machine slept, `fire` took long) is one trigger, not a burst of them.
    """

    def __init__(self, every_s: float, clock: Clock, fire: Callable[[TriggerSignal], object]) -> None:
        self._period_ns, self._clock, self._fire = int(every_s * 1e9), clock, fire
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="timer", daemon=True)

    def __enter__(self) -> TimerTrigger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        due_ns = self._clock.monotonic_ns() + self._period_ns
        number = 0
        while not self._closed.wait(max(due_ns - self._clock.monotonic_ns(), 0) / 1e9):
            now = self._clock.monotonic_ns()
            number += 1
            self._fire(TriggerSignal("time", f"time-{number}", now, self._clock.unix_s()))
            due_ns += self._period_ns * (1 + max(now - due_ns, 0) // self._period_ns)
