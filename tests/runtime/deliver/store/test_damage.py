"""Wrong bytes anywhere in the outbox: it comes up, nothing is forged, and what is missing is said."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect.runtime.deliver.outbox import Outbox, Rescue
from orinspect.runtime.deliver.store.carve import CarvedKey, CarvedRow, rows_in
from orinspect.runtime.errors import DeliveryError

PARTS = 40


def _report(number: int) -> str:
    return json.dumps({"result_id": f"r{number}", "text": f"{number}-" * (number * 40)})


def _fill(path: Path) -> None:
    """Twenty published, nineteen waiting, one accepted; the last of it in the write-ahead log only."""
    with Outbox(path) as outbox:
        for number in range(1, PARTS):
            outbox.accept(f"r{number}", "boot", "cam", number, "{}", f"k{number}")
            outbox.commit(f"r{number}", _report(number))
            if number == 30:
                with sqlite3.connect(path) as other:  # so that both files matter
                    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                other.close()
        outbox.mark_published(*(f"r{number}" for number in range(1, 21)))
        outbox.accept(f"r{PARTS}", "boot", "cam", PARTS, "{}")
        for name in ("", "-wal", ".mark"):
            shutil.copy(f"{path}{name}", f"{path}.copy{name}")


def _copy(source: Path, folder: Path, change: Callable[[bytearray, bytearray], None]) -> Path:
    """The files of a killed process, with other bytes in the database and in its log."""
    folder.mkdir()
    path = folder / "o.sqlite"
    database = bytearray(Path(f"{source}.copy").read_bytes())
    log = bytearray(Path(f"{source}.copy-wal").read_bytes())
    change(database, log)
    path.write_bytes(database)
    Path(f"{path}-wal").write_bytes(log)
    shutil.copy(f"{source}.copy.mark", f"{path}.mark")
    return path


def _check(path: Path) -> tuple[int, list[tuple[Rescue, str]]]:
    """What must hold whatever was damaged; how many waiting reports survived, and the rescues."""
    rescues: list[tuple[Rescue, str]] = []
    with Outbox(path, on_rescue=lambda done, why: rescues.append((done, why))) as outbox:
        waiting = outbox.waiting(2 * PARTS)
        for row in waiting:
            assert row.payload == _report(int(row.result_id[1:])), "a report is not what was written"
        waiting = outbox.waiting(2 * PARTS)  # a wrong report was found while reading: now they are all whole
        known = {row.sequence for row in outbox.abandoned()}
        gaps = outbox.gaps()
        for gap in gaps:
            known |= set(range(gap.first, gap.last + 1))
        with outbox._atomic() as connection:
            known |= {row[0] for row in connection.execute("SELECT sequence FROM result")}
        assert known >= set(range(1, PARTS + 1)), "a sequence is neither there nor said to be missing"
        if rescues:
            assert not outbox.abandoned(), "a second report under its id could contradict the first"
            assert any("damaged" in gap.reason for gap in gaps)
        sequence = outbox.accept("new", "boot", "cam", PARTS + 1, "{}")
        assert sequence == PARTS + 1, "no sequence twice, and none left out"
        outbox.commit("new", "{}")
        for gap in gaps:
            outbox.commit_gap(gap, f"gap-{gap.number}", "boot", lambda sequence: json.dumps(sequence))
        assert outbox.gaps() == ()
        assert "new" in [row.result_id for row in outbox.waiting(2 * PARTS)]
    with Outbox(path) as outbox:
        assert outbox.rescued == 0
    return len(waiting), rescues


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outbox") / "o.sqlite"
    _fill(path)
    return path


def test_without_damage_nothing_happens(source: Path, tmp_path: Path) -> None:
    path = _copy(source, tmp_path / "a", lambda database, log: None)
    with Outbox(path) as outbox:
        assert outbox.rescued == 0
        assert len(outbox.waiting(99)) == 19
        assert [row.sequence for row in outbox.abandoned()] == [PARTS]
        assert outbox.gaps() == ()
    assert not list(path.parent.glob("*damaged*"))


@pytest.mark.parametrize("seed", range(60))
def test_random_bytes(source: Path, tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)

    def change(database: bytearray, log: bytearray) -> None:
        for _ in range(draw.choice((1, 1, 8, 64))):
            target = database if draw.random() < 0.7 else log
            target[draw.randrange(len(target))] = draw.randrange(256)

    _check(_copy(source, tmp_path / "a", change))


@pytest.mark.parametrize("start", [0, 18, 60, 68, 96, 100, 4096])
def test_a_header_or_a_root_page_costs_no_report(source: Path, tmp_path: Path, start: int) -> None:
    def change(database: bytearray, log: bytearray) -> None:
        database[start : start + 40] = bytes(byte ^ 0xA5 for byte in database[start : start + 40])
        log.clear()  # it holds a good copy of these pages

    survived, rescues = _check(_copy(source, tmp_path / "a", change))
    assert survived >= 10, "of the ten that stood in the file"
    with Outbox(tmp_path / "a" / "o.sqlite") as outbox:
        assert outbox.accepted_keys("cam") == {f"k{number}" for number in range(1, 31)}
    ((done, why),) = rescues
    assert done.moved_to.exists()
    assert why


def test_a_log_that_sqlite_would_cut_off_silently_is_read_all_the_same(source: Path, tmp_path: Path) -> None:
    def change(database: bytearray, log: bytearray) -> None:
        log[32 + 24 + 4096 * 2] ^= 1

    survived, rescues = _check(_copy(source, tmp_path / "a", change))
    assert rescues[0][1] == "its last transactions are gone"
    assert survived == 19


def test_the_whole_file_is_gone(source: Path, tmp_path: Path) -> None:
    path = _copy(source, tmp_path / "a", lambda database, log: None)
    path.unlink()
    Path(f"{path}-wal").unlink()
    with Outbox(path) as outbox:
        (gap,) = outbox.gaps()
        assert (gap.boot_id, gap.first, gap.last) == ("boot", 1, PARTS)
        assert outbox.accept("new", "boot", "cam", 1, "{}") == PARTS + 1


def test_damage_met_while_running_keeps_the_parts_under_way(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    rescues: list[str] = []
    with Outbox(path, on_rescue=lambda done, why: rescues.append(why)) as outbox:
        for number in (1, 2, 3):
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        for number in (1, 2):
            outbox.commit(f"r{number}", _report(number))
        with outbox._atomic() as connection:  # a wrong byte that the next read meets
            connection.execute("UPDATE result SET payload = 'forged' WHERE result_id = 'r1'")
        assert [row.result_id for row in outbox.waiting(9)] == ["r2"]
        assert rescues == ["a report is not what was written"]
        assert [(gap.first, gap.last) for gap in outbox.gaps()] == [(1, 1)]
        outbox.commit("r3", _report(3))
        assert [row.result_id for row in outbox.waiting(9)] == ["r2", "r3"]
        assert outbox.counts() == {"accepted": 0, "committed": 2, "published": 0, "acknowledged": 0}
        assert outbox.accept("r4", "boot", "cam", 4, "{}") == 4


def test_a_crash_between_the_renames_is_finished_at_the_next_start(source: Path, tmp_path: Path) -> None:
    path = _copy(source, tmp_path / "a", lambda database, log: None)
    with Outbox(tmp_path / "fresh.sqlite") as outbox:
        outbox.accept("saved", "boot", "cam", 1, "{}")
        outbox.commit("saved", "{}")
    (tmp_path / "fresh.sqlite").rename(f"{path}.rescued")
    path.rename(f"{path}.damaged-now")
    Path(f"{path}.mark").unlink()
    with Outbox(path) as outbox:
        assert [row.result_id for row in outbox.waiting(9)] == ["saved"]
    assert list(path.parent.glob("*interrupted-wal"))


def test_only_the_newest_damaged_files_stay(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    for number in range(6):
        with Outbox(path, unix_s=lambda number=number: 1.0 + number) as outbox:  # type: ignore[misc]
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        path.write_bytes(b"x" * 9000)
    names = sorted(found.name for found in tmp_path.glob("*.damaged-*"))
    assert len(names) == 3
    assert names[-1].startswith("o.sqlite.damaged-19700101T000006Z-")


def test_rows_are_read_without_sqlite(source: Path) -> None:
    found = list(rows_in(Path(f"{source}.copy")))
    rows = {row.result_id: row for row in found if isinstance(row, CarvedRow)}
    assert {row.key for row in found if isinstance(row, CarvedKey)} == {f"k{n}" for n in range(1, PARTS)}
    assert len(rows) == PARTS
    assert rows["r39"].payload == _report(39)
    assert rows[f"r{PARTS}"].payload is None


def test_somebody_elses_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("notes " * 2000)
    with pytest.raises(DeliveryError, match="not a database"):
        Outbox(path)
    assert path.read_text().startswith("notes ")


def test_an_outbox_whose_making_the_power_cut_short_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 0")
        other.execute("CREATE TABLE half_made (x)")
    other.close()
    # SQLite's rollback journal of a file that had no page before: magic, no records yet, sector and page size
    header = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + struct.pack(">5I", 0, 1, 0, 512, 4096)
    Path(f"{path}-journal").write_bytes(header.ljust(512, b"\0"))
    with Outbox(path) as outbox:
        outbox.accept("r1", "boot", "cam", 1, "{}")
        assert outbox.counts()["accepted"] == 1
        assert outbox.rescued == 0


def test_a_statement_with_half_a_letter_in_it_is_a_damage_like_any(source: Path, tmp_path: Path) -> None:
    """SQLite quotes it, and Python cannot decode what SQLite says."""

    def change(database: bytearray, log: bytearray) -> None:
        at = database.index(b"trigger TEXT NOT NULL")
        database[at + 18] = 0xC2  # NOT N?LL
        log.clear()

    survived, rescues = _check(_copy(source, tmp_path / "a", change))
    assert survived >= 10
    assert len(rescues) == 1
