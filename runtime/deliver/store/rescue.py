"""A damaged outbox is put aside under a name that says when and why, and what can be read of it lives on.

The new file is built beside the old one and takes its place by renames alone, so that a crash at any moment
leaves either the damaged file, to be rescued again, or the finished new one. Reports that are whole come over
in their latest state. A part that was only accepted does not: its report may have been written on a page that
cannot be read any more, and a second report under its id would contradict the first. Every sequence that has
no row is named in a gap, for which a report `not_inspected` speaks; it may have been delivered before.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from .carve import CarvedKey, CarvedRow, rows_in
from .mark import Mark
from .schema import open_database

DAMAGED = "not_inspected.outbox_damaged"
_KEPT_FILES = 3  # damaged files that stay for whoever looks into it
_MOST_GAPS = 1000  # of one boot; beyond that one gap spans them all
_BATCH = 500
_RANK = "CASE {} WHEN 'committed' THEN 1 WHEN 'published' THEN 2 ELSE 3 END"
_INSERT = f"""
INSERT INTO result
    (result_id, boot_id, sequence, source, source_sequence, state, trigger, payload, digest, due)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO UPDATE SET state = excluded.state, due = excluded.due
WHERE {_RANK.format("excluded.state")} > {_RANK.format("state")}
"""


@dataclass(frozen=True)
class Rescue:
    """What became of a damaged outbox."""

    moved_to: Path
    saved: int  # rows
    missing: int  # sequences without a row, in gaps now


def finish_rescue(path: Path) -> None:
    """Complete a rescue that a crash cut off between its renames; nothing to do otherwise."""
    fresh = _fresh(path)
    if path.exists() or not fresh.exists():
        _remove(fresh)
        return
    log = Path(f"{path}-wal")
    if log.exists():
        log.rename(f"{path}.damaged-{int(log.stat().st_mtime)}-interrupted-wal")
    _remove_side_files(path)
    fresh.rename(path)
    _sync_folder(path.parent)


def rescue(
    path: Path, reason: str, *, mark: Mark | None, open_parts: Iterable[CarvedRow], unix_s: float
) -> Rescue:
    """Put the closed file at `path` aside and leave a sound one there with all that could be read.

    `open_parts`: accepted rows of this process, which its memory knows better than the file. sqlite3.Error or
    OSError when there is no room for the new file; the damaged one is still in place then.
    """
    fresh = _fresh(path)
    _remove(fresh)
    connection = open_database(fresh)
    with contextlib.closing(connection):
        connection.execute("PRAGMA synchronous = OFF")  # forced to the disk as a whole, below
        readable = (row for row in rows_in(path) if isinstance(row, CarvedKey) or row.payload is not None)
        for rows in _batches(readable):
            _insert(connection, rows)
        _insert(connection, open_parts)
        missing = _write_ledger_and_gaps(connection, mark, reason)
        (saved,) = connection.execute("SELECT count(*) FROM result").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    _sync(fresh)
    moved_to = _free_name(path, reason, unix_s)
    with contextlib.suppress(FileNotFoundError):
        path.rename(moved_to)
    with contextlib.suppress(FileNotFoundError):
        Path(f"{path}-wal").rename(f"{moved_to}-wal")
    _remove_side_files(path)
    fresh.rename(path)
    _sync_folder(path.parent)
    _forget_old_files(path)
    return Rescue(moved_to, int(saved), missing)


def missing_runs(connection: sqlite3.Connection, boot_id: str, last: int | None) -> list[tuple[int, int]]:
    """Runs of sequences of this boot without a row: up to `last`, or between the first and last row."""
    runs: list[tuple[int, int]] = []
    expected = 1 if last is not None else None
    for (sequence,) in connection.execute(
        "SELECT sequence FROM result WHERE boot_id = ? ORDER BY sequence", (boot_id,)
    ):
        if expected is not None and sequence > expected:
            runs.append((expected, sequence - 1))
        expected = sequence + 1
        if len(runs) > _MOST_GAPS:
            runs = [(runs[0][0], runs[-1][1])]
    if last is not None and expected is not None and last >= expected:
        runs.append((expected, last))
    return runs


def _insert(connection: sqlite3.Connection, rows: Iterable[CarvedRow | CarvedKey]) -> None:
    connection.execute("BEGIN")
    for row in rows:
        if isinstance(row, CarvedKey):
            connection.execute(
                "INSERT OR IGNORE INTO capture (source, key) VALUES (?, ?)", (row.source, row.key)
            )
            continue
        # another id under this boot and sequence: only a report of version 1 with wrong bytes can be that
        with contextlib.suppress(sqlite3.IntegrityError):
            connection.execute(
                _INSERT,
                (
                    row.result_id, row.boot_id, row.sequence, row.source, row.source_sequence, row.state,
                    row.trigger, row.payload, row.digest, row.due,
                ),
            )  # fmt: skip
    connection.execute("COMMIT")


def _write_ledger_and_gaps(connection: sqlite3.Connection, mark: Mark | None, reason: str) -> int:
    """Sequences go on behind everything that was ever given out; returns how many have no row."""
    boots = dict(connection.execute("SELECT boot_id, max(sequence) FROM result GROUP BY boot_id"))
    if mark is not None and mark.boot_id:
        boots[mark.boot_id] = max(mark.last, boots.get(mark.boot_id, 0))
    missing = 0
    connection.execute("BEGIN")
    connection.execute("UPDATE ledger SET last = ?", (0 if mark is None else mark.transactions,))
    for boot_id, last in boots.items():
        connection.execute("INSERT INTO ledger VALUES (?, ?)", (boot_id, last))
        is_marked = mark is not None and mark.boot_id == boot_id
        for first, end in missing_runs(connection, boot_id, last if is_marked else None):
            connection.execute(
                "INSERT INTO gap (boot_id, first, last, reason, why) VALUES (?, ?, ?, ?, ?)",
                (boot_id, first, end, DAMAGED, f"the outbox was damaged ({reason[:200]})"),
            )
            missing += end - first + 1
    connection.execute("COMMIT")
    return missing


def _batches(rows: Iterator[CarvedRow | CarvedKey]) -> Iterator[list[CarvedRow | CarvedKey]]:
    while batch := list(islice(rows, _BATCH)):
        yield batch


def _fresh(path: Path) -> Path:
    return Path(f"{path}.rescued")


def _free_name(path: Path, reason: str, unix_s: float) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(unix_s))
    words = re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-")[:40]
    for number in range(1, 10_000):
        extra = "" if number == 1 else f".{number}"
        name = Path(f"{path}.damaged-{stamp}-{words}{extra}")
        if not name.exists():
            return name
    raise OSError(f"{path.parent} is full of damaged outboxes")


def _forget_old_files(path: Path) -> None:
    """Only the newest damaged files stay: the disk must not fill with them."""
    found = [file for file in path.parent.glob(f"{path.name}.damaged-*") if not file.name.endswith("-wal")]
    found.sort(key=lambda file: file.stat().st_ctime)
    for file in found[:-_KEPT_FILES]:
        _remove(file)


def _remove(path: Path) -> None:
    """The file and what SQLite keeps beside it."""
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        name.unlink(missing_ok=True)


def _remove_side_files(path: Path) -> None:
    for name in (f"{path}-wal", f"{path}-shm"):
        Path(name).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):  # Windows opens no folders
        _sync(path)
