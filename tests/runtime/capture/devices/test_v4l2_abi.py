"""The kernel's structures: sizes, places and request numbers against the header itself, and parsing."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from orinspect.runtime.capture.devices import v4l2_abi as abi

STRUCTURES = {
    "v4l2_capability": abi.CAPABILITY,
    "v4l2_format": abi.FORMAT,
    "v4l2_fmtdesc": abi.FORMAT_ENTRY,
    "v4l2_streamparm": abi.STREAM,
    "v4l2_requestbuffers": abi.REQUEST,
    "v4l2_buffer": abi.BUFFER,
    "v4l2_control": abi.CONTROL,
    "v4l2_queryctrl": abi.QUERY,
}
REQUESTS = (
    "QUERYCAP",
    "ENUM_FMT",
    "S_FMT",
    "REQBUFS",
    "QUERYBUF",
    "QBUF",
    "DQBUF",
    "STREAMON",
    "STREAMOFF",
    "S_PARM",
    "G_CTRL",
    "S_CTRL",
    "QUERYCTRL",
)
IDS = {
    "exposure_auto": "EXPOSURE_AUTO",
    "exposure": "EXPOSURE_ABSOLUTE",
    "exposure_priority": "EXPOSURE_AUTO_PRIORITY",
    "autogain": "AUTOGAIN",
    "gain": "GAIN",
    "white_balance_auto": "AUTO_WHITE_BALANCE",
    "white_balance_k": "WHITE_BALANCE_TEMPERATURE",
    "focus_auto": "FOCUS_AUTO",
    "focus": "FOCUS_ABSOLUTE",
}
PLACES = {"timestamp": 24, "sequence": 56, "m": 64, "length": 72}

C_SOURCE = """
#include <stdio.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <linux/videodev2.h>
#include <linux/usbdevice_fs.h>
int main(void) {
%s
    return 0;
}
"""


def test_sizes_numbers_and_places_are_those_of_the_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no C compiler with <linux/videodev2.h> here")
    names = [f"sizeof(struct {name})" for name in STRUCTURES]
    names += [f"(unsigned)VIDIOC_{name}" for name in REQUESTS]
    names += [f"V4L2_CID_{name}" for name in IDS.values()]
    names += [f"offsetof(struct v4l2_buffer, {place})" for place in PLACES]
    names += [
        "V4L2_BUF_FLAG_ERROR",
        "V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC",
        "V4L2_BUF_FLAG_TIMESTAMP_MASK",
        "V4L2_CAP_VIDEO_CAPTURE",
        "V4L2_CAP_STREAMING",
        "V4L2_CAP_DEVICE_CAPS",
        "V4L2_PIX_FMT_YUYV",
        "offsetof(struct v4l2_format, fmt)",
    ]
    source = tmp_path / "abi.c"
    source.write_text(
        C_SOURCE % "\n".join(f'    printf("%llu\\n", (unsigned long long)({n}));' for n in names)
    )
    subprocess.run([compiler, "-o", str(tmp_path / "abi"), str(source)], check=True)
    output = subprocess.run([str(tmp_path / "abi")], capture_output=True, text=True, check=True).stdout
    expected = [layout.size for layout in STRUCTURES.values()]
    expected += [getattr(abi, name) for name in REQUESTS]
    expected += [abi.CONTROLS[name] for name in IDS]
    expected += list(PLACES.values())
    expected += [
        abi.BUFFER_ERROR,
        abi.TIMESTAMP_MONOTONIC,
        abi.TIMESTAMP_MASK,
        abi.CAN_CAPTURE,
        abi.CAN_STREAM,
        abi.HAS_DEVICE_CAPS,
        abi.fourcc("YUYV"),
        8,
    ]
    assert dict(zip(names, map(int, output.split()), strict=True)) == dict(zip(names, expected, strict=True))


def test_a_buffer_is_read_from_the_bytes_of_a_64_bit_kernel() -> None:
    data = bytearray(88)
    struct.pack_into("=IIII", data, 0, 2, 1, 614_400, 0x2041)
    struct.pack_into("=qq", data, 24, 4321, 123_456)
    struct.pack_into("=IIII", data, 56, 77, 1, 0x96000, 0)
    struct.pack_into("=I", data, 72, 614_400)
    state = abi.buffer_from(bytes(data))
    assert (state.index, state.used_bytes, state.sequence) == (2, 614_400, 77)
    assert (state.offset, state.length) == (0x96000, 614_400)
    assert state.taken_ns == 4_321_123_456_000 and state.is_broken and state.is_monotonic


def test_a_format_and_a_rate_survive_the_way_there_and_back() -> None:
    request = abi.format_request(1280, 720, "YUYV")
    assert len(request) == 208 and request[16:20] == b"YUYV"
    found = abi.format_from(request)
    assert (found.width, found.height, found.code) == (1280, 720, "YUYV")
    assert abi.fps_from(abi.stream_request(29.97)) == pytest.approx(29.97)
    assert abi.code_of(abi.fourcc("GREY")) == "GREY"


def test_the_capabilities_of_the_node_go_before_those_of_the_whole_device() -> None:
    data = abi.CAPABILITY.pack(b"uvcvideo", b"Cam 1", b"usb-1", 0, 0x84A00001, 0x04A00000)
    assert abi.capability_from(data) == ("uvcvideo", "Cam 1", 0x04A00000)
    assert abi.capability_from(abi.CAPABILITY.pack(b"old", b"Cam", b"", 0, 0x04000001, 0))[2] == 0x04000001
