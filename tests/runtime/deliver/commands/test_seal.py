"""Who may command, when, and how often: the allow list, the secret, the window and the memory."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.config import CommandsConfig
from orinspect.runtime.deliver.commands.request import RefusedCommand, Request
from orinspect.runtime.deliver.commands.seal import Seal, SeenCommands, signature_of
from orinspect.runtime.errors import ConfigError, DeliveryError

NOW = 1_700_000_000.0
TOPIC = "plant/line/cmd/pause"
SECRET = b"0123456789abcdef"


def _request(name: str = "pause", command_id: str = "c-1", at: float = NOW, **table: Any) -> Request:
    return Request(name, command_id, at, {}, {"id": command_id, **table})


def _seal(folder: Path, **config: Any) -> Seal:
    made = CommandsConfig(allow=("pause", "state"), window_s=60.0, **config)
    return Seal(made, SeenCommands(folder / "seen", made.window_s))


def _reason(seal: Seal, request: Request, *, now: float = NOW, is_synchronised: bool = True) -> str | None:
    try:
        seal.check(request, TOPIC, unix_s=now, is_synchronised=is_synchronised)
    except RefusedCommand as refusal:
        return refusal.reason if refusal.command_id == request.id else "without its id"
    return None


def test_only_what_is_listed_is_obeyed(tmp_path: Path) -> None:
    seal = _seal(tmp_path)
    assert _reason(seal, _request("resume")) == "not_allowed"
    assert _reason(seal, _request("pause")) is None


def test_an_id_is_obeyed_once_also_after_a_restart(tmp_path: Path) -> None:
    assert _reason(_seal(tmp_path), _request()) is None
    seal = _seal(tmp_path)
    assert _reason(seal, _request()) == "replayed"
    assert _reason(seal, _request(command_id="c-2")) is None


def test_a_refused_command_may_be_sent_again(tmp_path: Path) -> None:
    seal = _seal(tmp_path)
    assert _reason(seal, _request("resume", "c-9")) == "not_allowed"
    assert _reason(seal, _request("pause", "c-9")) is None


@pytest.mark.parametrize(("off", "reason"), [(-61, "stale"), (-59, None), (59, None), (61, "stale")])
def test_the_window(tmp_path: Path, off: float, reason: str | None) -> None:
    assert _reason(_seal(tmp_path), _request(at=NOW + off)) == reason


def test_a_clock_that_nobody_set_judges_by_the_newest_command(tmp_path: Path) -> None:
    seal = _seal(tmp_path)
    in_1970: dict[str, Any] = {"now": 100.0, "is_synchronised": False}
    assert _reason(seal, _request(command_id="a", at=NOW), **in_1970) is None
    assert _reason(seal, _request(command_id="b", at=NOW - 61), **in_1970) == "stale"
    assert _reason(seal, _request(command_id="c", at=NOW - 59), **in_1970) is None
    assert _reason(seal, _request(command_id="a", at=NOW), **in_1970) == "replayed"
    assert _reason(seal, _request(command_id="d", at=NOW), now=NOW + 61, is_synchronised=False) == "stale"


def test_the_signature_is_of_topic_and_content(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(SECRET + b"\n")
    seal = _seal(tmp_path, secret_file=path)
    table: dict[str, Any] = {"id": "c-1", "arguments": {"reason": "Wartung für 1 h"}}
    good = signature_of(TOPIC, table, SECRET)
    assert _reason(seal, _request(**table | {"signature": good[:-1] + "x"})) == "bad_signature"
    assert _reason(seal, _request(**table)) == "bad_signature"
    assert _reason(seal, _request(**table | {"signature": "é"})) == "bad_signature"
    other = signature_of("plant/other/cmd/pause", table, SECRET)
    assert _reason(seal, _request(**table | {"signature": other})) == "bad_signature"
    changed = {**table, "arguments": {"reason": "x"}, "signature": good}
    assert _reason(seal, _request(**changed)) == "bad_signature"
    assert _reason(seal, _request(**table | {"signature": good})) is None
    assert _reason(seal, _request("state", "c-2")) is None  # unsigned by configuration


def test_the_signature_as_the_page_describes_it() -> None:
    """By hand: openssl dgst -sha256 -hmac 0123456789abcdef over these two lines."""
    table = {"issued_at": "2026-01-31T08:15:00Z", "id": "c-1", "arguments": {}, "signature": "x"}
    assert signature_of(TOPIC, table, SECRET) == (
        "621d9a0505e81dbf9077688140ee513594b128231cfe5be90efdfb63a29860ce"
    )


@pytest.mark.parametrize("content", [None, b"", b"short\n"])
def test_a_secret_that_is_none_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"commands\.secret_file"):
        _seal(tmp_path, secret_file=path)


def test_a_torn_line_is_left_out_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    path.write_bytes(b"1700000000.0 a\nno line\n17000")
    seen = SeenCommands(path, 60.0)
    seen.remember("b", NOW)
    again = SeenCommands(path, 60.0)
    assert "a" in again and "b" in again and "c" not in again
    assert again.newest == NOW


def test_the_memory_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "seen"
    seen = SeenCommands(path, 60.0)
    for number in range(1_000):
        seen.remember(f"c-{number}", NOW + number)
    assert len(path.read_text().splitlines()) < 400
    assert "c-999" in SeenCommands(path, 60.0) and "c-0" not in SeenCommands(path, 60.0)


def test_a_full_disk_refuses_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = _seal(tmp_path)

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeliveryError, match="No space left"):
        _reason(seal, _request())
    monkeypatch.undo()
    assert _reason(seal, _request()) is None  # it was not obeyed, so it may come again
