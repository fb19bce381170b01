"""Frames and triggers joined: what is taken, what is too late, and what nobody may forget."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame, FrameFault
from orinspect.runtime.capture.triggers.signal import TriggerSignal
from orinspect.runtime.errors import CaptureError
from orinspect.runtime.judge.assessment import Trigger
from orinspect.runtime.line.intake import SAME_FAULT_EVERY_NS, Intake, IntakeKind
from orinspect.runtime.line.parts import Acceptance
from orinspect.runtime.report import ClockReading, Part, View

S = 1_000_000_000
WAIT_S = 20.0


class Book:
    """What was accepted and given up, in order."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.held: list[int | None] = []
        self.given_up: list[tuple[str, str]] = []

    def accept(self, signal: TriggerSignal, held: Frame | None) -> Acceptance:
        self.accepted.append(signal.trigger_id)
        self.held.append(None if held is None else held.sequence)
        part = Part(signal.part_id, "p", trigger_id=signal.trigger_id)
        reading = ClockReading("test", True, signal.monotonic_ns)
        trigger = Trigger(signal.trigger_id, "boot", "cam", 0, part, View("cam0"), "", reading, False)
        return Acceptance(trigger, len(self.accepted))

    def give_up(self, acceptance: Acceptance, reason_code: str, why: str) -> None:
        self.given_up.append((acceptance.trigger.result_id, reason_code))


