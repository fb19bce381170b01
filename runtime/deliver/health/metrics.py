"""The health for Prometheus: text format 0.0.4 with names that do not change, on 127.0.0.1 only.

One thread answers one request after the other, each within `TIMEOUT_S`: `GET /metrics` and nothing else.
"""

from __future__ import annotations

import io
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from ..publisher import STATES

HOST = "127.0.0.1"
ALARM = "health.metrics_not_served"
TIMEOUT_S = 2.0  # for the whole request, and again for the answer
MOST_BYTES = 4096  # of a request
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[dict[str, str], Any]

log = logging.getLogger(__name__)


class MetricsServer:
    """Answers on 127.0.0.1:`port` (0: any free one) while it is entered; a context manager.

    A port that is taken is no reason to leave parts uninspected: `alarm(code, text)` is told
    `health.metrics_not_served`, and nothing is served.
    """

    def __init__(
        self,
        port: int,
        snapshot: Callable[[], dict[str, Any]],
        alarm: Callable[[str, str | None], None] = lambda code, text: None,
    ) -> None:
        self._port, self._snapshot, self._alarm = port, snapshot, alarm
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int | None:
        """The port that it listens on; None while it does not."""
        return None if self._server is None else int(self._server.server_address[1])

    def __enter__(self) -> MetricsServer:
        try:
            self._server = _Server((HOST, self._port), _Handler)
        except OSError as error:
            text = f"health.metrics_port: {HOST}:{self._port} cannot be used ({error.strerror})"
            log.error("%s; choose another", text)
            self._alarm(ALARM, text)
            return self
        self._server.snapshot = self._snapshot
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(2 * TIMEOUT_S + 1)
            self._server = None


class _Server(socketserver.TCPServer):
    """One request at a time; whoever waits longer than the queue is refused by the kernel."""

    allow_reuse_address = True
    request_queue_size = 5
    snapshot: Callable[[], dict[str, Any]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that breaks off is no fault of ours."""
        log.debug("a request of metrics was broken off", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """`GET /metrics`; 404 for another path, 405 for another method, 431 for too much."""

    server: _Server
    server_version, sys_version = "orinspect", ""
    timeout = TIMEOUT_S

    def setup(self) -> None:
        """Read the whole head first, under one deadline: http.server would wait for every line anew."""
        super().setup()
        head = _head(self.connection)
        if b"\r\n\r\n" not in head and len(head) >= MOST_BYTES:
            self.connection.sendall(b"HTTP/1.0 431 Request Header Fields Too Large\r\n\r\n")
            head = b""
        self.rfile = io.BufferedReader(io.BytesIO(head if b"\r\n\r\n" in head else b""))

    def do_GET(self) -> None:
        """The metrics."""
        if self.path != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            body = text_from_snapshot(self.server.snapshot()).encode()
        except Exception:
            log.exception("the metrics cannot be given")
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def __getattr__(self, name: str) -> Any:
        """Any other method is refused, also one that does not exist yet."""
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line each."""

    def _refuse(self) -> None:
        self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)


def _head(connection: socket.socket) -> bytes:
    """What comes until the empty line, `MOST_BYTES` or `TIMEOUT_S`."""
    until = time.monotonic() + TIMEOUT_S
    head = b""
    while b"\r\n\r\n" not in head and len(head) < MOST_BYTES and (left_s := until - time.monotonic()) > 0:
        connection.settimeout(left_s)
        try:
            piece = connection.recv(MOST_BYTES - len(head))
        except OSError:
            break
        if not piece:
            break
        head += piece
    connection.settimeout(TIMEOUT_S)
    return head


def text_from_snapshot(health: dict[str, Any]) -> str:
    """The snapshot of `Health` as metrics; what is null is left out."""
    lines = []
    for name, kind, what, samples in _families(health):
        told = [(labels, value) for labels, value in samples if value is not None]
        if told:
            lines += [f"# HELP orinspect_{name} {what}", f"# TYPE orinspect_{name} {kind}"]
            lines += [f"orinspect_{name}{_labels(labels)} {float(value):.15g}" for labels, value in told]
    return "\n".join(lines) + "\n"


