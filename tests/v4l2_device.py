"""A V4L2 device as far as a camera sees it: a file for its memory, and the answers to its requests."""

from __future__ import annotations

import errno
import os
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt

from orinspect.runtime.capture.devices import v4l2_abi as abi

PAGE = 4096


class Device:
    """Answers ioctl like a driver. `shots`: pictures still to come, each with flags and a time; what the
    camera may set stands in `controls` as name -> [value, least, most, step]."""

    def __init__(self, path: Path, width: int, height: int, code: str, row_bytes: int) -> None:
        self.path, self.code = path, code
        self.size = width, height
        self.row_bytes, self.picture_bytes = row_bytes, row_bytes * height
        self.room = -(-max(self.picture_bytes, 1) // PAGE) * PAGE
        path.write_bytes(bytes(4 * self.room))
        self.controls: dict[int, list[int]] = {}
        self.capabilities = abi.CAN_CAPTURE | abi.CAN_STREAM
        self.shots: deque[tuple[bytes, int, int]] = deque()
        self.queued: deque[int] = deque()
        self.is_streaming = False
        self.sequence = 0
        self.granted_fps: float | None = None

    def add_control(self, name: str, value: int, least: int, most: int, step: int = 1) -> None:
        self.controls[abi.CONTROLS[name]] = [value, least, most, step]

    def shoot(self, data: bytes, taken_ns: int, flags: int = abi.TIMESTAMP_MONOTONIC) -> None:
        self.shots.append((data, taken_ns, flags))

    def ioctl(self, file: int, request: int, data: bytearray) -> int:
        """The kernel's answer, written into `data`."""
        answer = {
            abi.QUERYCAP: self._capability,
            abi.S_FMT: self._format,
            abi.ENUM_FMT: self._entry,
            abi.S_PARM: self._rate,
            abi.REQBUFS: self._request,
            abi.QUERYBUF: self._query,
            abi.QBUF: self._queue,
            abi.DQBUF: self._take,
            abi.STREAMON: self._start,
            abi.STREAMOFF: self._stop,
            abi.S_CTRL: self._set,
            abi.G_CTRL: self._get,
            abi.QUERYCTRL: self._range,
        }[request](bytes(data))
        if answer is not None:
            assert len(answer) == len(data)
            data[:] = answer
        return 0

    def _capability(self, _: bytes) -> bytes:
        return abi.CAPABILITY.pack(b"fake", b"Test camera", b"", 0, self.capabilities, 0)

    def _format(self, data: bytes) -> bytes:
        values = list(abi.FORMAT.unpack(data))
        values[1:4] = [*self.size, abi.fourcc(self.code)]
        values[5:7] = [self.row_bytes, self.picture_bytes]
        return abi.FORMAT.pack(*values)

    def _entry(self, data: bytes) -> bytes:
        if abi.FORMAT_ENTRY.unpack(data)[0]:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return abi.FORMAT_ENTRY.pack(0, 1, 0, b"", abi.fourcc(self.code), 0)

    def _rate(self, data: bytes) -> bytes:
        return data if self.granted_fps is None else bytes(abi.stream_request(self.granted_fps))

    def _request(self, data: bytes) -> bytes:
        return data

    def _query(self, data: bytes) -> bytes:
        index = abi.buffer_from(data).index
        values = list(abi.BUFFER.unpack(data))
        values[10], values[11] = index * self.room, self.room
        return abi.BUFFER.pack(*values)

    def _queue(self, data: bytes) -> None:
        self.queued.append(abi.buffer_from(data).index)

    def _take(self, data: bytes) -> bytes:
        assert self.is_streaming
        if not self.shots or not self.queued:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        picture, taken_ns, flags = self.shots.popleft()
        index = self.queued.popleft()
        with self.path.open("r+b") as memory:
            memory.seek(index * self.room)
            memory.write(picture)
        self.sequence += 1
        seconds, rest = divmod(taken_ns, 10**9)
        return abi.BUFFER.pack(
            index,
            1,
            len(picture),
            flags,
            1,
            seconds,
            rest // 1000,
            b"",
            self.sequence,
            1,
            index * self.room,
            self.room,
            0,
            0,
        )

    def _start(self, _: bytes) -> None:
        self.is_streaming = True

    def _stop(self, _: bytes) -> None:
        self.is_streaming = False

    def _control(self, number: int) -> list[int]:
        if number not in self.controls:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return self.controls[number]

    def _set(self, data: bytes) -> None:
        number, value = abi.CONTROL.unpack(data)
        control = self._control(number)
        _, least, most, step = control
        control[0] = min(max(least + (value - least) // step * step, least), most)

    def _get(self, data: bytes) -> bytes:
        number, _ = abi.CONTROL.unpack(data)
        return abi.CONTROL.pack(number, self._control(number)[0])

    def _range(self, data: bytes) -> bytes:
        number = abi.QUERY.unpack(data)[0]
        value, least, most, step = self._control(number)
        return abi.QUERY.pack(number, 1, b"control", least, most, step, value, 0)


def yuyv_of(grey: npt.NDArray[np.uint8], row_bytes: int) -> bytes:
    """A grey picture as YUYV with padded rows: video levels, no colour."""
    height, width = grey.shape
    rows = np.full((height, row_bytes), 7, np.uint8)  # the padding must not be seen
    rows[:, : width * 2 : 2] = grey
    rows[:, 1 : width * 2 : 2] = 128
    return rows.tobytes()
