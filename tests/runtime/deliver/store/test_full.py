"""A full disk, a read-only one, bounds of our own: what gives way, what never does, and what is counted."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from orinspect.runtime.deliver.outbox import (
    Bounds,
    Gap,
    Level,
    Outbox,
    OutboxFaultError,
    OutboxFullError,
)
from orinspect.runtime.errors import DeliveryError

MIB = 1024 * 1024
ROOMY = Bounds(most_rows=1000, most_bytes=64 * MIB, least_free_bytes=0, reserve_bytes=2 * MIB)


def _accept(outbox: Outbox, number: int) -> int:
    return outbox.accept(f"r{number}", "boot", "cam", number, "{}")


def _commit(outbox: Outbox, number: int, size: int = 100) -> None:
    _accept(outbox, number)
    outbox.commit(f"r{number}", json.dumps({"n": number, "text": "x" * size}))


class Evidence:
    """Files that may go, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, list[int]()

    def fill(self, count: int, size: int) -> None:
        for number in range(count):
            (self.folder / f"{number}.png").write_bytes(os.urandom(size))

    def release(self, bytes_wanted: int) -> int:
        self.asked.append(bytes_wanted)
        released = 0
        for file in sorted(self.folder.glob("*.png")):
            if released >= bytes_wanted:
                break
            released += file.stat().st_size
            file.unlink()
        return released


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; only root may mount one."""
    place = folder / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], check=False)
    if done.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        yield place
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        subprocess.run(["umount", str(place)], check=True)


def _remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True)


def test_beyond_its_rows_parts_are_counted_and_a_report_stands_for_them(tmp_path: Path) -> None:
    levels: list[Level] = []
    bounds = Bounds(most_rows=20, reserve_bytes=4096)
    with Outbox(
        tmp_path / "o.sqlite", bounds=bounds, on_level=lambda level, why: levels.append(level)
    ) as outbox:
        for number in range(1, 21):
            _commit(outbox, number)
        for number in range(21, 24):
            with pytest.raises(OutboxFullError, match="most_rows is 20"):
                _accept(outbox, number)
        assert levels == ["full"]
        assert outbox.gaps() == (), "it still grows"
        assert outbox.counts()["committed"] == 20
        outbox.mark_published(*(f"r{number}" for number in range(1, 11)))
        assert _accept(outbox, 24) == 24
        assert levels == ["full", "ok"]
        (gap,) = outbox.gaps()
        assert (gap.boot_id, gap.first, gap.last, gap.reason) == ("boot", 21, 23, "not_inspected.outbox_full")
        outbox.commit_gap(gap, "g1", "boot", lambda sequence: json.dumps({"sequence": sequence}))
        assert outbox.waiting(99)[-1].payload == '{"sequence": 25}'
        with pytest.raises(DeliveryError, match="not written twice"):
            outbox.commit_gap(gap, "g2", "boot", lambda sequence: "{}")
        assert outbox.gaps() == ()
        assert _accept(outbox, 26) == 26


def test_a_gap_that_a_restart_closed_is_still_there(tmp_path: Path) -> None:
    path, bounds = tmp_path / "o.sqlite", Bounds(most_rows=10, reserve_bytes=4096)
    with Outbox(path, bounds=bounds) as outbox:
        for number in range(1, 11):
            _commit(outbox, number)
        for number in (11, 12):
            with pytest.raises(OutboxFullError):
                _accept(outbox, number)
    with Outbox(path, bounds=bounds) as outbox:
        assert [(gap.first, gap.last) for gap in outbox.gaps()] == [(11, 12)]
        with pytest.raises(OutboxFullError):
            _accept(outbox, 13)
        outbox.mark_published(*(f"r{number}" for number in range(1, 11)))
        assert _accept(outbox, 14) == 14
        assert [(gap.first, gap.last) for gap in outbox.gaps()] == [(11, 12), (13, 13)]


def test_beyond_its_bytes_confirmed_reports_go_first_and_then_those_without_an_ack(tmp_path: Path) -> None:
    bounds = Bounds(most_bytes=2 * MIB, least_free_bytes=0, reserve_bytes=4096)
    with Outbox(tmp_path / "o.sqlite", bounds=bounds) as outbox:
        for number in range(1, 101):
            _commit(outbox, number, 10_000)
            outbox.mark_published(f"r{number}", due=5 if number % 2 else None)
        for number in range(101, 301):
            with contextlib.suppress(OutboxFullError):
                _commit(outbox, number, 10_000)
        counts = outbox.counts()
        assert outbox.level == "full"
        assert counts["published"] == 0, "they gave way"
        assert counts["committed"] > 100, "no report that nobody confirmed did"
        assert outbox.first_due() is None


def test_on_a_full_disk_evidence_goes_first_and_no_result_is_lost(tmp_path: Path) -> None:
    with _small_disk(tmp_path, "12m") as place:
        evidence = Evidence(place)
        with Outbox(place / "o.sqlite", bounds=ROOMY, evidence=evidence) as outbox:
            evidence.fill(20, 300_000)
            committed = 0
            for number in range(1, 900):
                try:
                    _commit(outbox, number, 20_000)
                except OutboxFullError:
                    break
                committed += 1
            assert not list(place.glob("*.png")), "all of it went before a part was refused"
            assert evidence.asked
            assert outbox.level == "full"
            assert outbox.counts()["committed"] == committed
            for number in range(1500, 1520):
                with pytest.raises(OutboxFullError):
                    _accept(outbox, number)
            outbox.mark_published(*(row.result_id for row in outbox.waiting(20)))
            assert outbox.counts()["published"] + outbox.counts()["committed"] == committed
        with Outbox(place / "o.sqlite", bounds=ROOMY) as outbox:  # after a restart, too
            (gap,) = outbox.gaps()
            assert gap.last - gap.first + 1 == 21
            rows = outbox.waiting(999)
            assert len(rows) == committed - 20
            assert all(len(row.payload) > 20_000 for row in rows)


def test_the_reserve_carries_the_counting_when_others_take_every_byte(tmp_path: Path) -> None:
    with _small_disk(tmp_path, "12m") as place:
        levels: list[Level] = []
        with Outbox(
            place / "o.sqlite", bounds=ROOMY, on_level=lambda level, why: levels.append(level)
        ) as outbox:
            _commit(outbox, 1)
            _accept(outbox, 2)
            with contextlib.suppress(OSError), (place / "hog").open("wb", buffering=0) as hog:
                while True:
                    hog.write(bytes(4096))
            with pytest.raises(OutboxFullError):
                _accept(outbox, 3)
            outbox.commit("r2", json.dumps({"text": "y" * 30_000}))  # an accepted part gets its report
            for number in range(4, 200):
                with pytest.raises(OutboxFullError):
                    _accept(outbox, number)
            assert levels == ["full"]
            assert [row.result_id for row in outbox.waiting(9)] == ["r1", "r2"]
            (place / "hog").unlink()
            assert _accept(outbox, 200) == 200
            assert levels == ["full", "ok"]
            assert [(gap.first, gap.last) for gap in outbox.gaps()] == [(3, 199)]
            assert (place / "o.sqlite.reserve").stat().st_size == ROOMY.reserve_bytes


def test_a_disk_that_becomes_read_only_is_a_fault_and_recovers_by_itself(tmp_path: Path) -> None:
    """SQLite's own word for it: a file system with open files cannot be remounted read-only on demand."""
    levels: list[Level] = []
    with Outbox(
        tmp_path / "o.sqlite", bounds=ROOMY, on_level=lambda level, why: levels.append(level)
    ) as outbox:
        for number in (1, 2):
            _commit(outbox, number)
        outbox._file._connection.execute("PRAGMA query_only = 1")
        for number in (3, 4, 5):
            with pytest.raises(OutboxFaultError, match="stop the line"):
                _accept(outbox, number)
        assert levels == ["fault"]
        assert len(outbox.waiting(9)) == 2, "what is there can still be read"
        with pytest.raises(DeliveryError):
            outbox.mark_published("r1")
        assert outbox.counts()["committed"] == 2
        outbox._file._connection.execute("PRAGMA query_only = 0")
        assert _accept(outbox, 6) == 6
        assert levels == ["fault", "ok"]
        (gap,) = outbox.gaps()
        assert gap == Gap(gap.number, "boot", 3, 5, "not_inspected.outbox_full", gap.why)
        outbox.mark_published("r1")
        assert outbox.counts()["published"] == 1


def test_an_outbox_on_a_read_only_disk_is_one_sentence(tmp_path: Path) -> None:
    with _small_disk(tmp_path, "8m") as place:
        with Outbox(place / "o.sqlite", bounds=ROOMY) as outbox:
            _commit(outbox, 1)
        _remount(place, "ro")
        with pytest.raises(DeliveryError, match="Read-only"):
            Outbox(place / "o.sqlite", bounds=ROOMY)
        _remount(place, "rw")
        with Outbox(place / "o.sqlite", bounds=ROOMY) as outbox:
            assert [row.result_id for row in outbox.waiting(9)] == ["r1"]
