"""The trigger by an input line: a light barrier or a PLC output on a GPIO. The only file that knows gpiod.

It wants libgpiod 2 with its Python binding (Debian: python3-libgpiod; pip: gpiod>=2), and is loaded only when
`[trigger] kind = "gpio"`. The kernel stamps every edge with the monotonic clock, so what this process is busy
with does not shift the moment of a trigger.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from ...errors import CaptureError
from ..frame import Clock
from .signal import TriggerSignal

_LOOK_AGAIN_S = 0.2  # how long `close` waits for the thread at most


class GpioTrigger:
    """Calls `fire` at every edge of one line from a thread of its own; a context manager.

    CaptureError when the binding is missing, or chip or line cannot be had.
    """

    def __init__(
        self,
        chip: str,
        line: int,
        *,
        edge: str,
        debounce_ms: float,
        clock: Clock,
        fire: Callable[[TriggerSignal], object],
        gpiod: Any = None,
    ) -> None:
        """`edge` is rising or falling; edges closer than `debounce_ms` are one; `gpiod` is for tests."""
        self._gpiod = gpiod = _binding() if gpiod is None else gpiod
        self._line, self._clock, self._fire = line, clock, fire
        edges = {"rising": gpiod.line.Edge.RISING, "falling": gpiod.line.Edge.FALLING}
        try:
            settings = gpiod.LineSettings(
                direction=gpiod.line.Direction.INPUT,
                edge_detection=edges[edge],
                debounce_period=timedelta(milliseconds=debounce_ms),
                event_clock=gpiod.line.Clock.MONOTONIC,
            )
            self._request = gpiod.request_lines(chip, consumer="orinspect", config={line: settings})
        except (OSError, ValueError) as error:
            raise CaptureError(
                f"trigger.gpio_chip {chip}, line {line}: {error}; `gpioinfo` lists what this machine has and"
                " who uses it"
            ) from error
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpio", daemon=True)

    def __enter__(self) -> GpioTrigger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()
        self._request.release()

    def _run(self) -> None:
        while not self._closed.is_set():
            if not self._request.wait_edge_events(timedelta(seconds=_LOOK_AGAIN_S)):
                continue
            for event in self._request.read_edge_events():
                now_ns, unix_s = self._clock.monotonic_ns(), self._clock.unix_s()
                at_ns = min(int(event.timestamp_ns), now_ns)
                self._fire(
                    TriggerSignal("gpio", f"gpio-{event.line_seqno}", at_ns, unix_s - (now_ns - at_ns) / 1e9)
                )


def _binding() -> Any:
    """The gpiod module, version 2; CaptureError says how to get it."""
    try:
        import gpiod
    except ImportError:
        raise CaptureError(
            "trigger.kind is 'gpio' and the Python binding of libgpiod is missing; install python3-libgpiod"
            " (Debian, version 2) or pip install 'gpiod>=2'"
        ) from None
    if not hasattr(gpiod, "request_lines"):
        raise CaptureError("trigger.kind is 'gpio' needs libgpiod 2, and this gpiod is version 1; update it")
    return gpiod
