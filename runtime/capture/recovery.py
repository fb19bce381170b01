"""A camera that comes back: what fails is opened again, reset, or killed and started anew, step by step.

A source that can start over goes on behind the last frame given, a live camera counts on. Times and chances
come in as arguments, so a test waits for nothing.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal

from ..config import RecoveryConfig, ServiceConfig
from ..errors import CaptureError
from .frame import Frame, camera_from_source
from .process import CameraStopped, CaptureDied, ProcessCamera
from .sources import Resume, SourceError, SourceText

Step = Literal["reopen", "reset", "restart"]
LADDER: tuple[Step, ...] = ("reopen", "reset", "restart")
"""What the first, second and every further attempt does where the child still answers; else it is killed."""

STUCK = ("frozen", "stale")
"""Faults of frames that opening the camera again may cure; light, blur and place it does not."""

_KEYS_TRACKED = 100_000  # of parts given since the start; `resume` knows the others

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CameraTrouble:
    """One change of the camera's health, for state and alarm.

    alarm: `camera_failed`, `camera_stopped`, `camera_died`, or `camera_` and the name of a frame's fault.
    `is_over`: frames are good again. `step`: what will be tried, as attempt number `attempt`; None where only
    a person can help. why: a sentence.
    """

    alarm: str
    why: str
    is_over: bool = False
    step: Step | None = None
    attempt: int = 0


class SteadyCamera:
    """A `Camera` that outlives its failures; a context manager.

    `open_process` starts the child with what it is to leave out, after a reset of the device or not; `resume`
    says what was accepted before now.
    `tell` hears of every change, in the thread that takes frames. `random` gives [0, 1). `pause` waits the
    seconds given and returns early, with True, when `stop` was called; None takes the real clock.
    A source text that is wrong at the start stays an error (SourceError): no waiting cures it.
    """

    def __init__(
        self,
        source: str,
        open_process: Callable[[Resume, bool], ProcessCamera],
        config: RecoveryConfig,
        *,
        resume: Callable[[], Resume],
        tell: Callable[[CameraTrouble], None],
        random: Callable[[], float],
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        text = SourceText.of(source)
        self._is_live, self._resumed_by = text.is_live, text.resumed_by
        self._open_process, self._config, self._resume = open_process, config, resume
        self._tell, self._random = tell, random
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._mutex = threading.Lock()  # of `_process`: `stop` comes from another thread
        self._attempt = 0
        self._good = 0  # good frames since the last failure
        self._faulty = 0  # frames with one and the same fault since the last good one
        self._alarm: str | None = None
        self._failed_as: str | None = None  # the fault name that the frames carry now
        self._sequence = 0
        self._keys: deque[str] = deque(maxlen=_KEYS_TRACKED)
        self._process = open_process(resume(), False)

    def __enter__(self) -> SteadyCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; another one after a restart."""
        return self._process.pid

    def stop(self) -> None:
        """End `frames` at its next step; any thread may call it."""
        self._stop.set()
        with self._mutex:
            self._process.stop()

    def close(self) -> None:
        """Kill the child and free its memory; twice is fine."""
        self._stop.set()
        with self._mutex:
            self._process.close()

    def accepted(self, frame: Frame) -> None:
        """Tell the source that this frame's part is written down for good; any thread may call it."""
        if frame.key is not None:
            with self._mutex:
                self._process.accepted(frame.key)

    def frames(self) -> Iterator[Frame]:
        """Frames until the source ends or `stop`; between failures as many attempts as it takes."""
        while not self._stop.is_set():
            try:
                frame = self._process.next_frame()
            except CaptureError as error:
                if isinstance(error, SourceError) and not self._sequence:
                    raise
                if not self._recover(error):
                    return
                continue
            if frame is None:
                return
            yield self._counted(frame)
            stuck = self._judge(frame)
            if stuck is not None and not self._recover(stuck):
                return

    def _counted(self, frame: Frame) -> Frame:
        """The frame under the number that it has over all openings of a live camera."""
        if not self._is_live:
            self._sequence = frame.sequence
            if frame.key is not None:
                self._keys.append(frame.key)
            return frame
        self._sequence += 1
        return replace(frame, sequence=self._sequence)

    def _judge(self, frame: Frame) -> CaptureError | None:
        """Follow the faults of a live camera; what its opening again may cure is returned as a failure."""
        if frame.fault is None or not self._is_live:
            self._faulty, self._failed_as = 0, None
            self._good += 1
            if self._alarm is not None:
                self._say(CameraTrouble(self._alarm, f"frames of {frame.source} are good again", True))
                self._alarm = None
            if self._good >= self._config.good_frames:
                self._attempt = 0
            return None
        self._faulty = self._faulty + 1 if frame.fault.name == self._failed_as else 1
        self._failed_as = frame.fault.name
        if self._faulty < self._config.faulty_frames:
            return None
        if frame.fault.name in STUCK:
            self._faulty = 0
            return _StuckFrames(f"camera_{frame.fault.name}", frame.fault.why)
        if self._faulty == self._config.faulty_frames:
            self._alarm = f"camera_{frame.fault.name}"
            self._say(CameraTrouble(self._alarm, frame.fault.why))
        return None

    def _recover(self, error: CaptureError) -> bool:
        """One attempt after its wait; False when `stop` came first."""
        self._attempt += 1
        self._good = 0
        is_deaf = isinstance(error, (CameraStopped, CaptureDied))
        step = "restart" if is_deaf else LADDER[min(self._attempt, len(LADDER)) - 1]
        self._alarm = _alarm_of(error)
        self._say(CameraTrouble(self._alarm, str(error), False, step, self._attempt))
        if self._pause(self._delay_s()) or self._stop.is_set():
            return False
        resume = self._resume_now()
        if step != "restart":
            self._process.reopen(resume, reset=step == "reset")
            return True
        with self._mutex:
            if self._stop.is_set():  # closed meanwhile: nobody would end a new child
                return False
            self._process.close()
            self._process = self._open_process(resume, self._attempt > 1)
        return True

    def _delay_s(self) -> float:
        """Doubling from the least to the most, and half of it by chance: stations must not knock in step."""
        least, most = self._config.retry_least_s, self._config.retry_most_s
        return float(min(most, least * 2.0 ** min(self._attempt - 1, 30)) * (0.5 + 0.5 * self._random()))

    def _resume_now(self) -> Resume:
        """What to leave out: all that was accepted, and all that was given since the start."""
        known = self._resume()
        if self._resumed_by == "sequence":
            return Resume(after=max(known.after, self._sequence))
        if self._resumed_by == "key":
            return Resume(keys=known.keys | frozenset(self._keys))
        return Resume()

    def _say(self, trouble: CameraTrouble) -> None:
        log.log(logging.INFO if trouble.is_over else logging.WARNING, "%s: %s", trouble.alarm, trouble.why)
        self._tell(trouble)


