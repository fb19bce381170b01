"""The counters: a SQLite file beside the outbox that counts each of its reports once, whoever is killed.

A report is committed to the outbox first and counted after. Which (boot_id, sequence) were counted stands in
the same transaction as what they added, so a report is either counted whole and known to be, or neither; what
a crash left uncounted is found by asking the outbox again (`catch_up`). Counting twice is impossible for the
same reason. The file needs no fsync a part: what a power cut takes from its end is counted again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ...errors import DeliveryError
from ...report import timestamp
from .facts import Facts, facts_from_payload
from .shifts import Shift, Shifts, unsynchronised

APPLICATION_ID = 0x6F726373  # "orcs"
VERSION = 1
EVER = 0  # the tally of everything since the file was begun, instead of a shift's
_SCHEMA = """
CREATE TABLE counted (boot_id TEXT, first INTEGER, last INTEGER, PRIMARY KEY (boot_id, first)) WITHOUT ROWID;
CREATE TABLE shift (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, name TEXT, day TEXT, starts_at TEXT, ends_at TEXT
);
CREATE TABLE tally (
    shift INTEGER, lot TEXT, is_simulated INTEGER, kind TEXT, name TEXT, amount INTEGER,
    PRIMARY KEY (shift, lot, is_simulated, kind, name)
) WITHOUT ROWID;
CREATE TABLE first_look (
    is_simulated INTEGER, product_id TEXT, part_id TEXT, view TEXT, shift INTEGER, lot TEXT, passed INTEGER,
    PRIMARY KEY (is_simulated, product_id, part_id, view)
) WITHOUT ROWID;
CREATE INDEX first_look_by_shift ON first_look (shift, is_simulated);
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""
_ADD = (
    "INSERT INTO tally VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"
)

log = logging.getLogger(__name__)


class Reports(Protocol):
    """What the counters ask of the outbox."""

    def keys(self, after: tuple[str, int], limit: int) -> tuple[tuple[str, int], ...]:
        """(boot_id, sequence) of the rows behind `after`, in this order."""
        ...

    def payload(self, boot_id: str, sequence: int) -> str | None:
        """The report, None when it is not written or not kept."""
        ...


class Counters:
    """The file at `path`, made when missing; a context manager, safe to use from several threads.

    A damaged file is moved away and counting begins again with what the outbox still holds: `begun_at` says
    since when. DeliveryError where the disk refuses: nothing is lost then, `catch_up` counts it later.
    """

    def __init__(self, path: str | Path, shifts: Shifts, *, keep_shifts: int, unix_s: float) -> None:
        """`keep_shifts`: the shifts begun last stay; `unix_s`: now, for a file that is begun."""
        self._path, self._shifts, self._keep = Path(path), shifts, keep_shifts
        self._mutex = threading.RLock()
        self._changed: set[int] = set()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = _opened(self._path, unix_s)
        except (sqlite3.Error, OSError) as error:
            raise DeliveryError(f"counters {self._path} cannot be used: {error}") from error

    def __enter__(self) -> Counters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; twice is fine."""
        with self._mutex:
            self._connection.close()

    @property
    def begun_at(self) -> str:
        """When this file was begun."""
        with self.atomic() as connection:
            return str(connection.execute("SELECT value FROM fact WHERE name = 'begun_at'").fetchone()[0])

    def count(self, payload: str) -> int:
        """Count what was committed; how many parts it added, 0 when it is counted already or corrects a
        report."""
        try:
            facts = facts_from_payload(payload)
        except (KeyError, TypeError, ValueError) as error:
            log.error("a report cannot be counted (%r): %.80r", error, payload)
            return 0
        if facts is None:
            return 0
        with self.atomic() as connection:
            added = _mark_counted(connection, facts.boot_id, facts.first, facts.last)
            if not added:
                return 0
            shift = self._shift_id(connection, self.shift_of(facts.captured_s, facts.boot_id))
            for scope in (shift, EVER):
                _add(connection, scope, facts, added)
            _look(connection, shift, facts)
        with self._mutex:
            self._changed.add(shift)
        return added

    def catch_up(self, reports: Reports) -> int:
        """Count what the outbox holds and was never counted; how many parts it were."""
        counted, after = 0, ("", 0)
        while keys := reports.keys(after, 10_000):
            after = keys[-1]
            for boot_id, sequence in self._uncounted(keys):
                payload = reports.payload(boot_id, sequence)
                counted += 0 if payload is None else self.count(payload)
        return counted

    def shift_of(self, unix_s: float | None, boot_id: str) -> Shift:
        """The shift of a moment; None: the clock was not synchronised."""
        return unsynchronised(boot_id) if unix_s is None else self._shifts.at(unix_s)

    def take_changed(self) -> set[int]:
        """Numbers of the shifts that something was counted in since the last call."""
        with self._mutex:
            changed, self._changed = self._changed, set()
        return changed

    @contextlib.contextmanager
    def atomic(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it, or none of it."""
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise DeliveryError(f"counters {self._path}: {error}; check the disk") from error

    def _uncounted(self, keys: tuple[tuple[str, int], ...]) -> list[tuple[str, int]]:
        with self.atomic() as connection:
            return [key for key in keys if not _is_counted(connection, *key)]

    def _shift_id(self, connection: sqlite3.Connection, shift: Shift) -> int:
        """The shift's number; a new one pushes out the oldest beyond `keep_shifts`."""
        row = connection.execute("SELECT id FROM shift WHERE key = ?", (shift.key,)).fetchone()
        if row is not None:
            return int(row[0])
        values = (shift.key, shift.name, shift.day, shift.starts_at, shift.ends_at)
        made = connection.execute(
            "INSERT INTO shift (key, name, day, starts_at, ends_at) VALUES (?, ?, ?, ?, ?)", values
        ).lastrowid
        assert made is not None
        oldest = (made - self._keep,)  # by order of beginning: a clock that jumps must not decide
        connection.execute("DELETE FROM tally WHERE shift <= ? AND shift > 0", oldest)
        connection.execute("DELETE FROM first_look WHERE shift <= ?", oldest)
        connection.execute("DELETE FROM shift WHERE id <= ?", oldest)
        return made


