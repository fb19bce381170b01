"""The intake: frames on one side, triggers on the other, and the part that both make.

Kinds of trigger:
    frames    every frame of the source is a part; the source waits for the inspection
    free_run  the newest frame is a part as soon as the inspection is free; older ones were none
    time, command, gpio
              a trigger is a part: it is accepted on disk, and then the first frame that was taken after it
              belongs to it. A source that starts over (scenes, a folder) gives its next frame instead.

An accepted trigger always becomes a report: without a frame in time, or with too many waiting before it, one
that says that the part was not inspected.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from ..capture.frame import Frame
from ..capture.triggers.signal import TriggerSignal
from ..errors import DeliveryError, EngineError, OrinspectError
from .parts import Acceptance

IntakeKind = Literal["frames", "free_run", "time", "command", "gpio"]
SAME_FAULT_EVERY_NS = int(10e9)  # a free-running camera that is frozen is no thirty results a second

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A frame to inspect, and the acceptance of its trigger; None: the frame itself is the trigger."""

    frame: Frame
    acceptance: Acceptance | None


class Book(Protocol):
    """Where parts are accepted and given up; safe to use from several threads."""

    def accept(self, signal: TriggerSignal, held: Frame | None) -> Acceptance:
        """Write an accepted trigger; `held` is the frame that it will get, where that is known."""
        ...

    def give_up(self, acceptance: Acceptance, reason_code: str, why: str) -> None:
        """Report an accepted part as not inspected."""
        ...


