"""An RTSP server for tests: run by the system's Python, which has GStreamer's bindings.

    /usr/bin/python3 rtsp_server.py PORT

It serves a moving test picture at rtsp://127.0.0.1:PORT/live and prints `ready`. Lines on standard input:
`stall` holds the pictures back and leaves the connection, `go` lets them flow again; the end of input ends
the server. PORT 0 takes a free one, which `ready` names.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

PIPELINE = (
    "( videotestsrc is-live=true pattern=smpte ! video/x-raw,width=320,height=240,framerate=25/1"
    " ! identity name=gate ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5"
    " ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


class Gate:
    """Drops every picture while it is closed."""

    def __init__(self) -> None:
        self.closed = False

    def watch(self, _factory: object, media: GstRtspServer.RTSPMedia) -> None:
        """Stand in the stream of a media that was just made."""
        pad = media.get_element().get_by_name("gate").get_static_pad("src")
        pad.add_probe(Gst.PadProbeType.BUFFER, self._look)

    def _look(self, _pad: object, _info: object) -> Gst.PadProbeReturn:
        return Gst.PadProbeReturn.DROP if self.closed else Gst.PadProbeReturn.OK


def main() -> None:
    """Serve until the input ends."""
    Gst.init(None)
    gate, loop = Gate(), GLib.MainLoop()
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    factory.connect("media-configure", gate.watch)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(f"ready {server.get_bound_port()}", flush=True)

    def obey() -> None:
        for line in sys.stdin:
            gate.closed = line.strip() == "stall"
            print(f"did {line.strip()}", flush=True)
        loop.quit()

    threading.Thread(target=obey, daemon=True).start()
    loop.run()


if __name__ == "__main__":
    main()