def _add(connection: sqlite3.Connection, shift: int, facts: Facts, times: int) -> None:
    """The tallies of one report in one shift."""
    found = [("result", facts.verdict, times)] if facts.verdict else [("missed", facts.not_inspected, times)]
    for (code, name), amount in facts.defects.items():
        label = json.dumps([code, name], ensure_ascii=False)
        found += [("defects", label, amount), ("results_with", label, 1)]
    lot = "" if shift == EVER else _lot_key(facts.lot)
    connection.executemany(_ADD, [(shift, lot, facts.is_simulated, *each) for each in found])


def _look(connection: sqlite3.Connection, shift: int, facts: Facts) -> None:
    """Remember a part's first verdict in each view. A part without an id is a part of its own."""
    if facts.verdict is None:
        return
    passed, lot = facts.verdict == "pass", _lot_key(facts.lot)
    if facts.part_id is None:
        connection.execute(
            _ADD, (shift, lot, facts.is_simulated, "nameless", "passed" if passed else "not_passed", 1)
        )
        return
    key = (facts.is_simulated, facts.product_id, facts.part_id, facts.view)
    connection.execute(
        "INSERT OR IGNORE INTO first_look VALUES (?, ?, ?, ?, ?, ?, ?)", (*key, shift, lot, passed)
    )


def _lot_key(lot: str | None) -> str:
    """JSON, so that no lot's name is mistaken for none."""
    return json.dumps(lot, ensure_ascii=False)


def _is_counted(connection: sqlite3.Connection, boot_id: str, sequence: int) -> bool:
    return bool(_touching(connection, boot_id, sequence, sequence))


def _touching(connection: sqlite3.Connection, boot_id: str, first: int, last: int) -> list[tuple[int, int]]:
    """The intervals of counted sequences that overlap `first` to `last`."""
    rows = connection.execute(
        "SELECT first, last FROM counted WHERE boot_id = ? AND first <= ? AND last >= ? ORDER BY first DESC",
        (boot_id, last, first),
    )
    return [(int(low), int(high)) for low, high in rows]


def _mark_counted(connection: sqlite3.Connection, boot_id: str, first: int, last: int) -> int:
    """Put sequences into the intervals, which grow together; how many of them were in none."""
    overlapping = _touching(connection, boot_id, first, last)
    known = sum(min(high, last) - max(low, first) + 1 for low, high in overlapping)
    added = last - first + 1 - known
    if added:
        beside = _touching(connection, boot_id, first - 1, last + 1)
        connection.executemany(
            "DELETE FROM counted WHERE boot_id = ? AND first = ?", [(boot_id, low) for low, _ in beside]
        )
        lows, highs = [first, *(low for low, _ in beside)], [last, *(high for _, high in beside)]
        connection.execute("INSERT INTO counted VALUES (?, ?, ?)", (boot_id, min(lows), max(highs)))
    return added


def _opened(path: Path, unix_s: float) -> sqlite3.Connection:
    """The file as a connection; a damaged or foreign one is moved away, never deleted."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, unix_s)
        return connection
    except (sqlite3.DatabaseError, DeliveryError) as error:
        connection.close()
        if isinstance(error, sqlite3.OperationalError):  # the disk, not the file
            raise
        aside = _free_name(path)
        log.error("counters %s: %s; moved to %s, counting begins again", path, error, aside.name)
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}{suffix}", f"{aside}{suffix}")
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    _prepare(connection, unix_s)
    return connection


def _prepare(connection: sqlite3.Connection, unix_s: float) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and (application, version) != (APPLICATION_ID, VERSION):
        raise DeliveryError("it is no file of counters of this version")
    (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if sound != "ok":
        raise DeliveryError(f"it is damaged ({sound})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")  # enough: see the top of this file
    if not tables:
        connection.executescript(
            f"BEGIN; {_SCHEMA} INSERT INTO fact VALUES ('begun_at', '{timestamp(unix_s)}');"
            f" PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}; COMMIT;"
        )


def _free_name(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return aside