class Intake:
    """Joins frames and triggers; `pump` is one thread, `trigger` any thread, `take` the inspection's."""

    def __init__(
        self,
        kind: IntakeKind,
        book: Book,
        *,
        starts_over: bool,
        most_waiting: int,
        picture_timeout_s: float,
        monotonic_ns: Callable[[], int],
    ) -> None:
        """`starts_over`: the source is a replay, whose frames wait for triggers; `most_waiting`: accepted
        triggers that may wait for picture or inspection."""
        self.failure: OrinspectError | None = None
        self.kind = kind
        self._book, self._starts_over = book, starts_over
        self._most_waiting, self._timeout_ns = most_waiting, int(picture_timeout_s * 1e9)
        self._monotonic_ns = monotonic_ns
        self._changed = threading.Condition()
        self._ready: deque[Job] = deque()
        self._pending: deque[tuple[TriggerSignal, Acceptance]] = deque()
        self._held: Frame | None = None  # of a replay: the frame that the next trigger gets
        self._paused = self._blocked = self._ended = self._stopped = False
        self._last_fault: tuple[str, int] | None = None

    @property
    def is_triggered(self) -> bool:
        """Whether parts come from triggers rather than from the frames themselves."""
        return self.kind not in ("frames", "free_run")

    @property
    def is_finished(self) -> bool:
        """The source has ended and everything that it gave was taken."""
        with self._changed:
            return self._ended and not self._ready and not self._pending

    def pump(self, frames: Iterator[Frame]) -> None:
        """Take frames until the source ends or `stop`; a failure is left in `failure`."""
        try:
            for frame in frames:
                if not self._offer(frame):
                    break
        except OrinspectError as error:
            self.failure = error
        except BaseException as error:  # a thread's exception would only be printed
            log.exception("the intake stopped unexpectedly")
            self.failure = EngineError(f"the intake stopped unexpectedly: {error!r}")
        finally:
            with self._changed:
                self._ended = True
                why = str(self.failure) if self.failure else "the source has ended"
                self._give_up_pending("not_inspected.no_picture", why)
                self._changed.notify_all()

    def trigger(self, signal: TriggerSignal) -> Acceptance:
        """Accept a part: on disk before this returns. One that cannot wait is reported at once."""
        with self._changed:
            acceptance = self._book.accept(signal, self._held)
            self._expire()
            if self._paused:
                self._book.give_up(acceptance, "not_inspected.paused", "the station is paused")
            elif self._ended or self._stopped:
                self._book.give_up(acceptance, "not_inspected.no_picture", "the source has ended")
            elif len(self._ready) + len(self._pending) >= self._most_waiting:
                why = f"{self._most_waiting} accepted parts were waiting already"
                self._book.give_up(acceptance, "not_inspected.overrun", why)
            else:
                self._pending.append((signal, acceptance))
                self._changed.notify_all()
        return acceptance

    def fire(self, signal: TriggerSignal) -> None:
        """`trigger` for a thread that nobody can answer: what the outbox refuses is logged, and counted
        there."""
        try:
            self.trigger(signal)
        except DeliveryError as error:
            log.error("trigger %s: %s", signal.trigger_id, error)

    def put_back(self, job: Job) -> None:
        """A part that was taken and could not be begun; a newer frame of a free run has its place."""
        with self._changed:
            if not (self.kind == "free_run" and self._ready) and not self._stopped:
                self._ready.appendleft(job)
            self._changed.notify_all()

    def take(self, timeout_s: float, until: Callable[[], bool]) -> Job | None:
        """The next part; None after `timeout_s`, when `until()` holds, or when there will be none."""
        with self._changed:
            self._expire()
            self._changed.wait_for(
                lambda: until() or self._stopped or self._ended or self._may_take(),
                timeout_s,
            )
            self._expire()
            if until() or self._stopped or not self._may_take():
                return None
            job = self._ready.popleft()
            self._changed.notify_all()
            return job

    def pause(self, paused: bool) -> None:
        """Take no part, or go on; triggers that come meanwhile are reported as not inspected."""
        with self._changed:
            self._paused = paused
            self._changed.notify_all()

    def block(self, blocked: bool) -> None:
        """Nothing can be inspected: frames are not taken; triggers still come through, to be reported."""
        with self._changed:
            self._blocked = blocked
            self._changed.notify_all()

    def wake(self) -> None:
        """Let `take` look at its `until` again."""
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Take nothing any more; what was accepted and not taken is reported as not inspected."""
        with self._changed:
            if self._stopped:
                return
            self._stopped = True
            why = "the service stopped before the part was inspected"
            self._give_up_pending("not_inspected.restart", why)
            for job in self._ready:
                if job.acceptance is not None:
                    self._book.give_up(job.acceptance, "not_inspected.restart", why)
            self._ready.clear()
            self._changed.notify_all()

    def _may_take(self) -> bool:
        """Whether a part is ready; a paused station still finishes what it accepted."""
        return bool(self._ready) and (self.is_triggered or not (self._paused or self._blocked))

    def _offer(self, frame: Frame) -> bool:
        """One frame of the source; False when nobody wants another."""
        with self._changed:
            if self.kind == "free_run":
                if not self._is_same_fault(frame):
                    self._ready.clear()
                    self._ready.append(Job(frame, None))
            elif self.kind == "frames":
                self._changed.wait_for(lambda: self._stopped or not self._ready)
                if not self._stopped:
                    self._ready.append(Job(frame, None))
            else:
                if self._starts_over:
                    self._held = frame
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopped or bool(self._pending))
                    self._held = None
                self._expire(at_ns=None if self._starts_over else frame.monotonic_ns)
                if self._pending and (
                    self._starts_over or self._pending[0][0].monotonic_ns <= frame.monotonic_ns
                ):
                    self._ready.append(Job(frame, self._pending.popleft()[1]))
            self._changed.notify_all()
            return not self._stopped

    def _is_same_fault(self, frame: Frame) -> bool:
        """Whether this frame only repeats what a result said a moment ago."""
        fault = frame.fault
        if fault is None:
            self._last_fault = None
            return False
        now = self._monotonic_ns()
        last = self._last_fault
        if last is not None and last[0] == fault.name and now - last[1] < SAME_FAULT_EVERY_NS:
            return True
        self._last_fault = (fault.name, now)
        return False

    def _expire(self, at_ns: int | None = None) -> None:
        """Give up the triggers whose picture did not come in time; `at_ns`: when the frame at hand was."""
        now = self._monotonic_ns() if at_ns is None else at_ns
        while self._pending and now - self._pending[0][0].monotonic_ns > self._timeout_ns:
            _, acceptance = self._pending.popleft()
            why = f"no picture came within {self._timeout_ns / 1e9:g} s of the trigger"
            self._book.give_up(acceptance, "not_inspected.no_picture", why)

    def _give_up_pending(self, reason_code: str, why: str) -> None:
        while self._pending:
            self._book.give_up(self._pending.popleft()[1], reason_code, why)
