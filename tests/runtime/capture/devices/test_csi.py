"""The pipeline of a CSI camera; the element that it starts with exists on a Jetson only."""

from __future__ import annotations

import pytest

from orinspect.runtime.capture.devices.gstreamer import SINK, csi_pipeline
from orinspect.runtime.capture.frame import camera_from_source
from orinspect.runtime.capture.sources import SourceError, SourceText


def test_exposure_gain_and_white_balance_are_locked() -> None:
    text = SourceText.of("csi:1?width=1280&height=720&fps=60&exposure_us=2000&gain=4&wbmode=1")
    assert csi_pipeline(text) == (
        'nvarguscamerasrc sensor-id=1 exposuretimerange="2000000 2000000" gainrange="4 4"'
        ' ispdigitalgainrange="1 1" aelock=true wbmode=1 awblock=true'
        " ! video/x-raw(memory:NVMM),width=1280,height=720,format=NV12,framerate=60/1"
        f" ! nvvidconv ! video/x-raw,format=BGRx ! {SINK}"
    )
    assert csi_pipeline(SourceText.of("csi:0")).startswith(
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080"
    )


def test_the_sink_holds_one_picture_and_drops_older_ones() -> None:
    assert "leaky=downstream max-size-buffers=1" in SINK and "max-buffers=1 drop=true" in SINK


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("csi:front", "name the sensor by its number"),
        ("csi:0?width=3", "width is '3'"),
        ("csi:0?latency_ms=3", "no parameter 'latency_ms'"),
    ],
)
def test_a_wrong_source_is_named(source: str, complaint: str) -> None:
    with pytest.raises(SourceError, match=complaint):
        camera_from_source(source)
