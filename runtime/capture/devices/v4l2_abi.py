"""The kernel's V4L2 structures and request numbers on a 64-bit machine, from <linux/videodev2.h>.

Packed and parsed here, so that nothing but the standard library talks to a camera. tests compile the header's
own sizes, offsets and numbers and compare them with these.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CAPTURE = 1  # V4L2_BUF_TYPE_VIDEO_CAPTURE
MMAP = 1  # V4L2_MEMORY_MMAP
CAN_CAPTURE, CAN_STREAM, HAS_DEVICE_CAPS = 0x1, 0x04000000, 0x80000000
BUFFER_ERROR = 0x40
TIMESTAMP_MASK, TIMESTAMP_MONOTONIC = 0xE000, 0x2000
FIELD_NONE = 1

CAPABILITY = struct.Struct("=16s32s32sIII12x")  # 104
FORMAT = struct.Struct("=I4xIIIIIIIIIIII152x")  # 208: type, then struct v4l2_pix_format in a union of 200
FORMAT_ENTRY = struct.Struct("=III32sII12x")  # 64
# type, capability, mode, numerator, denominator, extended, buffers
STREAM = struct.Struct("=IIIIIII176x")  # 204
REQUEST = struct.Struct("=IIIIB3x")  # 20
BUFFER = struct.Struct("=IIIII4xqq16sIIQIII4x")  # 88
CONTROL = struct.Struct("=Ii")  # 8
QUERY = struct.Struct("=II32siiiiI8x")  # 68
NUMBER = struct.Struct("=i")


def _request(direction: int, number: int, size: int) -> int:
    """_IOC(direction, 'V', number, size)."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP = _request(2, 0, CAPABILITY.size)
ENUM_FMT = _request(3, 2, FORMAT_ENTRY.size)
S_FMT = _request(3, 5, FORMAT.size)
REQBUFS = _request(3, 8, REQUEST.size)
QUERYBUF = _request(3, 9, BUFFER.size)
QBUF = _request(3, 15, BUFFER.size)
DQBUF = _request(3, 17, BUFFER.size)
STREAMON = _request(1, 18, NUMBER.size)
STREAMOFF = _request(1, 19, NUMBER.size)
S_PARM = _request(3, 22, STREAM.size)
G_CTRL = _request(3, 27, CONTROL.size)
S_CTRL = _request(3, 28, CONTROL.size)
QUERYCTRL = _request(3, 36, QUERY.size)

CONTROLS = {
    "exposure_auto": 0x009A0901,  # V4L2_CID_EXPOSURE_AUTO: 1 manual
    "exposure": 0x009A0902,  # V4L2_CID_EXPOSURE_ABSOLUTE: steps of 100 microseconds
    "exposure_priority": 0x009A0903,  # V4L2_CID_EXPOSURE_AUTO_PRIORITY: 0 keeps the frame rate
    "autogain": 0x00980912,
    "gain": 0x00980913,
    "white_balance_auto": 0x0098090C,
    "white_balance_k": 0x0098091A,  # V4L2_CID_WHITE_BALANCE_TEMPERATURE
    "focus_auto": 0x009A090C,
    "focus": 0x009A090A,
}
EXPOSURE_STEP_US = 100.0


@dataclass(frozen=True)
class PixelFormat:
    """What S_FMT granted: `code` is a FOURCC such as YUYV, `row_bytes` the length of one row in memory."""

    width: int
    height: int
    code: str
    row_bytes: int
    picture_bytes: int


@dataclass(frozen=True)
class BufferState:
    """One capture buffer: times in nanoseconds of the clock that the flags name."""

    index: int
    used_bytes: int
    flags: int
    taken_ns: int
    sequence: int
    offset: int
    length: int

    @property
    def is_broken(self) -> bool:
        """The driver says that the picture may be damaged."""
        return bool(self.flags & BUFFER_ERROR)

    @property
    def is_monotonic(self) -> bool:
        """`taken_ns` is of the monotonic clock."""
        return self.flags & TIMESTAMP_MASK == TIMESTAMP_MONOTONIC


@dataclass(frozen=True)
class ControlRange:
    """What a control takes."""

    name: str
    least: int
    most: int
    step: int


def fourcc(code: str) -> int:
    """The number of a four-letter pixel format."""
    return int.from_bytes(code.ljust(4).encode("ascii"), "little")


def code_of(number: int) -> str:
    """The four letters of a pixel format's number."""
    return number.to_bytes(4, "little").decode("latin-1").strip()


def capability_from(data: bytes | bytearray) -> tuple[str, str, int]:
    """(driver, card, capabilities of this node)."""
    driver, card, _, _, whole, node = CAPABILITY.unpack(data)
    return _text(driver), _text(card), node if whole & HAS_DEVICE_CAPS else whole


def format_request(width: int, height: int, code: str) -> bytearray:
    """The argument of S_FMT; width or height 0 lets the driver choose."""
    return bytearray(FORMAT.pack(CAPTURE, width, height, fourcc(code), FIELD_NONE, *([0] * 8)))


def format_from(data: bytes | bytearray) -> PixelFormat:
    """What S_FMT wrote back."""
    _, width, height, code, _, row_bytes, picture_bytes, *_ = FORMAT.unpack(data)
    return PixelFormat(width, height, code_of(code), row_bytes, picture_bytes)


def stream_request(fps: float) -> bytearray:
    """The argument of S_PARM for a frame rate."""
    return bytearray(STREAM.pack(CAPTURE, 0, 0, 1000, round(fps * 1000), 0, 0))


def fps_from(data: bytes | bytearray) -> float:
    """The frame rate that S_PARM granted; 0 where the driver has none."""
    _, _, _, numerator, denominator, _, _ = STREAM.unpack(data)
    return denominator / numerator if numerator else 0.0


def buffer_request(index: int) -> bytearray:
    """The argument of QUERYBUF, QBUF and DQBUF."""
    return bytearray(BUFFER.pack(index, CAPTURE, 0, 0, 0, 0, 0, b"", 0, MMAP, 0, 0, 0, 0))


def buffer_from(data: bytes | bytearray) -> BufferState:
    """What the kernel wrote about a buffer."""
    index, _, used, flags, _, seconds, micros, _, sequence, _, place, length, _, _ = BUFFER.unpack(data)
    taken_ns = seconds * 10**9 + micros * 1000
    return BufferState(index, used, flags, taken_ns, sequence, place & 0xFFFFFFFF, length)


def range_from(data: bytes | bytearray) -> ControlRange:
    """What QUERYCTRL wrote about a control."""
    _, _, name, least, most, step, _, _ = QUERY.unpack(data)
    return ControlRange(_text(name), least, most, step)


def _text(padded: bytes) -> str:
    return padded.split(b"\0")[0].decode("utf-8", "replace")
