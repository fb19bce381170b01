"""A camera in a child process: a thread that hangs in a driver cannot be killed, a process can.

Pictures cross in shared memory, a slot each, as many as may wait; everything else about a frame crosses in a
pipe. A source that can wait (files, scenes) does so when every slot is taken. A live camera cannot: it goes
on, and the first frame after the question is the answer, so no old picture waits anywhere. Known truth stays
in the child: the inspecting side cannot see it even by accident.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import secrets
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType

import numpy as np

from ..config import TruthConfig
from ..errors import CaptureError
from .child import Accepted, CameraBuilder, Crossing, Failure, Plan, Reopen, capture, memory_name
from .frame import Frame
from .sources import Resume, SourceError

MEMORY_PREFIX = "ors_"


class CameraStopped(CaptureError):
    """No frame came in time; whether the child hangs or the device is silent cannot be told from here."""


class CaptureDied(CaptureError):
    """The child process ended by itself: a driver crashed, or somebody killed it."""


class ProcessCamera:
    """A `Camera` whose frames come from `build(source, resume=...)` in a child process; a context manager.

    `build` must be importable by name (a module's function). With `newest` the source is live: it never
    waits, and the next frame is the first one after the question. `reset`: the device is reset first.
    `truth`: the checks that frames pass, None for none. CaptureError when the child reports an error; it
    stays and can `reopen`. CaptureDied and CameraStopped (nothing within `timeout_s`; None waits for ever)
    leave only `close`.
    """

    def __init__(
        self,
        source: str,
        build: CameraBuilder,
        *,
        slots: int = 3,
        timeout_s: float | None = 30.0,
        resume: Resume | None = None,
        newest: bool = False,
        reset: bool = False,
        truth: TruthConfig | None = None,
    ) -> None:
        self._source, self._timeout_s, self._newest = source, timeout_s, newest
        slots = 1 if newest else slots
        self._prefix = f"{MEMORY_PREFIX}{secrets.token_hex(5)}"
        self._memories: dict[int, SharedMemory] = {}
        self._generations = dict.fromkeys(range(slots), -1)
        self._has_asked = False
        self._stop_reader, self._stop_writer = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")  # fork would copy engine threads and their locks
        self._frames, theirs = context.Pipe(duplex=False)
        order_reader, self._orders = context.Pipe(duplex=False)
        plan = Plan(source, build, self._prefix, resume or Resume(), newest, reset, truth)
        self._child = context.Process(
            target=capture, args=(plan, theirs, order_reader), name="capture", daemon=True
        )
        self._child.start()
        theirs.close()
        order_reader.close()
        if not newest:
            for slot in range(slots):
                self._order(slot)

    def __enter__(self) -> ProcessCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id."""
        return self._child.pid

    def stop(self) -> None:
        """End `frames` at its next step; any thread may call it."""
        with contextlib.suppress(OSError):  # closed: it has ended already
            self._stop_writer.send(None)

    def frames(self) -> Iterator[Frame]:
        """Frames in the child's order, until the source ends or `stop` is called."""
        while (frame := self.next_frame()) is not None:
            yield frame

    def next_frame(self) -> Frame | None:
        """The next frame; None when the source has ended or `stop` was called."""
        if self._newest and not self._has_asked:
            self._order(0)
            self._has_asked = True
        ready = wait([self._frames, self._stop_reader], self._timeout_s)
        if self._stop_reader in ready:
            return None
        if not ready:
            raise CameraStopped(f"camera {self._source} gave no frame in {self._timeout_s:g} s; check it")
        try:
            message = self._frames.recv()
        except (EOFError, OSError):
            self._child.join(1.0)
            raise CaptureDied(
                f"the capture process of {self._source} died (exit code {self._child.exitcode})"
            ) from None
        if isinstance(message, Failure):
            raise SourceError(message.why) if message.is_final else CaptureError(message.why)
        return None if message is None else self._frame_from(message)

    def reopen(self, resume: Resume, *, reset: bool = False) -> None:
        """Have the child open the camera again, after an error or in the middle of its frames."""
        self._order(Reopen(resume, reset))

    def accepted(self, key: str) -> None:
        """Tell the camera that the part with this key is written down: a watched folder moves its file."""
        self._order(Accepted(key))

    def close(self) -> None:
        """Kill the child and free the slots; twice is fine."""
        self._child.kill()
        self._child.join(5.0)
        with contextlib.suppress(EOFError, OSError):
            while self._frames.poll():  # frames nobody asked for have memory too
                message = self._frames.recv()
                if isinstance(message, Crossing):
                    self._memory(message)
        for slot, generation in self._generations.items():
            # killed after making a memory and before sending it: that one is at most one generation ahead
            with contextlib.suppress(FileNotFoundError, ValueError):
                _free(SharedMemory(memory_name(self._prefix, slot, generation + 1)))
        for memory in self._memories.values():
            _free(memory)
        self._memories.clear()
        self._generations.clear()
        for end in (self._frames, self._orders, self._stop_reader, self._stop_writer):
            end.close()

    def _order(self, order: int | Reopen | Accepted) -> None:
        with contextlib.suppress(OSError):  # the child may have died meanwhile: `next_frame` says so
            self._orders.send(order)

    def _frame_from(self, crossing: Crossing) -> Frame:
        """Copy the pictures out, give the slot back, and put the frame together again."""
        memory = self._memory(crossing)
        image = np.ndarray(crossing.image_shape, np.uint8, memory.buf).copy()
        template = None
        if crossing.template_shape is not None:
            template = np.ndarray(crossing.template_shape, np.uint8, memory.buf, image.nbytes).copy()
        self._has_asked = False
        if not self._newest:
            self._order(crossing.slot)
        return Frame(image=image, template=template, truth=None, **crossing.facts)

    def _memory(self, crossing: Crossing) -> SharedMemory:
        """The slot's memory; a smaller one that the child has replaced is freed."""
        if self._generations[crossing.slot] != crossing.generation:
            if crossing.slot in self._memories:
                _free(self._memories.pop(crossing.slot))
            name = memory_name(self._prefix, crossing.slot, crossing.generation)
            self._memories[crossing.slot] = SharedMemory(name)
            self._generations[crossing.slot] = crossing.generation
        return self._memories[crossing.slot]


def _free(memory: SharedMemory) -> None:
    memory.close()
    memory.unlink()
