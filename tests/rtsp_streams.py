"""The RTSP server of `rtsp_server.py` as a child of a test, and GStreamer's binding for this interpreter."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
SYSTEM_PACKAGES = Path("/usr/lib/python3/dist-packages")
SERVER = Path(__file__).with_name("rtsp_server.py")


class Server:
    """A running server; `say` gives it an order and waits until it was heard."""

    def __init__(self, port: int = 0) -> None:
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(SERVER), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        ready = self._stdout.readline().split()
        assert ready[:1] == ["ready"], f"the RTSP server did not start: {ready}"
        self.port = int(ready[1])

    def say(self, order: str) -> None:
        self._stdin.write(order + "\n")
        self._stdin.flush()
        assert self._stdout.readline() == f"did {order}\n"

    def kill(self) -> None:
        """End it as a power cut does; twice is fine."""
        self._process.kill()
        self._process.wait(30)
        for pipe in (self._stdin, self._stdout):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def binding_folder(folder: Path) -> Path:
    """A folder for sys.path that holds the system's `gi` alone: its numpy must not stand before ours."""
    link = folder / "gi"
    if not link.exists():
        link.symlink_to(SYSTEM_PACKAGES / "gi")
    return folder


@contextlib.contextmanager
def served() -> Iterator[Server]:
    """A server on a free port."""
    server = Server()
    try:
        yield server
    finally:
        server.kill()


def lack_of_gstreamer() -> str | None:
    """Why the RTSP tests cannot run here; asked in fresh interpreters, whose crash must not be ours."""
    serve = (
        "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import Gst;"
        " Gst.init(None); assert all(Gst.ElementFactory.find(n) for n in"
        " ('x264enc', 'rtph264pay', 'rtspsrc', 'avdec_h264')), 'a plugin is missing'"
    )
    here = (
        f"import sys; sys.path.append({str(SYSTEM_PACKAGES)!r}); import gi;"
        " gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None)"
    )
    for python, code in ((SYSTEM_PYTHON, serve), (sys.executable, here)):
        try:
            done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{python} cannot be run ({error.strerror})"
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            return f"GStreamer's Python binding does not work in {python} ({last})"
    return None
