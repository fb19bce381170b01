"""The V4L2 camera over a stand-in for the kernel: what it asks, what it refuses, what it makes of buffers.

No kernel with a video device is needed: the driver's answers are made in tests/v4l2_device.py.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.devices import v4l2_abi as abi
from orinspect.runtime.capture.devices.usb import USBDEVFS_RESET, reset_usb_device, usb_device_of
from orinspect.runtime.capture.devices.v4l2 import V4l2Camera
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.sources import Resume, SourceText
from orinspect.runtime.errors import CaptureError
from orinspect.tests.v4l2_device import Device, yuyv_of

WIDTH, HEIGHT, ROW = 32, 24, 80  # rows of 64 bytes stand 80 apart


class Clock:
    """Every look at it is 10 ms later."""

    def __init__(self) -> None:
        self.now_ns = 50 * 10**9

    def unix_s(self) -> float:
        return 1_000_000.0 + self.now_ns / 1e9

    def monotonic_ns(self) -> int:
        self.now_ns += 10_000_000
        return self.now_ns


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "video0", WIDTH, HEIGHT, "YUYV", ROW)


def opened(device: Device, parameters: str = "") -> V4l2Camera:
    text = SourceText.of(f"v4l2:{device.path}{parameters}")
    return V4l2Camera(text, Clock(), lambda _: None, Resume(), device.ioctl)


def take(camera: V4l2Camera, count: int) -> list[Frame]:
    return list(itertools.islice(camera.frames(), count))


def grey(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.tile(np.linspace(20 + number, 200, WIDTH).astype(np.uint8), (HEIGHT, 1))


def test_pictures_come_whole_with_the_drivers_time_and_buffers_go_back(device: Device) -> None:
    for number in range(9):
        device.shoot(yuyv_of(grey(number), ROW), (49 * 10**9 + number * 33_000_000))
    with opened(device) as camera:
        frames = take(camera, 9)  # more pictures than buffers
        assert len(device.queued) == 4
    assert not device.is_streaming
    assert [frame.sequence for frame in frames] == list(range(1, 10))
    assert [frame.monotonic_ns for frame in frames] == [49 * 10**9 + n * 33_000_000 for n in range(9)]
    assert frames[0].captured_at == pytest.approx(1_000_000.0 + 49, abs=1e-6)
    for number, frame in enumerate(frames):
        assert frame.image.shape == (HEIGHT, WIDTH, 3) and frame.fault is None
        lit = (grey(number).astype(float) - 16) * 255 / 219  # video levels
        assert np.abs(frame.image - lit[:, :, None]).max() <= 2


def test_a_damaged_buffer_and_a_cut_one_are_faults_and_the_next_is_none(device: Device) -> None:
    whole = yuyv_of(grey(0), ROW)
    device.shoot(whole, 49 * 10**9, abi.TIMESTAMP_MONOTONIC | abi.BUFFER_ERROR)
    device.shoot(whole[:500], 49 * 10**9 + 1)
    device.shoot(whole, 49 * 10**9 + 2)
    with opened(device) as camera:
        broken, cut, good = take(camera, 3)
        assert len(device.queued) == 4
    assert broken.fault is not None and broken.fault.why == "the driver calls picture 1 damaged"
    assert cut.fault is not None and "500 bytes for 32 x 24 pixels of YUYV" in cut.fault.why
    assert good.fault is None


def test_a_silent_camera_is_an_error(device: Device) -> None:
    with opened(device, "?silence_s=1") as camera, pytest.raises(CaptureError, match="no picture for 1 s"):
        take(camera, 1)
    assert not device.is_streaming


@pytest.mark.parametrize("code", ["GREY", "BGR3", "RGB3", "UYVY"])
def test_every_format_shows_the_same_picture(tmp_path: Path, code: str) -> None:
    picture = grey(0)
    rows = {
        "GREY": picture,
        "BGR3": np.repeat(picture, 3, 1),
        "RGB3": np.repeat(picture, 3, 1),
        "UYVY": np.stack([np.full_like(picture, 128), picture], 2).reshape(HEIGHT, -1),
    }[code]
    device = Device(tmp_path / "video0", WIDTH, HEIGHT, code, rows.shape[1])
    device.shoot(rows.tobytes(), 49 * 10**9)
    with opened(device, f"?format={code}") as camera:
        (frame,) = take(camera, 1)
    assert frame.image.shape == ((HEIGHT, WIDTH) if code == "GREY" else (HEIGHT, WIDTH, 3))
    expected = (picture.astype(float) - 16) * 255 / 219 if code == "UYVY" else picture.astype(float)
    assert (
        np.abs(frame.image.reshape(HEIGHT, WIDTH, -1)[:, :, 1 if code != "GREY" else 0] - expected).max() <= 2
    )


def test_a_jpeg_camera_and_its_half_jpeg(tmp_path: Path) -> None:
    device = Device(tmp_path / "video0", WIDTH, HEIGHT, "MJPG", WIDTH * 4)
    data = bytes(cv2.imencode(".jpg", grey(0))[1])
    device.shoot(data, 49 * 10**9)
    device.shoot(data[:-40], 49 * 10**9 + 1)
    with opened(device, "?format=MJPG") as camera:
        good, cut = take(camera, 2)
    assert good.fault is None and good.image.shape[:2] == (HEIGHT, WIDTH)
    assert cut.fault is not None and "picture 2 of the camera is damaged" in cut.fault.why


def test_exposure_gain_and_white_balance_are_locked_and_read_back(device: Device) -> None:
    device.add_control("exposure_auto", 3, 0, 3)
    device.add_control("exposure", 157, 3, 2047)
    device.add_control("autogain", 1, 0, 1)
    device.add_control("gain", 0, 0, 128)
    device.add_control("white_balance_auto", 1, 0, 1)
    device.add_control("white_balance_k", 4000, 2800, 6500, 10)
    with opened(device, "?exposure_us=2000&gain=8&white_balance_k=5000"):
        found = {
            name: device.controls[abi.CONTROLS[name]][0]
            for name in abi.CONTROLS
            if abi.CONTROLS[name] in device.controls
        }
    assert found == {
        "exposure_auto": 1,
        "exposure": 20,
        "autogain": 0,
        "gain": 8,
        "white_balance_auto": 0,
        "white_balance_k": 5000,
    }


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("?gain=500", "took gain 128 where 500 was asked for; it takes 0 to 128 in steps of 1"),
        (
            "?exposure_us=100",
            "took exposure_us 300 where 100 was asked for; it takes 300 to 204700 in steps of 100",
        ),
        ("?focus=3", "cannot lock focus at 3 (Invalid argument); it has no such control"),
        (
            "?width=640&height=480",
            "gives 32 x 24 YUYV where 640 x 480 YUYV was asked for; its formats are YUYV",
        ),
        ("?format=GREY", "gives 32 x 24 YUYV where 32 x 24 GREY was asked for"),
        ("?fps=60", "gives 30 frames a second where 60 were asked for"),
    ],
)
def test_what_the_camera_does_not_take_is_refused(device: Device, parameters: str, complaint: str) -> None:
    device.add_control("gain", 0, 0, 128)
    device.add_control("exposure", 157, 3, 2047)
    device.granted_fps = 30.0
    with pytest.raises(CaptureError, match=re.escape(complaint)):
        opened(device, parameters)
    assert not device.is_streaming


def test_a_node_without_pictures_and_a_missing_one_are_named(device: Device, tmp_path: Path) -> None:
    device.capabilities = abi.CAN_STREAM  # the metadata node of a UVC camera
    with pytest.raises(
        CaptureError, match=r"\(Test camera\) is no camera that streams; take the camera's other"
    ):
        opened(device)
    device.path.unlink()
    with pytest.raises(CaptureError, match=r"video0 cannot be opened \(No such file or directory\); found"):
        opened(device)


def test_the_usb_device_of_a_camera_is_found_and_reset(tmp_path: Path) -> None:
    usb = tmp_path / "sys" / "devices" / "usb1" / "1-2"
    interface = usb / "1-2:1.0"
    node = tmp_path / "sys" / "class" / "video4linux" / "video3"
    bus = tmp_path / "dev" / "bus" / "usb" / "001"
    for folder in (interface, node, bus):
        folder.mkdir(parents=True)
    (usb / "busnum").write_text("1\n")
    (usb / "devnum").write_text("7\n")
    (node / "device").symlink_to(interface)
    (bus / "007").touch()
    link = tmp_path / "by-path-video"
    (tmp_path / "dev" / "video3").touch()
    link.symlink_to(tmp_path / "dev" / "video3")
    calls: list[int] = []

    def find(video: str | Path) -> Path | None:
        return usb_device_of(video, tmp_path / "sys", tmp_path / "dev")

    def ioctl(file: int, request: int, value: int) -> None:
        calls.append(request)

    assert find(link) == bus / "007"
    assert reset_usb_device(link, find=find, ioctl=ioctl) and calls == [USBDEVFS_RESET]
    (usb / "busnum").unlink()
    assert find(link) is None and not reset_usb_device(link, find=find, ioctl=ioctl)
    assert not reset_usb_device("/dev/no-such-video")
