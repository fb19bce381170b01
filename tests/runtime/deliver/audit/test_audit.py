"""The audit: a chain that continues over restarts and rotations, and faults that stay visible."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.cli import main
from orinspect.runtime.config import AuditConfig
from orinspect.runtime.deliver.audit.chain import GENESIS, Verification, files_of, verified
from orinspect.runtime.deliver.audit.journal import MOST_WAITING, Audit
from orinspect.runtime.errors import DeliveryError
from orinspect.tests.brokers import WAIT_S
from orinspect.tests.stepped_clock import SteppedClock


def _audit(folder: Path, **arguments: Any) -> Audit:
    sizes = {name: arguments.pop(name) for name in ("file_bytes", "keep_files") if name in arguments}
    return Audit(AuditConfig(folder, **sizes), boot_id="boot", clock=SteppedClock(), **arguments)


def _written(folder: Path, count: int = 5, **arguments: Any) -> Path:
    with _audit(folder, **arguments) as audit:
        for number in range(count):
            assert audit.write("command", name="pause", number=number)
    return folder


def _verified(folder: Path) -> Verification:
    return verified(files_of(folder))


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in files_of(folder) for line in path.read_bytes().splitlines()]


def _events(folder: Path) -> list[str]:
    return [record["event"] for record in _records(folder)]


def test_lines_continue_over_a_restart(tmp_path: Path) -> None:
    _written(tmp_path)
    with _audit(tmp_path) as audit:
        assert audit.head.n == 5
        audit.write("stop", reason="é\n\ud800", big=10**30, bad=float("inf"))
        head = audit.head
    found = _verified(tmp_path)
    assert (found.broken, found.lines, found.end, found.first_n) == (None, 6, head, 1)
    last = _records(tmp_path)[-1]
    assert last["facts"] == {"reason": "é\n\ud800", "big": 10**30, "bad": "inf"}
    assert (last["at"], last["clock_synchronised"]) == ("2026-01-01T00:00:00.000Z", True)
    assert _records(tmp_path)[0]["previous"] == GENESIS


def test_rotation_carries_the_chain_and_old_files_go_visibly(tmp_path: Path) -> None:
    _written(tmp_path, 60, file_bytes=4096, keep_files=100)
    files = files_of(tmp_path)
    assert len(files) > 3
    assert _verified(tmp_path).broken is None
    assert all(path.stat().st_size < 5000 for path in files)
    _written(tmp_path, 60, file_bytes=4096, keep_files=2)
    found = _verified(tmp_path)
    assert len(files_of(tmp_path)) == 2
    assert found.broken is None
    assert found.first_n > 1
    assert "files_removed" in _events(tmp_path)


def _changed(lines: list[bytes], how: str) -> list[bytes]:
    if how == "a fact":
        return [*lines[:2], lines[2].replace(b'"number":2', b'"number":7'), *lines[3:]]
    if how == "a space":
        return [*lines[:2], lines[2].replace(b'":', b'": ', 1), *lines[3:]]
    if how == "a line removed":
        return lines[:2] + lines[3:]
    if how == "two lines swapped":
        return [*lines[:2], lines[3], lines[2], lines[4]]
    if how == "a line twice":
        return [*lines[:2], lines[1], *lines[2:]]
    if how == "garbage":
        return [*lines[:2], b"\x00\xff\n", *lines[2:]]
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["a fact", "a space", "a line removed", "two lines swapped", "a line twice", "garbage"]
)
def test_the_first_broken_line_is_named(
    tmp_path: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = files_of(_written(tmp_path))
    assert main(["audit", "verify", str(tmp_path)]) == 0
    assert "5 lines in 1 files hold" in capsys.readouterr().out
    path.write_bytes(b"".join(_changed(path.read_bytes().splitlines(keepends=True), how)))
    for place in (path, tmp_path):
        assert main(["audit", "verify", str(place)]) == 1
        said = capsys.readouterr().out
        assert f"BROKEN: {path.name}, line 3:" in said
        assert "being written" not in said


def test_a_changed_last_line_is_broken_and_not_called_unfinished(tmp_path: Path) -> None:
    (path,) = files_of(_written(tmp_path))
    path.write_bytes(path.read_bytes().replace(b'"number":4', b'"number":9'))
    found = _verified(tmp_path)
    assert found.broken is not None
    assert found.broken.line == 5


def test_a_missing_file_in_the_middle_is_broken(tmp_path: Path) -> None:
    files = files_of(_written(tmp_path, 60, file_bytes=4096))
    files[1].unlink()
    broken = _verified(tmp_path).broken
    assert broken is not None
    assert (broken.file, broken.line) == (files[2].name, 1)


def _cuts(start: int, end: int) -> list[int]:
    """Every 11th byte, and each of the last of either line."""
    return [cut for cut in range(start, end) if cut % 11 == 0 or cut > end - 5 or cut < start + 3]


@pytest.fixture
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of contents with hundreds of lines; that write calls it is seen elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.usefixtures("_no_fsync")
def test_every_power_cut_within_a_line_is_repaired_visibly(tmp_path: Path) -> None:
    """The file cut within its last line, and again within what the repair wrote."""
    (path,) = files_of(_written(tmp_path, 3))
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for cut in _cuts(start + 1, len(whole)):
        path.write_bytes(whole[:cut])
        assert _verified(tmp_path).broken is None, "a line being written is no fault"
        with _audit(tmp_path) as audit:
            audit.write("start")
        found = _verified(tmp_path)
        assert found.broken is None
        if cut == len(whole) - 1:  # only the line break was missing: the line itself was whole
            assert _events(tmp_path)[-2:] == ["command", "start"]
        else:
            assert (found.torn, found.lines) == (1, 4)
    repaired = path.read_bytes()
    path.write_bytes(whole[: start + 20])
    _written(tmp_path, 1)
    repaired = path.read_bytes()
    for cut in _cuts(start + 20, len(repaired)):
        path.write_bytes(repaired[:cut])
        _written(tmp_path, 1)
        assert _verified(tmp_path).broken is None, cut


def test_zeros_behind_the_last_line_are_owned_up_to(tmp_path: Path) -> None:
    (path,) = files_of(_written(tmp_path, 3))
    with path.open("ab") as file:
        file.write(bytes(300))
    _written(tmp_path, 1)
    found = _verified(tmp_path)
    assert (found.broken, found.torn, found.lines) == (None, 1, 5)


def test_the_first_line_of_all_torn_and_a_file_that_stayed_empty(tmp_path: Path) -> None:
    (path,) = files_of(_written(tmp_path, 1))
    path.write_bytes(path.read_bytes()[:30])
    _written(tmp_path, 1)
    assert _verified(tmp_path).lines == 2
    (tmp_path / "audit-000000000003.jsonl").touch()
    _written(tmp_path, 1)
    found = _verified(tmp_path)
    assert (found.broken, found.lines, found.files) == (None, 3, 2)


def test_a_changed_file_does_not_stop_the_writer_and_stays_broken(tmp_path: Path) -> None:
    (path,) = files_of(_written(tmp_path))
    path.write_bytes(path.read_bytes().replace(b'"number":2', b'"number":7'))
    _written(tmp_path, 1)
    assert len(files_of(tmp_path)) == 2
    record = json.loads(files_of(tmp_path)[1].read_bytes().splitlines()[0])
    assert (record["event"], record["facts"]["line"]) == ("chain_broken", 3)
    broken = _verified(tmp_path).broken
    assert broken is not None
    assert (broken.file, broken.line) == (path.name, 3)


@contextlib.contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow beyond `size`, in the middle of a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_disk_that_refuses_delays_lines_and_loses_none(tmp_path: Path) -> None:
    alarms: list[tuple[str, str | None]] = []
    with _audit(tmp_path, alarm=lambda code, text: alarms.append((code, text))) as audit:
        assert audit.write("start")
        (path,) = files_of(tmp_path)
        with _files_of_at_most(path.stat().st_size + 100):  # the next line is torn, as on a full disk
            assert not audit.write("pause")
            assert not audit.write("resume")
            assert "audit" in str(audit.problem)
        assert [code for code, _ in alarms] == ["audit.not_written"]
        assert audit.write("stop")
        assert str(audit.problem) == "None"
    assert _verified(tmp_path).broken is None
    assert alarms[-1] == ("audit.not_written", None)
    raw = path.read_bytes().splitlines()
    whole = [json.loads(line)["event"] for line in raw if line.endswith(b"}")]
    assert whole == ["start", "torn_line", "pause", "resume", "stop"]


@pytest.mark.usefixtures("_no_fsync")
def test_what_does_not_fit_into_memory_is_counted(tmp_path: Path) -> None:
    blocked = tmp_path / "folder"
    blocked.write_text("a file where the folder should be")
    with _audit(blocked) as audit:
        for _ in range(MOST_WAITING + 7):
            assert not audit.write("alarm")
        blocked.unlink()
        assert audit.flush()
    assert _records(blocked)[-1]["facts"] == {"count": 7}
    assert _verified(blocked).lines == MOST_WAITING + 1


def test_a_line_is_on_disk_before_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    with _audit(tmp_path) as audit:
        (path,) = files_of(tmp_path)

        def fsync(descriptor: int, real: Any = os.fsync) -> None:
            real(descriptor)
            synced.append(os.fstat(descriptor).st_size)

        monkeypatch.setattr(os, "fsync", fsync)
        audit.write("start")
        assert synced == [path.stat().st_size]


def test_long_texts_are_cut(tmp_path: Path) -> None:
    with _audit(tmp_path) as audit:
        long = {"list": ["y" * 5000] * 500}
        audit.write("command", payload="x" * 10**6, nested=long, config=AuditConfig(tmp_path))
    (record,) = _records(tmp_path)
    assert len(record["facts"]["payload"]) < 2100
    assert len(record["facts"]["nested"]["list"]) == 100
    assert record["facts"]["config"]["keep_files"] == 256


def test_two_writers_are_refused(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from orinspect.runtime.config import AuditConfig\n"
        "from orinspect.runtime.deliver.audit.journal import Audit\n"
        "from orinspect.tests.stepped_clock import SteppedClock\n"
        "Audit(AuditConfig(Path(sys.argv[1])), boot_id='b', clock=SteppedClock())\n"
    )
    with _audit(tmp_path):
        found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "written by another orinspect" in found.stderr
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0
    with _audit(tmp_path), pytest.raises(DeliveryError, match="another orinspect"):
        _audit(tmp_path)


def test_lines_of_several_threads_are_one_chain(tmp_path: Path) -> None:
    with _audit(tmp_path, file_bytes=4096) as audit:

        def work() -> None:
            for number in range(10):
                audit.write("command", number=number)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert _verified(tmp_path).broken is None
    assert _events(tmp_path).count("command") == 40


KILLED = """
import sys
from pathlib import Path
from orinspect.runtime.config import AuditConfig
from orinspect.runtime.deliver.audit.journal import Audit
from orinspect.tests.stepped_clock import SteppedClock
with Audit(AuditConfig(Path(sys.argv[1]), file_bytes=4096), boot_id="b", clock=SteppedClock()) as audit:
    while True:
        audit.write("command")
        print(audit.head.n, flush=True)
