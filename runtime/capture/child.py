"""The child's side of `ProcessCamera`: open the camera, check its frames, put them into slots.

What goes wrong in a driver stays here: an error becomes one message, and the parent says whether to open the
camera again, to reset its device before that, or, by killing this process, to start over. A thread of its own
reads the parent's orders, so that they arrive while the camera waits for its next picture.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from typing import Any, Protocol

import numpy as np

from ..config import TruthConfig
from ..errors import OrinspectError
from .frame import Camera, Frame, reset_device
from .sources import Resume, SourceError
from .truth import TruthCheck


class CameraBuilder(Protocol):
    """What opens the camera of a source text; importable by name, so that the child finds it."""

    def __call__(self, source: str, *, resume: Resume) -> Camera:
        """The camera, less what `resume` leaves out."""
        ...


@dataclass(frozen=True)
class Crossing:
    """A frame on its way through the pipe; its pictures lie in the memory of its slot, part first."""

    slot: int
    generation: int  # counts how often the slot's memory was replaced by a larger one
    image_shape: tuple[int, ...]
    template_shape: tuple[int, ...] | None
    facts: dict[str, Any]  # the frame's other fields


@dataclass(frozen=True)
class Failure:
    """The camera gave up; `is_final`: the source text itself is wrong, and opening it again is no use."""

    why: str
    is_final: bool


@dataclass(frozen=True)
class Reopen:
    """The order to open the camera again, its device reset before that or not."""

    resume: Resume
    reset: bool = False


@dataclass(frozen=True)
class Accepted:
    """The word that the part with this key is written down for good."""

    key: str


@dataclass(frozen=True)
class Plan:
    """What the child is told at its start; `newest`: frames that nobody asked for are let go; `reset`: the
    device is reset before it is opened."""

    source: str
    build: CameraBuilder
    prefix: str
    resume: Resume
    newest: bool
    reset: bool
    truth: TruthConfig | None


def memory_name(prefix: str, slot: int, generation: int) -> str:
    """Known to both sides, so that the parent can free what a killed child could not tell it about."""
    return f"{prefix}_{slot}_{generation}"


def capture(plan: Plan, frames: Connection, orders: Connection) -> None:
    """The child's main function: frames into slots until the source ends (None), and again when told."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the parent decides for us
        signal.signal(number, signal.SIG_IGN)
    _die_with_the_parent()
    inbox = _Orders(orders)
    memories: dict[int, tuple[int, SharedMemory]] = {}
    order = Reopen(plan.resume, plan.reset)
    with contextlib.suppress(EOFError, BrokenPipeError):  # the parent is gone or done
        while True:
            try:
                if order.reset:
                    reset_device(plan.source)
                _capture_once(plan, order.resume, frames, inbox, memories)
                frames.send(None)
            except _ReopenOrdered:
                pass
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:  # whatever a driver throws becomes one sentence for the parent
                is_ours = isinstance(error, OrinspectError)
                why = str(error) if is_ours else f"camera {plan.source} failed: {error!r}"
                frames.send(Failure(why, isinstance(error, SourceError)))
            # The pictures live as long as this process: it waits, and the parent ends it.
            order = inbox.wait_for_reopen()


def _capture_once(
    plan: Plan,
    resume: Resume,
    frames: Connection,
    inbox: _Orders,
    memories: dict[int, tuple[int, SharedMemory]],
) -> None:
    check = None if plan.truth is None else TruthCheck(plan.truth, plan.newest, time.monotonic_ns)
    with contextlib.closing(plan.build(plan.source, resume=resume)) as camera:
        inbox.follow(camera)
        try:
            for frame in camera.frames():
                slot = inbox.slot(waits=not plan.newest)
                if slot is not None:
                    checked = frame if check is None else check.checked(frame)
                    frames.send(_written(slot, checked, plan.prefix, memories))
        finally:
            inbox.follow(None)


class _ReopenOrdered(Exception):
    """The parent wants the camera opened again while it still gives frames."""


class _Orders:
    """What the parent has said, read by a thread; EOFError from every method once the parent is gone."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._changed = threading.Condition()
        self._slots: deque[int] = deque()
        self._reopen: Reopen | None = None
        self._camera: Camera | None = None
        self._is_over = False
        threading.Thread(target=self._read, name="orders", daemon=True).start()

    def follow(self, camera: Camera | None) -> None:
        """The camera that is told which parts were accepted."""
        with self._changed:
            self._camera = camera

    def slot(self, *, waits: bool) -> int | None:
        """A free slot; None when there is none and it does not wait. _ReopenOrdered when that was ordered."""
        with self._changed:
            if waits:
                self._changed.wait_for(lambda: self._slots or self._reopen or self._is_over)
            self._raise_if_over()
            if self._reopen:
                raise _ReopenOrdered
            return self._slots.popleft() if self._slots else None

    def wait_for_reopen(self) -> Reopen:
        """The next order to open the camera again."""
        with self._changed:
            self._changed.wait_for(lambda: self._reopen or self._is_over)
            self._raise_if_over()
            assert self._reopen is not None
            order, self._reopen = self._reopen, None
            return order

    def _raise_if_over(self) -> None:
        if self._is_over:
            raise EOFError

    def _read(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                order = self._pipe.recv()
                with self._changed:
                    if isinstance(order, Accepted):
                        tell = getattr(self._camera, "accepted", None)  # cameras that keep no files lack it
                        if tell is not None:
                            tell(order.key)
                    elif isinstance(order, Reopen):
                        self._reopen = order
                    else:
                        self._slots.append(order)
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()


def _written(slot: int, frame: Frame, prefix: str, memories: dict[int, tuple[int, SharedMemory]]) -> Crossing:
    """Copy the pictures into the slot's memory, making it larger when needed."""
    pictures = [frame.image] if frame.template is None else [frame.image, frame.template]
    size = sum(picture.nbytes for picture in pictures)
    generation, memory = memories.get(slot, (-1, None))
    if memory is None or memory.size < size:
        if memory is not None:
            memory.close()  # the parent, which holds it too, unlinks it
        generation += 1
        memory = SharedMemory(memory_name(prefix, slot, generation), create=True, size=size)
        memories[slot] = generation, memory
    start = 0
    for picture in pictures:
        np.ndarray(picture.shape, np.uint8, memory.buf, start)[...] = picture
        start += picture.nbytes
    pixels = ("image", "template", "truth")
    return Crossing(
        slot=slot,
        generation=generation,
        image_shape=frame.image.shape,
        template_shape=None if frame.template is None else frame.template.shape,
        facts={f.name: getattr(frame, f.name) for f in dataclasses.fields(frame) if f.name not in pixels},
    )


def _die_with_the_parent() -> None:
    """End this process when its parent does, even while the main thread hangs in a driver."""
    parent: Any = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