class Camera:
    """Frames that the test gives one by one, through a thread of the intake's own."""

    def __init__(self, intake: Intake) -> None:
        self._given = threading.Semaphore(0)
        self._taken = threading.Semaphore(0)
        self._next: list[Frame | Exception | None] = []
        self._thread = threading.Thread(target=intake.pump, args=(self._frames(),), daemon=True)
        self._intake = intake

    def __enter__(self) -> Camera:
        self._thread.start()
        assert self._taken.acquire(timeout=WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._intake.stop()
        self._give(None)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def show(self, frame: Frame | Exception | None) -> None:
        """Give a frame (an exception, the end), and wait until the intake asks for the next one."""
        self._give(frame)
        if isinstance(frame, Frame):
            assert self._taken.acquire(timeout=WAIT_S)
        else:
            self._thread.join(WAIT_S)

    def hold(self, frame: Frame) -> None:
        """Give a frame that the intake keeps until somebody wants it."""
        self._give(frame)

    def _give(self, frame: Frame | Exception | None) -> None:
        self._next.append(frame)
        self._given.release()

    def _frames(self) -> Iterator[Frame]:
        while True:
            self._taken.release()
            assert self._given.acquire(timeout=WAIT_S)
            frame = self._next.pop(0)
            if frame is None:
                return
            if isinstance(frame, Exception):
                raise frame
            yield frame


class Time:
    """A clock that the test moves."""

    now = 0

    def monotonic_ns(self) -> int:
        return self.now


def _intake(
    kind: IntakeKind, *, starts_over: bool = False, most_waiting: int = 4
) -> tuple[Intake, Book, Time]:
    book, time = Book(), Time()
    intake = Intake(
        kind,
        book,
        starts_over=starts_over,
        most_waiting=most_waiting,
        picture_timeout_s=2.0,
        monotonic_ns=time.monotonic_ns,
    )
    return intake, book, time


def _frame(number: int, at_ns: int = 0, fault: FrameFault | None = None) -> Frame:
    return Frame(np.zeros((8, 8), np.uint8), None, number, 1.0, at_ns, "cam", fault=fault)


def _signal(name: str, at_ns: int = 0) -> TriggerSignal:
    return TriggerSignal("gpio", name, at_ns, 1.0)


def _take(intake: Intake) -> tuple[int, str | None] | None:
    job = intake.take(0.0, lambda: False)
    if job is None:
        return None
    return job.frame.sequence, None if job.acceptance is None else job.acceptance.trigger.result_id


def test_free_run_takes_the_newest_frame() -> None:
    intake, book, _ = _intake("free_run")
    with Camera(intake) as camera:
        for number in (1, 2, 3):
            camera.show(_frame(number))
        assert _take(intake) == (3, None)
        assert _take(intake) is None
    assert book.accepted == []


def test_free_run_says_once_that_the_camera_is_frozen() -> None:
    intake, _, time = _intake("free_run")
    frozen = FrameFault("frozen", "the same picture again")
    with Camera(intake) as camera:
        camera.show(_frame(1, fault=frozen))
        assert _take(intake) == (1, None)
        camera.show(_frame(2, fault=frozen))
        assert _take(intake) is None
        camera.show(_frame(3, fault=FrameFault("black", "dark")))
        assert _take(intake) == (3, None)
        time.now = SAME_FAULT_EVERY_NS + 1
        camera.show(_frame(4, fault=FrameFault("black", "dark")))
        assert _take(intake) == (4, None)


def test_every_frame_is_a_part_and_the_source_waits() -> None:
    intake, _, _ = _intake("frames")
    with Camera(intake) as camera:
        camera.show(_frame(1))
        camera.hold(_frame(2))
        assert _take(intake) == (1, None)
        job = intake.take(WAIT_S, lambda: False)
        assert job is not None and job.frame.sequence == 2
        camera.show(None)
        assert intake.is_finished


def test_a_trigger_gets_the_first_frame_that_was_taken_after_it() -> None:
    intake, book, _ = _intake("gpio")
    with Camera(intake) as camera:
        camera.show(_frame(1, 1 * S))
        intake.trigger(_signal("a", 2 * S))
        camera.show(_frame(2, 2 * S - 1))  # exposed before the part was there
        assert _take(intake) is None
        camera.show(_frame(3, 2 * S))
        camera.show(_frame(4, 3 * S))
        assert _take(intake) == (3, "a")
        assert _take(intake) is None
    assert book.accepted == ["a"] and book.given_up == []


def test_two_triggers_never_share_a_frame() -> None:
    intake, _, _ = _intake("command")
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        intake.trigger(_signal("b"))
        camera.show(_frame(1, 1))
        camera.show(_frame(2, 2))
        assert [_take(intake), _take(intake)] == [(1, "a"), (2, "b")]


def test_a_trigger_of_a_replay_gets_the_next_frame_and_its_number() -> None:
    intake, book, _ = _intake("command", starts_over=True)
    with Camera(intake) as camera:
        camera.hold(_frame(7))
        with intake._changed:
            assert intake._changed.wait_for(lambda: intake._held is not None, WAIT_S)
        intake.trigger(_signal("a", 5 * S))  # its picture was taken before it
        assert book.held == [7]
        job = intake.take(WAIT_S, lambda: False)
        assert job is not None and job.frame.sequence == 7


def test_without_a_picture_in_time_the_part_is_reported() -> None:
    intake, book, time = _intake("gpio")
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        time.now = 2 * S
        assert _take(intake) is None
        assert book.given_up == []
        time.now += 1
        assert _take(intake) is None
        assert book.given_up == [("a", "not_inspected.no_picture")]
        camera.show(_frame(1, 3 * S))
        assert _take(intake) is None


def test_a_picture_that_was_late_belongs_to_nobody() -> None:
    intake, book, time = _intake("gpio")
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        intake.trigger(_signal("b", 1 * S))
        time.now = 1 * S
        camera.show(_frame(1, 2 * S + 1))
        assert _take(intake) == (1, "b")
    assert book.given_up == [("a", "not_inspected.no_picture")]


def test_one_trigger_too_many_is_an_overrun() -> None:
    intake, book, _ = _intake("gpio", most_waiting=2)
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        camera.show(_frame(1, 1))
        intake.trigger(_signal("b", 2))
        intake.trigger(_signal("c", 3))
        assert book.given_up == [("c", "not_inspected.overrun")]
        assert _take(intake) == (1, "a")
        intake.trigger(_signal("d", 4))
        assert len(book.given_up) == 1
    assert book.accepted == ["a", "b", "c", "d"]
    assert [name for name, _ in book.given_up[1:]] == ["b", "d"]  # the stop: accepted, never inspected
    assert {code for _, code in book.given_up[1:]} == {"not_inspected.restart"}


def test_a_camera_that_fails_leaves_no_trigger_without_a_word() -> None:
    intake, book, _ = _intake("gpio")
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        camera.show(CaptureError("the cable is out"))
        assert book.given_up == [("a", "not_inspected.no_picture")]
        assert str(intake.failure) == "the cable is out"
        intake.trigger(_signal("b"))
        assert book.given_up[1] == ("b", "not_inspected.no_picture")
        assert intake.is_finished


@pytest.mark.parametrize("kind", ["frames", "free_run"])
def test_a_paused_station_takes_no_frame(kind: IntakeKind) -> None:
    intake, _, _ = _intake(kind)
    with Camera(intake) as camera:
        intake.pause(True)
        camera.show(_frame(1))
        assert _take(intake) is None
        intake.pause(False)
        assert _take(intake) == (1, None)


def test_a_trigger_while_paused_is_reported_and_what_was_accepted_before_is_finished() -> None:
    intake, book, _ = _intake("gpio")
    with Camera(intake) as camera:
        intake.trigger(_signal("a"))
        intake.pause(True)
        intake.trigger(_signal("b"))
        camera.show(_frame(1, 1))
        assert _take(intake) == (1, "a")
        assert book.given_up == [("b", "not_inspected.paused")]


def test_in_fault_frames_wait_and_triggers_come_through_to_be_reported() -> None:
    intake, _, _ = _intake("free_run")
    with Camera(intake) as camera:
        intake.block(True)
        camera.show(_frame(1))
        assert _take(intake) is None
    intake, _, _ = _intake("gpio")
    with Camera(intake) as camera:
        intake.block(True)
        intake.trigger(_signal("a"))
        camera.show(_frame(1, 1))
        assert _take(intake) == (1, "a")


def test_an_order_wakes_who_waits_for_a_part() -> None:
    intake, _, _ = _intake("gpio")
    ordered = threading.Event()
    taken: list[object] = []
    waiter = threading.Thread(target=lambda: taken.append(intake.take(WAIT_S, ordered.is_set)))
    waiter.start()
    ordered.set()
    intake.wake()
    waiter.join(WAIT_S / 2)
    assert taken == [None]
