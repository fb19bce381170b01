"""The metrics over a real socket: one path, one method, little patience."""

from __future__ import annotations

import http.client
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.deliver.health import metrics as module
from orinspect.runtime.deliver.health.metrics import HOST, MetricsServer, text_from_snapshot
from orinspect.tests.healthy_station import HealthyStation, Meter

LABEL = r'[a-z_]+="([^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"orinspect_[a-z_]+(\{{{LABEL}(,{LABEL})*\}})? \S+")
NAMES = {
    "info", "uptime_seconds", "state", "alarm", "clock_synchronised", "results_total",
    "last_result_age_seconds", "outbox_rows", "outbox_oldest_waiting_seconds", "evidence_sets",
    "evidence_bytes", "evidence_written_total", "evidence_dropped_total", "disk_free_bytes",
    "disk_size_bytes", "resident_memory_bytes", "threads", "open_descriptors", "temperature_celsius",
    "power_watts", "audit_lines_total",
}  # fmt: skip


@pytest.fixture
def snapshot(tmp_path: Path) -> dict[str, Any]:
    """A full one."""
    station = HealthyStation(tmp_path)
    with station.outbox, station.statistics:
        station.commit()
        station.alarms = {'odd"\\\ncode': "text"}
        found = station.health(power=Meter()).snapshot()
    found["evidence"] = {
        "written": 4, "dropped_queue_full": 1, "dropped_not_written": 2,
        **{name: {"sets": 1, "bytes": 2} for name in ("reject", "review", "pass")},
    }  # fmt: skip
    return {**found, "audit": {"n": 7, "head": "a" * 64}}


@pytest.fixture
def server(snapshot: dict[str, Any]) -> Iterator[MetricsServer]:
    with MetricsServer(0, lambda: snapshot) as made:
        yield made


def _get(server: MetricsServer, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(HOST, server.port or 0, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_values_are_those_of_the_snapshot_under_stable_names(
    server: MetricsServer, snapshot: dict[str, Any]
) -> None:
    status, text = _get(server)
    assert status == 200
    assert text == text_from_snapshot(snapshot)
    lines = text.splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert {name.removeprefix("orinspect_") for name in types} == NAMES
    assert all(line.startswith("# ") or SAMPLE.fullmatch(line) for line in lines)
    assert 'orinspect_results_total{verdict="reject",simulated="true"} 1' in lines
    assert 'orinspect_state{state="ready"} 1' in lines
    assert 'orinspect_state{state="fault"} 0' in lines
    assert 'orinspect_power_watts{rail="VDD_IN"} 9.12' in lines
    assert 'orinspect_outbox_rows{state="committed"} 1' in lines
    assert 'orinspect_evidence_dropped_total{reason="queue_full"} 1' in lines
    assert 'orinspect_alarm{code="odd\\"\\\\\\ncode"} 1' in lines
    assert "orinspect_audit_lines_total 7" in lines


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics?x=1", "/../metrics", "/favicon.ico"])
def test_another_path_is_not_found(server: MetricsServer, path: str) -> None:
    assert _get(server, path=path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "BREW"])
def test_another_method_is_refused(server: MetricsServer, method: str) -> None:
    assert _get(server, method)[0] == 405
    assert _get(server)[0] == 200


def test_it_listens_on_this_machine_only(server: MetricsServer) -> None:
    assert server._server is not None
    assert server._server.server_address[0] == "127.0.0.1"


def _raw(server: MetricsServer, request: bytes) -> bytes:
    with socket.create_connection((HOST, server.port or 0), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while piece := connection.recv(4096):
                answer += piece
        except ConnectionResetError:  # it did not read all that we sent
            pass
        return answer


@pytest.mark.parametrize("request_", [b"", b"GET", b"\x00\xff\r\n\r\n", b"GET /metrics\r\n", b"\r\n\r\n"])
def test_what_is_no_request_gets_no_metrics_and_stops_nothing(server: MetricsServer, request_: bytes) -> None:
    assert b"orinspect_" not in _raw(server, request_)
    assert _get(server)[0] == 200


def test_a_request_that_is_too_large_is_refused(server: MetricsServer) -> None:
    answer = _raw(server, b"GET /metrics HTTP/1.0\r\nX: " + b"a" * 5000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 431") or answer == b""
    assert b"orinspect_" not in answer


def test_a_slow_client_is_cut_off_and_the_next_is_served(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sends a byte whenever it is about to be given up; the deadline is the whole request's."""
    monkeypatch.setattr(module, "TIMEOUT_S", 0.3)
    with socket.create_connection((HOST, server.port or 0), timeout=10) as slow:
        slow.sendall(b"GET /metrics HTTP/1.0\r\nX-Slow: ")
        begun = time.monotonic()
        assert _get(server)[0] == 200, "served after the slow one was cut off"
        assert time.monotonic() - begun < 5
        slow.settimeout(5)
        assert b"orinspect_" not in slow.recv(4096)


def test_a_snapshot_that_fails_is_503(snapshot: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with MetricsServer(0, dict) as server:
        status, text = _get(server)
    assert status == 503
    assert "KeyError" not in text
    assert "KeyError" in caplog.text


def test_a_port_that_is_taken_is_an_alarm_and_no_error(server: MetricsServer) -> None:
    alarms: list[tuple[str, str | None]] = []
    assert server.port is not None
    with MetricsServer(server.port, dict, lambda *each: alarms.append(each)) as second:
        assert second.port is None
    assert [code for code, _ in alarms] == ["health.metrics_not_served"]
    assert f"127.0.0.1:{server.port}" in str(alarms[0][1])
    assert _get(server)[0] == 200
