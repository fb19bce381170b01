"""What every camera gives: a frame, and how a camera is opened from one line of configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import PictureError
from .clock import SystemClock
from .scenes import SceneDefect
from .sources import Resume, SourceError, SourceText

Picture = npt.NDArray[np.uint8]

FaultName = Literal[
    "picture",  # the file is no picture, is cut off, or does not fit its template
    "no_picture",  # a picture was asked for and the camera gave none
    "frozen",  # the very content of the picture before
    "stale",  # its time stands still, runs backwards, or is too long ago
    "black",
    "saturated",
    "blurred",
    "moved",  # the view lies beside the reference picture
]


@dataclass(frozen=True)
class FrameFault:
    """Why a frame must not be inspected: a name that machines read and a sentence for people."""

    name: FaultName
    why: str

    @property
    def reason_code(self) -> str:
        """The report's `reason_code`."""
        return f"not_inspected.{self.name}"


@dataclass(frozen=True)
class Frame:
    """One picture of one part, with the golden template when the product is inspected by comparison.

    `image` is uint8 [H, W] grey or [H, W, 3] BGR, `template` has the same shape or is None. `sequence` counts
    from 1 within a source; scenes and video files give the same part the same number when they start over.
    `key` names the capture where numbers cannot: a file keeps it whatever comes or goes beside it.
    `captured_at` is unix seconds, `monotonic_ns` the machine's clock that never jumps. `truth` is known for
    scenes only. `earlier`: the frames of a clip before this one, oldest first; cameras give none.
    `fault`: this frame is not to be inspected, and why: it becomes an aborted result, never a silence. Where
    there is no picture at all, `image` is NO_IMAGE.
    Raises PictureError when the pictures are of another kind or do not fit together.
    """

    image: Picture
    template: Picture | None
    sequence: int
    captured_at: float
    monotonic_ns: int
    source: str
    part_id: str | None = None
    is_simulated: bool = False
    truth: tuple[SceneDefect, ...] | None = None
    mm_per_px: float | None = None
    earlier: tuple[Picture, ...] = ()
    key: str | None = None
    fault: FrameFault | None = None

    def __post_init__(self) -> None:
        for name, picture in (("image", self.image), ("template", self.template)):
            if picture is not None and not _is_picture(picture):
                raise PictureError(f"the {name} of frame {self.sequence} from {self.source} is "
                                   f"{picture.dtype} {list(picture.shape)}: give uint8 [H, W] or [H, W, 3]")
        if self.template is not None and self.template.shape != self.image.shape:
            raise PictureError(f"the part of frame {self.sequence} from {self.source} is "
                               f"{list(self.image.shape)} and its template {list(self.template.shape)}: "
                               "give a template of the same size and colours")


_TRAILER_BYTES = 4096  # cameras may write a little behind the end of a JPEG
NO_IMAGE: Picture = np.zeros((1, 1), np.uint8)
"""What stands in a frame that has no picture; its `fault` says why."""
NO_IMAGE.setflags(write=False)


class Camera(Protocol):
    """A source of frames; a context manager that frees the device on leaving."""

    def __enter__(self) -> Camera:
        """The camera itself."""
        ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close."""
        ...

    def frames(self) -> Iterator[Frame]:
        """Frames in order of capture until the source ends; CaptureError or PictureError when it fails."""
        ...

    def close(self) -> None:
        """Free the device; twice is fine."""
        ...


class Clock(Protocol):
    """Where a camera's times come from."""

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never jump."""
        ...


def camera_from_source(source: str, clock: Clock | None = None,
                       sleep: Callable[[float], None] = time.sleep, resume: Resume | None = None) -> Camera:
    """Open the camera that `source` names.

    `scenes:pcb?seed=1&fps=5&style=grey&parts=12`, `scenes:metal?seed=1&surface=brushed`,
    `folder:PATH?template=FILE&fps=2`, `watch:PATH?after=move`, `video:FILE?fps=5`,
    `rtsp://HOST/PATH?latency_ms=100`, `csi:0?width=1920&height=1080&fps=30` or
    `v4l2:/dev/v4l/by-path/...?format=YUYV&exposure_us=2000`: docs/cameras.md has every parameter.
    `sleep` waits the given seconds; `resume`: what a source that can start over leaves out.
    SourceError for an unknown kind, parameter or value; CaptureError for a device that is not there.
    """
    # Imported here because every kind of camera imports Frame from this file.
    from .devices.gstreamer import csi_camera
    from .devices.opencv_video import VideoFileCamera
    from .devices.rtsp import rtsp_camera
    from .devices.v4l2 import V4l2Camera
    from .folder import FolderCamera
    from .simulated import SceneCamera
    from .watch import WatchCamera

    kinds: dict[str, Callable[[SourceText, Clock, Callable[[float], None], Resume], Camera]] = {
        "scenes": SceneCamera, "folder": FolderCamera, "watch": WatchCamera, "video": VideoFileCamera,
        "rtsp": rtsp_camera, "csi": csi_camera, "v4l2": V4l2Camera}
    text = SourceText.of(source)
    if text.kind not in kinds:
        raise SourceError(f"camera.source is {source!r}: cameras are of the kinds {', '.join(kinds)}; "
                           "write for instance scenes:pcb?seed=1 or folder:PATH")
    return kinds[text.kind](text, clock or SystemClock(), sleep, resume or Resume())


def reset_device(source: str) -> bool:
    """Reset the device behind `source` where its kind has one that can be reset (USB); whether it was."""
    from .devices.usb import reset_usb_device

    text = SourceText.of(source)
    return text.kind == "v4l2" and reset_usb_device(text.path)


def read_picture(path: str | Path) -> Picture:
    """The picture in a file, uint8 [H, W] when grey, else [H, W, 3] BGR; PictureError names the file."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"the picture {path} cannot be read: {error.strerror}; check the path") from None
    return picture_from_bytes(data, str(path))


def picture_from_bytes(data: bytes, name: str) -> Picture:
    """The picture in an image file's bytes, as `read_picture` gives it; PictureError names it `name`."""
    try:
        picture = None
        if data and not _is_cut_jpeg(data) and not _is_cut_png(data):
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    except cv2.error:  # damaged in a way that OpenCV does not report as None
        picture = None
    if picture is None:
        raise PictureError(
            f"{name} ({len(data)} bytes) is not a picture; give a whole PNG, JPEG, BMP or TIFF"
        )
    return np.asarray(picture, np.uint8)


def _is_cut_png(data: bytes) -> bool:
    """Whether a piece of a PNG is longer than the file: OpenCV would take room for all that it claims."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return False
    at = 8
    while data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4], "big")  # length, kind, content, checksum
        if at + 12 > len(data):
            return True
    return False


def _is_cut_jpeg(data: bytes) -> bool:
    """Whether a JPEG lacks its end: OpenCV 4 fills what is missing with grey and says nothing."""
    return data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-_TRAILER_BYTES:]


def _is_picture(array: npt.NDArray[np.uint8]) -> bool:
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    return array.dtype == np.uint8 and shaped and array.size > 0
