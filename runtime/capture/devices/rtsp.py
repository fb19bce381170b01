"""Network cameras: `rtsp://HOST:554/PATH?user=NAME&password_file=FILE&latency_ms=100&transport=tcp`.

Through GStreamer where its binding is here (on a Jetson it decodes in hardware, and it times each picture),
else through OpenCV's FFmpeg. Parameters that are not ours belong to the camera's address. A password in the
address is refused: the source stands in reports and logs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, urlencode

from ...errors import CaptureError
from ..frame import Camera, Clock
from ..sources import Resume, SourceError, SourceText
from .gstreamer import SINK, PipelineCamera, has_gstreamer, load_gstreamer
from .opencv_video import FfmpegStreamCamera
from .stamp import PARAMETERS

OURS = ("user", "password_file", "latency_ms", "transport", "silence_s", "backend", *PARAMETERS)
_PROTOCOLS = {"tcp": 4, "udp": 1}  # GstRTSPLowerTrans


def rtsp_camera(text: SourceText, clock: Clock, sleep: Callable[[float], None], resume: Resume) -> Camera:
    """The camera at an RTSP address; SourceError for a wrong parameter, CaptureError without an answer."""
    if "@" in text.path:
        address = text.path.rpartition("@")[2]
        raise SourceError(
            f"camera.source rtsp:...@{address} holds a name or password, which would stand in"
            " every report; write ?user=NAME&password_file=FILE"
        )
    transport, backend = text.options.get("transport", "tcp"), text.options.get("backend", "auto")
    if transport not in _PROTOCOLS:
        raise text.refused("transport", "tcp or udp")
    if backend not in ("auto", "gstreamer", "ffmpeg"):
        raise text.refused("backend", "auto, gstreamer or ffmpeg")
    silence_s = text.number("silence_s", 5.0)
    password = _password(text)
    if backend == "gstreamer" or (backend == "auto" and has_gstreamer()):
        return _through_gstreamer(text, clock, silence_s, password, transport)
    if transport == "udp":
        raise text.refused("transport", f"tcp: udp needs GStreamer; {_why_no_gstreamer()}")
    user = text.options.get("user")
    account = f"{quote(user, safe='')}:{quote(password or '', safe='')}@" if user else ""
    return FfmpegStreamCamera(f"rtsp://{account}{_address(text)}", text, clock, silence_s)


def _through_gstreamer(
    text: SourceText, clock: Clock, silence_s: float, password: str | None, transport: str
) -> PipelineCamera:
    gst = load_gstreamer()
    # Decoders in hardware leave their pictures in memory of their own; nvvidconv brings them out.
    bring = "nvvidconv ! video/x-raw,format=BGRx ! " if gst.ElementFactory.find("nvvidconv") else ""
    pipeline = f"rtspsrc name=source ! application/x-rtp,media=video ! decodebin ! {bring}{SINK}"
    source: dict[str, object] = {
        "location": f"rtsp://{_address(text)}",
        "latency": text.whole("latency_ms", 0, 100),
        "protocols": _PROTOCOLS[transport],
        "drop-on-latency": True,
        "tcp-timeout": int(silence_s * 1e6),
        "timeout": int(silence_s * 1e6),
    }
    if text.options.get("user"):
        source |= {"user-id": text.options["user"], "user-pw": password or ""}
    return PipelineCamera(pipeline, {"source": source}, text, clock, silence_s)


def _address(text: SourceText) -> str:
    """Host, path, and the parameters that are the camera's own."""
    theirs = {name: value for name, value in text.options.items() if name not in OURS}
    path = text.path.removeprefix("//")
    if not path:
        raise text.refused_path("write rtsp://HOST/PATH")
    return f"{path}?{urlencode(theirs)}" if theirs else path


def _password(text: SourceText) -> str | None:
    name = text.options.get("password_file")
    if name is None:
        return None
    try:
        return Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        raise text.refused("password_file", "a file that can be read and holds the password") from None


def _why_no_gstreamer() -> str:
    try:
        load_gstreamer()
    except CaptureError as error:
        return str(error)
    return "choose backend=gstreamer"