def _families(health: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    """(name, type, help, samples) of all metrics. Names are a contract: add, never rename."""
    names = {key: health[key] for key in ("device_id", "station_id")}
    versions = {"version": health["versions"]["orinspect"]}
    yield "info", "gauge", "Names and version of the station.", [({**names, **versions}, 1)]
    yield "uptime_seconds", "gauge", "Since the service was started.", [({}, health["uptime_s"])]
    states: list[Sample] = [({"state": state}, int(state == health["state"])) for state in STATES]
    yield "state", "gauge", "1 for the state that the station is in.", states
    alarms: list[Sample] = [({"code": alarm["code"]}, 1) for alarm in health["alarms"]]
    yield "alarm", "gauge", "1 for every alarm that stands.", alarms
    synchronised = int(health["clock"]["synchronised"])
    yield "clock_synchronised", "gauge", "1 while the wall time can be trusted.", [({}, synchronised)]
    yield "results_total", "counter", "Results by verdict.", _results(health["results"])
    age_s = health["last_result_age_s"]
    yield "last_result_age_seconds", "gauge", "Since the last result was committed.", [({}, age_s)]
    outbox = dict(health["outbox"] or {})
    oldest_s = outbox.pop("oldest_waiting_s", None)
    yield "outbox_rows", "gauge", "Rows of the outbox by state.", _by("state", outbox)
    yield "outbox_oldest_waiting_seconds", "gauge", "Age of the oldest report not sent.", [({}, oldest_s)]
    yield from _evidence_families(health["evidence"] or {})
    for key, what in (("free_bytes", "Free bytes"), ("size_bytes", "All bytes")):
        disks = {purpose: disk[key] for purpose, disk in health["disks"].items()}
        yield f"disk_{key}", "gauge", f"{what} of the disk by what it is used for.", _by("purpose", disks)
    process = health["process"]
    rss = process["rss_bytes"]
    yield "resident_memory_bytes", "gauge", "Of the service without its children.", [({}, rss)]
    yield "threads", "gauge", "Of the service.", [({}, process["threads"])]
    yield "open_descriptors", "gauge", "Of the service.", [({}, process["descriptors"])]
    yield "temperature_celsius", "gauge", "By sensor.", _by("sensor", health["temperatures_c"] or {})
    watts = {rail: value / 1000 for rail, value in (health["power_mw"] or {}).items()}
    yield "power_watts", "gauge", "By rail.", _by("rail", watts)
    yield "audit_lines_total", "counter", "Lines of the audit.", [({}, (health["audit"] or {}).get("n"))]


def _results(results: dict[str, Any] | None) -> list[Sample]:
    samples: list[Sample] = []
    if results is not None:
        real = {name: value for name, value in results.items() if name != "simulated"}
        for simulated, found in (("false", real), ("true", results["simulated"])):
            samples += [({"verdict": name, "simulated": simulated}, value) for name, value in found.items()]
    return samples


def _evidence_families(evidence: dict[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    kept = {name: found for name, found in evidence.items() if isinstance(found, dict)}
    for key, what in (("sets", "Sets of pictures"), ("bytes", "Bytes of pictures")):
        values = {name: found[key] for name, found in kept.items()}
        yield f"evidence_{key}", "gauge", f"{what} that are kept.", _by("disposition", values)
    yield "evidence_written_total", "counter", "Sets written.", [({}, evidence.get("written"))]
    dropped = {name[8:]: value for name, value in evidence.items() if name.startswith("dropped_")}
    yield "evidence_dropped_total", "counter", "Sets not written, by reason.", _by("reason", dropped)


def _by(label: str, values: dict[str, Any]) -> list[Sample]:
    return [({label: name}, value) for name, value in values.items()]


def _labels(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
