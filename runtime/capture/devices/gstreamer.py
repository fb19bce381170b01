"""Cameras behind a GStreamer pipeline: `csi:0?width=1920&height=1080&fps=30` (nvarguscamerasrc), and RTSP.

The one file that loads PyGObject, and only when such a camera is opened: pip's OpenCV has no GStreamer, and
the hardware decoders and the ISP of a Jetson stand behind nothing else. The pipeline ends in an appsink that
holds one picture and drops older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from ...errors import CaptureError
from ..frame import Clock, Frame, Picture
from ..sources import Resume, SourceText
from .stamp import PARAMETERS, Stamp

SINK = (
    "videoconvert ! video/x-raw,format=BGR"
    " ! queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
    " ! appsink name=sink max-buffers=1 drop=true sync=false"
)
INSTALL = (
    "install python3-gi, gir1.2-gstreamer-1.0 and the gstreamer1.0-plugins (apt), and let the virtual"
    " environment see them (python3 -m venv --system-site-packages)"
)
_PULL_NS = 100_000_000
_OLDEST_NS = 10_000_000_000  # a picture's own time further back than this was not of the monotonic clock
_CSI = ("width", "height", "fps", "exposure_us", "gain", "wbmode", "silence_s", *PARAMETERS)


def load_gstreamer() -> Any:
    """The module Gst, initialised; CaptureError says what to install."""
    try:
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError) as error:
        raise CaptureError(f"GStreamer's Python binding cannot be used ({error}): {INSTALL}") from None
    Gst.init(None)
    return Gst


def has_gstreamer() -> bool:
    """Whether GStreamer can be used here."""
    try:
        load_gstreamer()
    except CaptureError:
        return False
    return True


class PipelineCamera:
    """The frames of a pipeline that ends in SINK; `properties`: of its elements by name, not parsed as text.

    CaptureError when it cannot start, reports an error, ends, or gives nothing for `silence_s`.
    """

    def __init__(
        self,
        pipeline: str,
        properties: Mapping[str, Mapping[str, object]],
        text: SourceText,
        clock: Clock,
        silence_s: float,
    ) -> None:
        self._gst = load_gstreamer()
        self._text, self._clock, self._silence_ns = text, clock, int(silence_s * 1e9)
        self._stamp = Stamp(text, clock)
        try:
            self._pipeline = self._gst.parse_launch(pipeline)
        except Exception as error:  # GLib.Error, which only gi knows
            raise CaptureError(
                f"camera {text.text}: GStreamer cannot build its pipeline ({error}); {INSTALL}"
            ) from None
        for name, values in properties.items():
            for key, value in values.items():
                self._pipeline.get_by_name(name).set_property(key, value)
        self._sink = self._pipeline.get_by_name("sink")
        self._closed = False

    def __enter__(self) -> PipelineCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the pipeline; twice is fine."""
        self._closed = True
        self._pipeline.set_state(self._gst.State.NULL)

    def frames(self) -> Iterator[Frame]:
        """The newest picture each time one is asked for.

        Whoever joins a coded stream between two key pictures gets grey from the decoder first: such pictures
        are no frames. Later ones that the decoder calls damaged (a packet was lost) are frames with a fault.
        """
        self._pipeline.set_state(self._gst.State.PLAYING)
        heard_ns, has_begun = self._clock.monotonic_ns(), False
        while not self._closed:
            sample = self._sink.emit("try-pull-sample", _PULL_NS)
            now_ns = self._clock.monotonic_ns()
            is_whole = sample is not None and not self._is_damaged(sample)
            if is_whole:
                heard_ns, has_begun = now_ns, True
                yield self._stamp.frame(_picture(sample, self._gst), taken_ns=self._taken_ns(sample, now_ns))
                continue
            if sample is not None and has_begun:
                yield self._stamp.broken("the decoder calls the picture damaged")
            self._raise_what_the_bus_says()
            if now_ns - heard_ns > self._silence_ns:
                raise CaptureError(
                    f"camera {self._text.text} gave no whole picture in "
                    f"{self._silence_ns / 1e9:g} s; check it"
                )

    def _is_damaged(self, sample: Any) -> bool:
        return bool(sample.get_buffer().has_flags(self._gst.BufferFlags.CORRUPTED))

    def _raise_what_the_bus_says(self) -> None:
        kinds = self._gst.MessageType
        message = self._pipeline.get_bus().pop_filtered(kinds.ERROR | kinds.EOS)
        if message is None:
            return
        if message.type == kinds.EOS:
            raise CaptureError(f"camera {self._text.text} ended its stream; check it")
        error, _ = message.parse_error()
        raise CaptureError(f"camera {self._text.text} failed: {error.message} ({message.src.get_name()})")

    def _taken_ns(self, sample: Any, now_ns: int) -> int:
        """When the pipeline's clock says that the picture was taken; now where it keeps another clock."""
        running = sample.get_segment().to_running_time(self._gst.Format.TIME, sample.get_buffer().pts)
        if running == self._gst.CLOCK_TIME_NONE:
            return now_ns
        taken_ns = int(self._pipeline.get_base_time() + running)
        return taken_ns if now_ns - _OLDEST_NS < taken_ns <= now_ns else now_ns


def csi_camera(
    text: SourceText, clock: Clock, sleep: Callable[[float], None], resume: Resume
) -> PipelineCamera:
    """A CSI camera of a Jetson by its sensor id; exposure, gain and white balance locked where given."""
    text.allow(_CSI)
    if not text.path.isdigit():
        raise text.refused_path("name the sensor by its number, for instance csi:0")
    return PipelineCamera(csi_pipeline(text), {}, text, clock, text.number("silence_s", 5.0))


def csi_pipeline(text: SourceText) -> str:
    """The pipeline of a CSI camera; exposure in microseconds, gain as a factor."""
    source = [f"nvarguscamerasrc sensor-id={int(text.path)}"]
    exposure_us, gain = text.number("exposure_us", None), text.number("gain", None)
    if exposure_us is not None:
        nanoseconds = round(exposure_us * 1000)
        source.append(f'exposuretimerange="{nanoseconds} {nanoseconds}"')
    if gain is not None:
        source.append(f'gainrange="{gain:g} {gain:g}" ispdigitalgainrange="1 1"')
    if exposure_us is not None and gain is not None:
        source.append("aelock=true")
    wbmode = text.whole("wbmode", 0, None)
    if wbmode is not None:
        source.append(f"wbmode={wbmode} awblock=true")
    width, height = text.whole("width", 16, 1920), text.whole("height", 16, 1080)
    size = (
        f"video/x-raw(memory:NVMM),width={width},height={height},format=NV12,"
        f"framerate={text.whole('fps', 1, 30)}/1"
    )
    return f"{' '.join(source)} ! {size} ! nvvidconv ! video/x-raw,format=BGRx ! {SINK}"


def _picture(sample: Any, gst: Any) -> Picture:
    """A copy of the sample's picture, [H, W, 3] BGR; its rows are padded in the buffer."""
    shape = sample.get_caps().get_structure(0)
    height, width = shape.get_value("height"), shape.get_value("width")
    found, memory = sample.get_buffer().map(gst.MapFlags.READ)
    if not found:
        raise CaptureError("a picture's memory cannot be read; restart the camera")
    try:
        rows = np.frombuffer(memory.data, np.uint8).reshape(height, -1)
        return rows[:, : width * 3].reshape(height, width, 3).copy()
    finally:
        sample.get_buffer().unmap(memory)
