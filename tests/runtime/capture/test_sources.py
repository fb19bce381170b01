"""The text that names a camera, and the pace, with a clock of the test's own."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from orinspect.runtime.capture.frame import camera_from_source
from orinspect.runtime.capture.scenes.metal import metal_scene
from orinspect.runtime.capture.sources import Pace, Resume, SourceText
from orinspect.runtime.errors import CaptureError


def test_a_source_is_taken_apart() -> None:
    text = SourceText.of("scenes:pcb?seed=1&fps=5&style=grey&parts=12")
    assert (text.kind, text.path) == ("scenes", "pcb")
    assert text.options == {"seed": "1", "fps": "5", "style": "grey", "parts": "12"}
    assert text.whole("seed", 0, 3) == 1 and text.whole("defects", 0, None) is None
    assert text.number("fps", None) == 5.0


def test_a_colon_in_a_path_stays_in_it() -> None:
    assert SourceText.of("folder:C:/parts").path == "C:/parts"


@pytest.mark.parametrize(("source", "complaint"), [
    ("", "KIND:PATH"),
    ("scenes", "KIND:PATH"),
    ("usb:0", "of the kinds scenes, folder"),
    ("scenes:steel", "scenes:pcb"),
    ("scenes:pcb?speed=3", "no parameter 'speed'"),
    ("scenes:pcb?seed", "?a=1&b=2"),
    ("scenes:pcb?seed=1&seed=2", "seed is given twice"),
    ("scenes:pcb?seed=-1", "seed is '-1'"),
    ("scenes:pcb?seed=one", "seed is 'one'"),
    ("scenes:pcb?seed=²", "seed is '²'"),
    ("scenes:pcb?fps=0", "fps is '0'"),
    ("scenes:pcb?fps=nan", "fps is 'nan'"),
    ("scenes:pcb?fps=inf", "fps is 'inf'"),
    ("scenes:pcb?parts=0", "parts is '0'"),
    ("scenes:pcb?style=red", "style is 'red'"),
    ("scenes:pcb?size_px=64", "size_px is '64'"),
    ("scenes:pcb?misregistration_px=40", "misregistration_px is '40'"),
    ("folder:does/not/exist", "'does/not/exist' is not a folder"),
])
def test_a_wrong_source_is_one_sentence(source: str, complaint: str) -> None:
    with pytest.raises(CaptureError, match=re.escape(complaint)) as raised:
        camera_from_source(source)
    assert "\n" not in str(raised.value)
    assert repr(source) in str(raised.value)


class Time:
    """A clock that only the sleeper moves."""

    def __init__(self) -> None:
        self.now_ns = 1_000
        self.slept: list[float] = []

    def unix_s(self) -> float:
        return self.now_ns / 1e9

    def monotonic_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_ns += round(seconds * 1e9)


def test_a_pace_makes_up_for_work_between_frames() -> None:
    time = Time()
    pace = Pace(5.0, time.monotonic_ns, time.sleep)
    starts = []
    for work_ns in (50_000_000, 10_000_000, 0, 0):
        pace.wait()
        starts.append(time.now_ns)
        time.now_ns += work_ns
    assert [b - a for a, b in pairwise(starts)] == [200_000_000] * 3
    assert time.slept == pytest.approx([0.15, 0.19, 0.2])


def test_a_late_frame_causes_no_burst() -> None:
    time = Time()
    pace = Pace(10.0, time.monotonic_ns, time.sleep)
    pace.wait()
    time.now_ns += 950_000_000
    pace.wait()
    assert time.slept == []
    pace.wait()
    assert time.slept == pytest.approx([0.1])


def test_without_fps_nothing_waits() -> None:
    time = Time()
    pace = Pace(None, time.monotonic_ns, time.sleep)
    pace.wait()
    pace.wait()
    assert time.slept == []


def test_the_scene_camera_keeps_the_pace_and_the_truth() -> None:
    time = Time()
    source = "scenes:pcb?seed=3&fps=4&parts=3&size_px=160&defects=2"
    with camera_from_source(source, time, time.sleep) as camera:
        frames = list(camera.frames())
    assert [frame.sequence for frame in frames] == [1, 2, 3]
    assert time.slept == pytest.approx([0.25, 0.25])
    assert all(frame.is_simulated and frame.mm_per_px == 1 / 48 for frame in frames)
    assert frames[0].truth and frames[0].truth[0].type
    assert len({frame.part_id for frame in frames}) == 3
    assert [frame.captured_at for frame in frames] == pytest.approx([1e-6, 0.250001, 0.500001])
    assert frames[0].image.shape == (160, 160) and frames[0].template is not None


def test_the_same_source_gives_the_same_parts() -> None:
    def pictures(source: str) -> list[bytes]:
        with camera_from_source(source) as camera:
            return [frame.image.tobytes() for frame in camera.frames()]

    first = pictures("scenes:pcb?seed=3&parts=2&size_px=160")
    assert first == pictures("scenes:pcb?seed=3&parts=2&size_px=160")
    assert not set(first) & set(pictures("scenes:pcb?seed=4&parts=2&size_px=160"))


def test_scenes_go_on_behind_the_part_that_they_are_told() -> None:
    source = "scenes:pcb?seed=3&parts=4&size_px=160"
    with camera_from_source(source) as camera:
        whole = list(camera.frames())
    with camera_from_source(source, resume=Resume(after=2)) as camera:
        rest = list(camera.frames())
    assert [frame.sequence for frame in rest] == [3, 4]
    assert [(frame.part_id, frame.image.tobytes()) for frame in rest] == [
        (frame.part_id, frame.image.tobytes()) for frame in whole[2:]]
    assert SourceText.of(source).resumed_by == "sequence" and SourceText.of("rtsp://x").resumed_by is None


def test_a_closed_camera_ends() -> None:
    camera = camera_from_source("scenes:pcb?size_px=128")
    frames = camera.frames()
    next(frames)
    camera.close()
    camera.close()
    assert list(frames) == []


def test_good_parts_are_evenly_spread() -> None:
    source = "scenes:pcb?seed=3&parts=8&size_px=400&defects=2&good=0.25"
    with camera_from_source(source, sleep=lambda _: None) as camera:
        counts = [len(frame.truth or ()) for frame in camera.frames()]
    assert [index for index, count in enumerate(counts) if not count] == [3, 7]


def test_a_share_of_good_parts_above_one_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"good.*0 to 1"):
        camera_from_source("scenes:pcb?good=1.5")


def test_the_metal_camera_shows_one_picture_in_colour_and_its_truth() -> None:
    source = "scenes:metal?seed=2&parts=2&size_px=160&surface=brushed&defects=2"
    with camera_from_source(source) as camera:
        frames = list(camera.frames())
    assert [frame.sequence for frame in frames] == [1, 2]
    assert all(frame.template is None and frame.is_simulated for frame in frames)
    for index, frame in enumerate(frames):
        scene = metal_scene(200_000 + index, size_px=160, surface="brushed", defects=2)
        assert (frame.image == scene.image).all() and frame.image.shape == (160, 160, 3)
        assert frame.mm_per_px == scene.mm_per_px == 0.02
        assert frame.truth and [d.bbox_xyxy for d in frame.truth] == [d.bbox_xyxy for d in scene.defects]


def test_metal_parts_are_good_as_often_as_asked() -> None:
    with camera_from_source("scenes:metal?seed=3&parts=16&size_px=160&good=0.25") as camera:
        counts = [len(frame.truth or ()) for frame in camera.frames()]
    assert [index for index, count in enumerate(counts) if not count] == [3, 7, 11, 15]


@pytest.mark.parametrize(("source", "named"), [
    ("scenes:wood", r"scenes:pcb, scenes:metal"),
    ("scenes:metal?surface=wood", r"surface.*turned, brushed, cast, painted"),
    ("scenes:metal?size_px=5000", r"size_px.*128 to 4096"),
    ("scenes:metal?defects=7", r"defects.*0 to 6"),
    ("scenes:metal?style=grey", r"no parameter 'style'.*surface"),
    ("scenes:pcb?surface=cast", r"no parameter 'surface'.*misregistration_px"),
])
def test_a_scene_that_does_not_exist_is_refused_with_what_does(source: str, named: str) -> None:
    with pytest.raises(CaptureError, match=named):
        camera_from_source(source)
