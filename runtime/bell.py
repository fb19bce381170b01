"""What the main thread of the service waits for: a signal, or a thread that has something to say."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import Any


class Bell:
    """What wakes the main thread: SIGTERM, SIGINT, or another thread's `ring`; a context manager.

    A pipe, not a threading.Event: a signal handler may interrupt the main thread while it holds the event's
    own lock, and would wait for it for ever.
    """

    def __init__(self) -> None:
        self.was_signal = False
        self._reader, self._writer = os.pipe()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Bell:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only there
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        reader, writer = self._reader, self._writer
        self._reader = self._writer = -1
        os.close(reader)
        os.close(writer)

    def ring(self) -> None:
        """Wake the main thread; any thread, any number of times, also when nobody waits any more."""
        with contextlib.suppress(OSError):
            os.write(self._writer, b"r")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until somebody rings, at once when somebody has; False when nobody did in time."""
        if timeout_s is not None and not select.select([self._reader], [], [], timeout_s)[0]:
            return False
        os.read(self._reader, 1)
        return True

    def _on_signal(self, number: int, frame: object) -> None:
        self.was_signal = True
        self.ring()