def steady_camera(
    config: ServiceConfig,
    *,
    resume: Callable[[], Resume],
    tell: Callable[[CameraTrouble], None],
    random: Callable[[], float],
) -> SteadyCamera:
    """The camera of a service: its source in a child process, checked and recovered as the tables say."""
    camera = config.camera
    text = SourceText.of(camera.source)

    def open_process(left_out: Resume, reset: bool) -> ProcessCamera:
        return ProcessCamera(
            camera.source,
            camera_from_source,
            slots=camera.slots,
            timeout_s=None if text.may_be_silent else camera.timeout_s,
            resume=left_out,
            newest=text.is_live,
            reset=reset,
            truth=config.truth,
        )

    return SteadyCamera(
        camera.source, open_process, config.recovery, resume=resume, tell=tell, random=random
    )


class _StuckFrames(CaptureError):
    """The camera gives frames that are not of now; `alarm` names how."""

    def __init__(self, alarm: str, why: str) -> None:
        super().__init__(why)
        self.alarm = alarm


def _alarm_of(error: CaptureError) -> str:
    if isinstance(error, _StuckFrames):
        return error.alarm
    if isinstance(error, CameraStopped):
        return "camera_stopped"
    return "camera_died" if isinstance(error, CaptureDied) else "camera_failed"
