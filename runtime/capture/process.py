"""A camera in a child process: a thread that hangs in a driver cannot be killed, a process can.

Pictures cross in shared memory, a slot each, as many as may wait; everything else about a frame crosses in a
pipe. The child waits when every slot is taken. Known truth stays in the child: the inspecting side cannot see
it even by accident.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.shared_memory import SharedMemory
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import CaptureError, OrinspectError
from .frame import Camera, Frame

Pixels = npt.NDArray[np.uint8]
CameraBuilder = Callable[[str], Camera]
MEMORY_PREFIX = "ors_"


@dataclass(frozen=True)
class _Crossing:
    """A frame on its way through the pipe; its pictures lie in the memory of its slot, part first."""

    slot: int
    generation: int  # counts how often the slot's memory was replaced by a larger one
    image_shape: tuple[int, ...]
    template_shape: tuple[int, ...] | None
    facts: dict[str, Any]  # the frame's other fields


class ProcessCamera:
    """A `Camera` whose frames come from `build(source)` running in a child process; a context manager.

    `build` must be importable by name (a module's function). CaptureError when the child reports an error,
    dies, or gives no frame within `timeout_s`.
    """

    def __init__(self, source: str, build: CameraBuilder, *, slots: int = 3, timeout_s: float = 30.0) -> None:
        self._source, self._timeout_s = source, timeout_s
        self._prefix = f"{MEMORY_PREFIX}{secrets.token_hex(5)}"
        self._memories: dict[int, SharedMemory] = {}
        self._generations = dict.fromkeys(range(slots), -1)
        self._stop_reader, self._stop_writer = multiprocessing.Pipe(duplex=False)
        context = multiprocessing.get_context("spawn")  # fork would copy engine threads and their locks
        self._frames, theirs = context.Pipe(duplex=False)
        free_reader, self._free = context.Pipe(duplex=False)
        self._child = context.Process(
            target=_capture,
            args=(source, build, self._prefix, theirs, free_reader),
            name="capture",
            daemon=True,
        )
        self._child.start()
        theirs.close()
        free_reader.close()
        for slot in range(slots):
            self._free.send(slot)

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
        while True:
            ready = wait([self._frames, self._stop_reader], self._timeout_s)
            if self._stop_reader in ready:
                return
            if not ready:
                raise CaptureError(f"camera {self._source} gave no frame in {self._timeout_s:g} s; check it")
            try:
                message = self._frames.recv()
            except (EOFError, OSError):
                self._child.join(1.0)
                raise CaptureError(
                    f"the capture process of {self._source} died (exit code {self._child.exitcode})"
                ) from None
            if message is None:
                return
            if isinstance(message, str):
                raise CaptureError(message)
            yield self._frame_from(message)

    def close(self) -> None:
        """Kill the child and free the slots; twice is fine."""
        self._child.kill()
        self._child.join(5.0)
        with contextlib.suppress(EOFError, OSError):
            while self._frames.poll():  # frames nobody asked for have memory too
                message = self._frames.recv()
                if isinstance(message, _Crossing):
                    self._memory(message)
        for slot, generation in self._generations.items():
            # killed after making a memory and before sending it: that one is at most one generation ahead
            with contextlib.suppress(FileNotFoundError, ValueError):
                _free(SharedMemory(_memory_name(self._prefix, slot, generation + 1)))
        for memory in self._memories.values():
            _free(memory)
        self._memories.clear()
        self._generations.clear()
        for end in (self._frames, self._free, self._stop_reader, self._stop_writer):
            end.close()

    def _frame_from(self, crossing: _Crossing) -> Frame:
        """Copy the pictures out, give the slot back, and put the frame together again."""
        memory = self._memory(crossing)
        image = np.ndarray(crossing.image_shape, np.uint8, memory.buf).copy()
        template = None
        if crossing.template_shape is not None:
            template = np.ndarray(crossing.template_shape, np.uint8, memory.buf, image.nbytes).copy()
        with contextlib.suppress(OSError):  # the child may have died meanwhile: `frames` says so next time
            self._free.send(crossing.slot)
        return Frame(image=image, template=template, truth=None, **crossing.facts)

    def _memory(self, crossing: _Crossing) -> SharedMemory:
        """The slot's memory; a smaller one that the child has replaced is freed."""
        if self._generations[crossing.slot] != crossing.generation:
            if crossing.slot in self._memories:
                _free(self._memories.pop(crossing.slot))
            name = _memory_name(self._prefix, crossing.slot, crossing.generation)
            self._memories[crossing.slot] = SharedMemory(name)
            self._generations[crossing.slot] = crossing.generation
        return self._memories[crossing.slot]


def _memory_name(prefix: str, slot: int, generation: int) -> str:
    """Known to both sides, so that the parent can free what a killed child could not tell it about."""
    return f"{prefix}_{slot}_{generation}"


def _free(memory: SharedMemory) -> None:
    memory.close()
    memory.unlink()


def _capture(source: str, build: CameraBuilder, prefix: str, frames: Connection, free: Connection) -> None:
    """The child: frames into slots until the source ends (None) or fails (its sentence)."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they reach the whole group; the parent decides for us
        signal.signal(number, signal.SIG_IGN)
    _die_with_the_parent()
    memories: dict[int, tuple[int, SharedMemory]] = {}
    try:
        with contextlib.closing(build(source)) as camera:
            for frame in camera.frames():
                frames.send(_written(free.recv(), frame, prefix, memories))
        frames.send(None)
        while True:  # the pictures live as long as this process: the parent ends it
            free.recv()
    except (EOFError, BrokenPipeError):
        pass  # the parent is gone or done
    except Exception as error:  # whatever a driver throws becomes one sentence for the parent
        frames.send(str(error) if isinstance(error, OrinspectError) else f"camera {source} failed: {error!r}")


def _written(
    slot: int, frame: Frame, prefix: str, memories: dict[int, tuple[int, SharedMemory]]
) -> _Crossing:
    """Copy the pictures into the slot's memory, making it larger when needed."""
    pictures = [frame.image] if frame.template is None else [frame.image, frame.template]
    size = sum(picture.nbytes for picture in pictures)
    generation, memory = memories.get(slot, (-1, None))
    if memory is None or memory.size < size:
        if memory is not None:
            memory.close()  # the parent, which holds it too, unlinks it
        generation += 1
        memory = SharedMemory(_memory_name(prefix, slot, generation), create=True, size=size)
        memories[slot] = generation, memory
    start = 0
    for picture in pictures:
        np.ndarray(picture.shape, np.uint8, memory.buf, start)[...] = picture
        start += picture.nbytes
    pixels = ("image", "template", "truth")
    return _Crossing(
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