"""


def test_kill_9_loses_no_line_that_write_returned_for(tmp_path: Path) -> None:
    last = 0
    for lines in (3, 30, 17):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            last = int(process.stdout.readline())
        process.kill()
        for line in process.stdout:
            last = int(line) if line.endswith("\n") else last
        process.stdout.close()
        process.wait(WAIT_S)
        found = _verified(tmp_path)
        assert found.broken is None
        assert found.end.n >= last


def test_an_anchor_shows_that_the_whole_chain_was_written_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a chain alone cannot show: whoever may write the folder can write another whole chain."""
    with _audit(tmp_path / "true") as audit:
        audit.write("bundle_activated", id="bad")
        anchor = audit.head.hash
        audit.write("stop")
    _written(tmp_path / "forged", 2)
    for folder, code, says in (("true", 0, "is line 1"), ("forged", 1, "is NOT in it")):
        assert main(["audit", "verify", str(tmp_path / folder)]) == 0
        assert main(["audit", "verify", str(tmp_path / folder), "--anchor", anchor]) == code
        assert says in capsys.readouterr().out
    assert main(["audit", "verify", str(tmp_path / "true"), "--anchor", anchor, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert (table["holds"], table["anchor_n"], table["lines"], table["broken"]) == (True, 1, 2, None)


def test_verify_refuses_what_is_no_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in (tmp_path / "missing", tmp_path):
        assert main(["audit", "verify", str(place)]) == 2
        assert str(place) in capsys.readouterr().err
