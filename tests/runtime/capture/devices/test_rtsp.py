"""A network camera that stalls, drops and returns: a real RTSP server, both clients, the whole recovery."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orinspect.runtime.capture.devices import gstreamer, rtsp
from orinspect.runtime.capture.frame import Frame, camera_from_source
from orinspect.runtime.capture.process import ProcessCamera
from orinspect.runtime.capture.recovery import CameraTrouble, steady_camera
from orinspect.runtime.capture.sources import Resume, SourceError
from orinspect.runtime.config import (
    CameraConfig,
    DeviceConfig,
    InspectionConfig,
    MqttConfig,
    OutboxConfig,
    RecoveryConfig,
    ServiceConfig,
    TruthConfig,
)
from orinspect.runtime.errors import CaptureError
from orinspect.tests.rtsp_streams import Server, binding_folder, served

BACKENDS = ("gstreamer", "ffmpeg")


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and GStreamer's binding where this interpreter and its children look for modules."""
    monkeypatch.syspath_prepend(str(binding_folder(tmp_path)))
    with served() as running:
        yield running


class Watched:
    """A steady camera; `cure` is done when it says for the first time that something is wrong."""

    def __init__(self, source: str) -> None:
        self.troubles: list[CameraTrouble] = []
        self.cure: Callable[[], object] = lambda: None
        config = ServiceConfig(
            DeviceConfig("d", "s"),
            CameraConfig(source, timeout_s=90.0),
            InspectionConfig(Path("none")),
            MqttConfig("h", "r"),
            OutboxConfig(Path("none")),
            recovery=RecoveryConfig(retry_least_s=0.1, retry_most_s=0.5),
            truth=TruthConfig(stale_s=60.0, frozen_frames=0),  # a loaded test machine is late
        )
        self.camera = steady_camera(config, resume=Resume, tell=self._hear, random=lambda: 0.5)

    def _hear(self, trouble: CameraTrouble) -> None:
        self.troubles.append(trouble)
        if len(self.troubles) == 1:
            self.cure()

    def frames_until_good_again(self, frames: Iterator[Frame], cure: Callable[[], object]) -> Frame:
        """Take frames through the trouble that comes now and is cured; the first good one after it."""
        self.troubles.clear()
        self.cure = cure
        while not any(trouble.is_over for trouble in self.troubles):
            last = next(frames)
        assert last.fault is None
        return last


@pytest.mark.slow
@pytest.mark.requires("gstreamer")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_camera_that_stalls_drops_and_returns(server: Server, backend: str) -> None:
    watched = Watched(f"rtsp://127.0.0.1:{server.port}/live?backend={backend}&silence_s=3")
    again: list[Server] = []
    with watched.camera as camera:
        frames = camera.frames()
        first = [next(frames) for _ in range(5)]
        assert all(frame.fault is None and frame.image.shape == (240, 320, 3) for frame in first)
        assert len({frame.image.tobytes() for frame in first}) > 1, "the picture moves"
        times = [frame.monotonic_ns for frame in first]
        assert times == sorted(set(times))
        assert watched.troubles == []

        server.say("stall")
        last = watched.frames_until_good_again(frames, lambda: server.say("go"))
        assert (watched.troubles[0].alarm, watched.troubles[0].step) == ("camera_failed", "reopen")
        for _ in range(5):  # good frames: the next failure is a first one
            last = next(frames)

        server.kill()
        try:
            last = watched.frames_until_good_again(frames, lambda: again.append(Server(server.port)))
            assert watched.troubles[0].alarm == "camera_failed"
            after = next(frames)
        finally:
            for each in again:
                each.kill()
    assert after.sequence == last.sequence + 1 > 11


@pytest.mark.slow
@pytest.mark.requires("gstreamer")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_address_that_nobody_serves_is_one_sentence(server: Server, backend: str) -> None:
    source = f"rtsp://127.0.0.1:{server.port}/nothing?backend={backend}&silence_s=5"

    # In a child, as in the service: PyGObject warns while it loads, and a warning is an error here.
    with (
        ProcessCamera(source, camera_from_source, newest=True) as camera,
        pytest.raises(CaptureError, match=re.escape(f"camera {source}")) as raised,
    ):
        camera.next_frame()
    assert "\n" not in str(raised.value)


def test_without_the_binding_the_stream_goes_through_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Recorded:
        def __init__(self, url: str, *_: object) -> None:
            opened.append(url)

    monkeypatch.setitem(__import__("sys").modules, "gi", None)
    monkeypatch.setattr(rtsp, "FfmpegStreamCamera", Recorded)
    assert not gstreamer.has_gstreamer()
    camera_from_source("rtsp://cam/stream?channel=1&latency_ms=50")
    assert opened == ["rtsp://cam/stream?channel=1"]
    with pytest.raises(CaptureError, match=r"cannot be used .*install python3-gi"):
        camera_from_source("rtsp://cam/stream?backend=gstreamer")
    with pytest.raises(SourceError, match=r"udp needs GStreamer; .*install python3-gi"):
        camera_from_source("rtsp://cam/stream?transport=udp")


def test_a_password_comes_from_a_file_and_never_from_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    class Recorded:
        def __init__(self, url: str, *_: object) -> None:
            opened.append(url)

    monkeypatch.setattr(rtsp, "FfmpegStreamCamera", Recorded)
    secret = tmp_path / "secret"
    secret.write_text("a/b:c\n")
    camera_from_source(f"rtsp://cam/1?backend=ffmpeg&user=op&password_file={secret}")
    assert opened == ["rtsp://op:a%2Fb%3Ac@cam/1"]
    with pytest.raises(SourceError, match="password_file=FILE") as raised:
        camera_from_source("rtsp://op:secret@cam/1")
    assert "secret" not in str(raised.value)
    with pytest.raises(SourceError, match="password_file is"):
        camera_from_source(f"rtsp://cam/1?backend=ffmpeg&user=op&password_file={tmp_path / 'none'}")


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("transport=smoke", "transport is 'smoke'; give tcp or udp"),
        ("backend=magic", "backend is 'magic'"),
        ("silence_s=0", "silence_s is '0'"),
    ],
)
def test_a_wrong_parameter_is_named(parameters: str, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint):
        camera_from_source(f"rtsp://cam/1?{parameters}")
