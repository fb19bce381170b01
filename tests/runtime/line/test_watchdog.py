"""What systemd hears: ready, alive only while the line moves, stopping; and nothing where it is not there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from orinspect.runtime.line.watchdog import Progress, Watchdog


class Time:
    now = 0

    def monotonic_ns(self) -> int:
        return self.now


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.setblocking(False)
        yield receiver


def _heard(systemd: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(systemd.recv(100).decode())
        except BlockingIOError:
            return messages


def test_it_is_fed_while_the_line_moves_and_no_longer(tmp_path: Path, systemd: socket.socket) -> None:
    time = Time()
    progress = Progress(time.monotonic_ns)
    watchdog = Watchdog(progress, {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    assert watchdog.period_s == 15.0
    watchdog.ready()
    progress.step(5.0)
    watchdog.feed()
    assert _heard(systemd) == ["READY=1", "WATCHDOG=1"]
    time.now = int(5.1e9)
    watchdog.feed()
    watchdog.feed()
    assert _heard(systemd) == []
    progress.step(5.0)
    watchdog.feed()
    watchdog.stopping()
    assert _heard(systemd) == ["WATCHDOG=1", "STOPPING=1"]


def test_an_abstract_socket_as_systemd_names_it(tmp_path: Path) -> None:
    name = f"orinspect-test-{tmp_path.name}-{id(tmp_path)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(20.0)
        Watchdog(Progress(Time().monotonic_ns), {"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}])
def test_without_systemd_nothing_is_said(environment: dict[str, str]) -> None:
    watchdog = Watchdog(Progress(Time().monotonic_ns), environment)
    assert watchdog.period_s is None
    watchdog.ready()
    watchdog.feed()
    watchdog.stopping()


def test_a_systemd_that_is_gone_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Watchdog(Progress(Time().monotonic_ns), {"NOTIFY_SOCKET": str(tmp_path / "none")}).ready()
    assert "READY=1" in caplog.text
