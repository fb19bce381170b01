"""What systemd is told: ready, stopping, and alive while the line really moves.

`Progress` is what the line says about itself; `Watchdog` passes it on to systemd. The protocol is a datagram
to the socket that systemd names in NOTIFY_SOCKET (sd_notify(3)); without one nothing is said.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)


class Progress:
    """When the line moved last, and how long it may take until it moves again."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._mutex = threading.Lock()
        self._due_ns = monotonic_ns() + int(600e9)

    def step(self, allowed_s: float) -> None:
        """The line moved; the next step is due in `allowed_s`."""
        with self._mutex:
            self._due_ns = self._monotonic_ns() + int(allowed_s * 1e9)

    @property
    def is_stalled(self) -> bool:
        """Whether a step is overdue."""
        with self._mutex:
            return self._monotonic_ns() > self._due_ns


class Watchdog:
    """systemd's side of the service: Type=notify and WatchdogSec= of the unit."""

    def __init__(self, progress: Progress, environment: Mapping[str, str]) -> None:
        """`environment`: the process's; systemd leaves its wishes there."""
        self._progress = progress
        self._address = environment.get("NOTIFY_SOCKET", "")
        microseconds = environment.get("WATCHDOG_USEC", "")
        self.period_s = float(microseconds) / 2e6 if microseconds.isdigit() and int(microseconds) else None
        """How often `feed` must be called; None when systemd does not watch."""
        self._was_stalled = False

    def ready(self) -> None:
        """The service is up."""
        self._notify("READY=1")

    def stopping(self) -> None:
        """The service is on its way out."""
        self._notify("STOPPING=1")

    def feed(self) -> None:
        """Alive, unless the line is stalled: then systemd is left to end the process."""
        if self.period_s is None:
            return
        if not self._progress.is_stalled:
            self._notify("WATCHDOG=1")
        elif not self._was_stalled:
            self._was_stalled = True
            log.error("the line does not move any more; systemd will end this process")

    def _notify(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1.0)
                sender.sendto(message.encode(), address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", message, error)
