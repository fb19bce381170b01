"""Triggers by time and by GPIO; the GPIO's driver is played by the test, no line was ever pulled here."""

from __future__ import annotations

import itertools
import queue
import types
from datetime import timedelta
from typing import Any

import pytest

from orinspect.runtime.capture.clock import SystemClock
from orinspect.runtime.capture.triggers.gpio import GpioTrigger
from orinspect.runtime.capture.triggers.signal import TriggerSignal
from orinspect.runtime.capture.triggers.timer import TimerTrigger
from orinspect.runtime.errors import CaptureError

WAIT_S = 20.0


class Clock:
    """A clock that jumps by `step_ns` with every look."""

    def __init__(self, step_ns: int = 0) -> None:
        self.now, self._step = 1_000, step_ns

    def monotonic_ns(self) -> int:
        self.now += self._step
        return self.now

    def unix_s(self) -> float:
        return 50.0


def test_the_timer_fires_with_numbers_and_moments_of_its_own() -> None:
    fired: queue.Queue[TriggerSignal] = queue.Queue()
    with TimerTrigger(0.01, SystemClock(), fired.put):
        first, second = fired.get(timeout=WAIT_S), fired.get(timeout=WAIT_S)
    assert (first.kind, first.trigger_id, second.trigger_id) == ("time", "time-1", "time-2")
    assert second.monotonic_ns - first.monotonic_ns >= 1_000_000
    assert first.part_id is None


def test_after_a_pause_the_timer_gives_no_burst() -> None:
    fired: queue.Queue[TriggerSignal] = queue.Queue()
    clock = Clock(step_ns=int(100e9))  # each look is a hundred seconds later
    with TimerTrigger(10.0, clock, fired.put):
        moments = [fired.get(timeout=WAIT_S).monotonic_ns for _ in range(3)]
    assert all(later - earlier >= 90e9 for earlier, later in itertools.pairwise(moments))


class Gpiod:
    """The face of libgpiod 2, as its manual has it."""

    def __init__(self, error: OSError | None = None) -> None:
        self.line = types.SimpleNamespace(
            Edge=types.SimpleNamespace(RISING="rising", FALLING="falling"),
            Direction=types.SimpleNamespace(INPUT="input"),
            Clock=types.SimpleNamespace(MONOTONIC="monotonic"),
        )
        self.LineSettings = dict
        self.edges: queue.Queue[Any] = queue.Queue()
        self.asked: tuple[Any, ...] = ()
        self.released = False
        self._error = error

    def request_lines(self, chip: str, *, consumer: str, config: dict[int, Any]) -> Gpiod:
        if self._error is not None:
            raise self._error
        self.asked = (chip, consumer, config)
        return self

    def wait_edge_events(self, timeout: timedelta) -> bool:
        try:
            self._next = self.edges.get(timeout=timeout.total_seconds())
        except queue.Empty:
            return False
        return True

    def read_edge_events(self) -> list[Any]:
        return [self._next]

    def release(self) -> None:
        self.released = True


def test_an_edge_is_a_trigger_at_the_moment_that_the_kernel_saw_it() -> None:
    fired: queue.Queue[TriggerSignal] = queue.Queue()
    gpiod, clock = Gpiod(), Clock()
    clock.now = 3_000_000_000
    trigger = GpioTrigger(
        "/dev/gpiochip0", 17, edge="falling", debounce_ms=5.0, clock=clock, fire=fired.put, gpiod=gpiod
    )
    with trigger:
        gpiod.edges.put(types.SimpleNamespace(timestamp_ns=1_000_000_000, line_seqno=4))
        signal = fired.get(timeout=WAIT_S)
    assert gpiod.released
    assert signal == TriggerSignal("gpio", "gpio-4", 1_000_000_000, 48.0)
    chip, consumer, config = gpiod.asked
    assert (chip, consumer) == ("/dev/gpiochip0", "orinspect")
    assert config[17]["edge_detection"] == "falling"
    assert config[17]["debounce_period"] == timedelta(milliseconds=5)
    assert config[17]["event_clock"] == "monotonic"


def test_a_line_that_cannot_be_had_is_named() -> None:
    busy = Gpiod(OSError(16, "Device or resource busy"))
    with pytest.raises(CaptureError, match=r"/dev/gpiochip0, line 17: .*busy.*gpioinfo"):
        GpioTrigger("/dev/gpiochip0", 17, edge="rising", debounce_ms=0, clock=Clock(), fire=print, gpiod=busy)


def test_without_the_binding_the_error_says_what_to_install() -> None:
    try:
        import gpiod  # noqa: F401
    except ImportError:
        with pytest.raises(CaptureError, match="python3-libgpiod"):
            GpioTrigger("/dev/gpiochip0", 1, edge="rising", debounce_ms=0, clock=Clock(), fire=print)
    else:
        with pytest.raises(CaptureError, match="/dev/gpiochip99"):
            GpioTrigger("/dev/gpiochip99", 1, edge="rising", debounce_ms=0, clock=Clock(), fire=print)
