"""V4L2 cameras: `v4l2:/dev/v4l/by-path/...?format=YUYV&width=1280&height=720&fps=30&exposure_us=2000&gain=8`.

Straight through the kernel, not through OpenCV: its read() answers True after a timeout and knows no
sequence, no time of capture and no damaged buffer. What is locked is read back, and a camera that took
another value is refused: a verdict stands on the light that the recipe was made in.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import select
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ...errors import CaptureError, PictureError
from ..frame import Clock, Frame, Picture, picture_from_bytes
from ..sources import Resume, SourceText
from . import v4l2_abi as abi
from .stamp import PARAMETERS, Stamp

Ioctl = Callable[[int, int, bytearray], object]
FORMATS = ("YUYV", "UYVY", "GREY", "BGR3", "RGB3", "MJPG")
LOCKS = ("exposure_us", "gain", "white_balance_k", "focus")
BUFFERS = 4
_PARAMETERS = ("format", "width", "height", "fps", "silence_s", *LOCKS, *PARAMETERS)
_BYTES_A_PIXEL = {"YUYV": 2, "UYVY": 2, "GREY": 1, "BGR3": 3, "RGB3": 3}
_TO_BGR = {"YUYV": cv2.COLOR_YUV2BGR_YUYV, "UYVY": cv2.COLOR_YUV2BGR_UYVY, "RGB3": cv2.COLOR_RGB2BGR}
# What must be switched off before a value can be locked; a camera may lack the switch.
_AUTOMATIC = {
    "exposure_us": (("exposure_auto", 1), ("exposure_priority", 0)),
    "gain": (("autogain", 0),),
    "white_balance_k": (("white_balance_auto", 0),),
    "focus": (("focus_auto", 0),),
}


class V4l2Camera:
    """A camera of the kernel, single-plane; the newest of four buffers, with the driver's time of capture.

    CaptureError when the device is missing, busy or refuses what the source asks for, and when it gives
    nothing for `silence_s`. A buffer that the driver calls damaged is a frame with the fault `picture`.
    """

    def __init__(
        self,
        text: SourceText,
        clock: Clock,
        sleep: Callable[[float], None],
        resume: Resume,
        ioctl: Ioctl | None = None,
    ) -> None:
        text.allow(_PARAMETERS)
        self._code = text.options.get("format", "YUYV")
        if self._code not in FORMATS:
            raise text.refused("format", f"one of {', '.join(FORMATS)}")
        self._text, self._clock, self._stamp = text, clock, Stamp(text, clock)
        self._silence_s = text.number("silence_s", 5.0)
        self._ioctl = ioctl or _kernel()
        self._maps: list[mmap.mmap] = []
        self._is_streaming = False
        self._file = self._opened()
        try:
            self._format = self._negotiate()
            self._fps = self._rate()
            for name in LOCKS:
                if name in text.options:
                    self._lock(name, text.number(name, 0.0, zero=True))
            self._start()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> V4l2Camera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the stream and free the device; twice is fine."""
        file, self._file = self._file, -1
        if file < 0:
            return
        if self._is_streaming:
            with contextlib.suppress(OSError):
                self._ioctl(file, abi.STREAMOFF, bytearray(abi.NUMBER.pack(abi.CAPTURE)))
        for memory in self._maps:
            memory.close()
        os.close(file)

    def frames(self) -> Iterator[Frame]:
        """Pictures as the driver gives them, each once."""
        heard_ns = self._clock.monotonic_ns()
        while self._file >= 0:
            state = self._taken()
            now_ns = self._clock.monotonic_ns()
            if state is None:
                if now_ns - heard_ns > self._silence_s * 1e9:
                    raise CaptureError(
                        f"camera {self._text.text} gave no picture for {self._silence_s:g} s; check its cable"
                    )
                continue
            heard_ns = now_ns
            frame = self._frame(state)
            self._call(abi.QBUF, abi.buffer_request(state.index), "take a buffer back")
            yield frame

    def _frame(self, state: abi.BufferState) -> Frame:
        taken_ns = state.taken_ns if state.is_monotonic else None
        if state.is_broken:
            return self._stamp.broken(f"the driver calls picture {state.sequence} damaged")
        data = self._maps[state.index][: state.used_bytes or self._format.picture_bytes]
        try:
            return self._stamp.frame(picture_of(data, self._format), taken_ns=taken_ns)
        except PictureError as error:
            return self._stamp.broken(f"picture {state.sequence} of the camera is damaged: {error}")

    def _taken(self) -> abi.BufferState | None:
        """The next filled buffer; None when there was none for a moment."""
        if not select.select([self._file], [], [], min(self._silence_s, 0.5))[0]:
            return None
        request = abi.buffer_request(0)
        try:
            self._ioctl(self._file, abi.DQBUF, request)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._refusal("give a picture", error) from None
        return abi.buffer_from(request)

    def _opened(self) -> int:
        path = self._text.path
        try:
            return os.open(path, os.O_RDWR | getattr(os, "O_NONBLOCK", 0))
        except OSError as error:
            found = ", ".join(str(each) for each in sorted(Path("/dev").glob("video*"))) or "no /dev/video*"
            why = error.strerror or str(error)
            raise CaptureError(
                f"camera.source is {self._text.text!r}: {path} cannot be opened ({why}); found {found}"
            ) from None

    def _negotiate(self) -> abi.PixelFormat:
        """Check what the node is and set size and format; both must be granted as asked."""
        data = bytearray(abi.CAPABILITY.size)
        self._call(abi.QUERYCAP, data, "say what it is")
        _, card, capabilities = abi.capability_from(data)
        if not (capabilities & abi.CAN_CAPTURE and capabilities & abi.CAN_STREAM):
            raise CaptureError(
                f"{self._text.path} ({card}) is no camera that streams; take the camera's other node"
            )
        width, height = self._text.whole("width", 1, 0), self._text.whole("height", 1, 0)
        request = abi.format_request(width, height, self._code)
        self._call(abi.S_FMT, request, "set a format")
        granted = abi.format_from(request)
        wanted = width or granted.width, height or granted.height, self._code
        if (granted.width, granted.height, granted.code) != wanted:
            raise CaptureError(
                f"{self._text.path} ({card}) gives {granted.width} x {granted.height} {granted.code} where "
                f"{wanted[0]} x {wanted[1]} {wanted[2]} was asked for; "
                f"its formats are {', '.join(self._formats())}"
            )
        return granted

    def _formats(self) -> list[str]:
        codes = []
        with contextlib.suppress(OSError):
            for index in range(64):
                data = bytearray(abi.FORMAT_ENTRY.pack(index, abi.CAPTURE, 0, b"", 0, 0))
                self._ioctl(self._file, abi.ENUM_FMT, data)
                codes.append(abi.code_of(abi.FORMAT_ENTRY.unpack(data)[4]))
        return codes or ["not told"]

    def _rate(self) -> float | None:
        fps = self._text.number("fps", None)
        if fps is None:
            return None
        request = abi.stream_request(fps)
        self._call(abi.S_PARM, request, "set a frame rate")
        granted = abi.fps_from(request)
        if abs(granted - fps) > 0.01 * fps:
            raise CaptureError(
                f"{self._text.path} gives {granted:g} frames a second where {fps:g} were asked for"
            )
        return granted

    def _lock(self, name: str, value: float) -> None:
        """Switch the automatic off, set the value, and read it back."""
        for switch, off in _AUTOMATIC[name]:
            with contextlib.suppress(OSError):  # a camera without the automatic has no switch for it
                self._ioctl(self._file, abi.S_CTRL, bytearray(abi.CONTROL.pack(abi.CONTROLS[switch], off)))
        control = abi.CONTROLS["exposure" if name == "exposure_us" else name]
        unit = abi.EXPOSURE_STEP_US if name == "exposure_us" else 1.0
        wanted = round(value / unit)
        try:
            self._ioctl(self._file, abi.S_CTRL, bytearray(abi.CONTROL.pack(control, wanted)))
            data = bytearray(abi.CONTROL.pack(control, 0))
            self._ioctl(self._file, abi.G_CTRL, data)
            _, found = abi.CONTROL.unpack(data)
        except OSError as error:
            raise CaptureError(
                f"{self._text.path} cannot lock {name} at {value:g} ({error.strerror}); "
                f"{self._range(control, unit)}"
            ) from None
        if found != wanted:
            raise CaptureError(
                f"{self._text.path} took {name} {found * unit:g} where {value:g} was asked for; "
                f"{self._range(control, unit)}"
            )

    def _range(self, control: int, unit: float) -> str:
        data = bytearray(abi.QUERY.pack(control, 0, b"", 0, 0, 0, 0, 0))
        try:
            self._ioctl(self._file, abi.QUERYCTRL, data)
        except OSError:
            return "it has no such control"
        found = abi.range_from(data)
        return f"it takes {found.least * unit:g} to {found.most * unit:g} in steps of {found.step * unit:g}"

    def _start(self) -> None:
        """Map the buffers, queue them all, and switch the stream on."""
        request = bytearray(abi.REQUEST.pack(BUFFERS, abi.CAPTURE, abi.MMAP, 0, 0))
        self._call(abi.REQBUFS, request, "make buffers")
        count = abi.REQUEST.unpack(request)[0]
        for index in range(count):
            data = abi.buffer_request(index)
            self._call(abi.QUERYBUF, data, "show a buffer")
            state = abi.buffer_from(data)
            self._maps.append(mmap.mmap(self._file, state.length, offset=state.offset))
            self._call(abi.QBUF, abi.buffer_request(index), "take a buffer")
        self._call(abi.STREAMON, bytearray(abi.NUMBER.pack(abi.CAPTURE)), "start")
        self._is_streaming = True

    def _call(self, request: int, data: bytearray, what: str) -> None:
        try:
            self._ioctl(self._file, request, data)
        except OSError as error:
            raise self._refusal(what, error) from None

    def _refusal(self, what: str, error: OSError) -> CaptureError:
        advice = {errno.EBUSY: "another program holds it", errno.ENODEV: "it was unplugged"}
        return CaptureError(
            f"{self._text.path} does not {what}: {error.strerror}; "
            f"{advice.get(error.errno or 0, 'check the device and the source parameters')}"
        )


def picture_of(data: bytes, layout: abi.PixelFormat) -> Picture:
    """The picture in a buffer, [H, W] for GREY, else [H, W, 3] BGR; PictureError when it is cut."""
    if layout.code == "MJPG":
        return picture_from_bytes(data, "a JPEG of the camera")
    width, height, size = layout.width, layout.height, _BYTES_A_PIXEL[layout.code]
    rows = layout.row_bytes or width * size
    if len(data) < rows * (height - 1) + width * size:
        raise PictureError(f"{len(data)} bytes for {width} x {height} pixels of {layout.code}")
    flat = np.frombuffer(data, np.uint8)
    lines = np.lib.stride_tricks.as_strided(flat, (height, width * size), (rows, 1))
    pixels = np.ascontiguousarray(lines).reshape(height, width, size)
    if layout.code == "GREY":
        return pixels[:, :, 0]
    return (
        pixels if layout.code == "BGR3" else np.asarray(cv2.cvtColor(pixels, _TO_BGR[layout.code]), np.uint8)
    )


def _kernel() -> Ioctl:
    try:
        import fcntl
    except ImportError:
        raise CaptureError("V4L2 cameras are read on Linux only; choose another camera.source") from None
    return fcntl.ioctl
