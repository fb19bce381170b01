"""The outbox: every accepted part and every report, on disk before anything else happens to it.

A row passes through the states
    accepted      the part is known, under its final result id; nothing has looked at it yet
    committed     its report is written; the network has not confirmed it
    published     the broker confirmed it (PUBACK)
    acknowledged  the MES says that it has it
and never goes back. SQLite in WAL with synchronous=FULL: a commit survives a killed process and a power cut.
One process holds an outbox at a time, by a lock file that the kernel releases with the process.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ..errors import DeliveryError

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6F72696E  # "orin"

_SCHEMA = """
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    result_id TEXT NOT NULL UNIQUE,
    boot_id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    source TEXT NOT NULL,
    source_sequence INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('accepted', 'committed', 'published', 'acknowledged')),
    trigger TEXT NOT NULL,
    payload TEXT,
    UNIQUE (boot_id, sequence),
    CHECK ((payload IS NULL) = (state = 'accepted'))
);
CREATE INDEX result_by_state ON result (state, id);
CREATE INDEX result_by_source ON result (source, source_sequence);
"""
# Made beside the tables of any schema version: an orinspect that does not know it leaves it alone.
_CAPTURE_TABLE = (
    "CREATE TABLE IF NOT EXISTS capture"
    " (id INTEGER PRIMARY KEY, source TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (source, key))"
)
KEYS_KEPT = 1_000_000
"""Captures known by key, the newest: beyond them a file that still lies in its folder is a new part."""


@dataclass(frozen=True)
class Accepted:
    """A part that was accepted and has no report yet; `trigger` is the JSON given to `accept`."""

    result_id: str
    sequence: int
    trigger: str


@dataclass(frozen=True)
class Committed:
    """A report that waits for the broker; `payload` is its JSON."""

    result_id: str
    payload: str


class Outbox:
    """The SQLite file at `path`, made when missing. A context manager; safe to use from several threads.

    DeliveryError when another process holds it, when it was written by a newer orinspect, when it is not an
    outbox, or when the disk refuses.
    """

    def __init__(self, path: str | Path, *, keep: int = 10_000) -> None:
        """`keep`: how many published rows stay for later questions; waiting rows always stay."""
        self._path = Path(path)
        self._keep = keep
        self._mutex = threading.RLock()
        self._lock_file = _locked(self._path)
        try:
            self._connection = _opened(self._path)
        except BaseException:
            self._lock_file.close()
            raise

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up the lock; twice is fine."""
        with self._mutex:
            self._connection.close()
            self._lock_file.close()

    def accept(
        self,
        result_id: str,
        boot_id: str,
        source: str,
        source_sequence: int,
        trigger: str,
        source_key: str | None = None,
    ) -> int:
        """Write an accepted part and return its sequence, one higher than the last of this boot.

        `source_sequence` is the capture's number within its source, and tells captures apart only where the
        source gives a part the same number again (scenes, video files). `source_key` does so for the others
        that can start over (folders): it is kept in the same transaction.
        """
        with self._atomic() as connection:
            (last,) = connection.execute(
                "SELECT coalesce(max(sequence), 0) FROM result WHERE boot_id = ?", (boot_id,)
            ).fetchone()
            connection.execute(
                "INSERT INTO result (result_id, boot_id, sequence, source, source_sequence, state, trigger)"
                " VALUES (?, ?, ?, ?, ?, 'accepted', ?)",
                (result_id, boot_id, last + 1, source, source_sequence, trigger),
            )
            if source_key is not None:
                connection.execute(
                    "INSERT OR IGNORE INTO capture (source, key) VALUES (?, ?)", (source, source_key)
                )
                connection.execute(
                    "DELETE FROM capture WHERE id <= (SELECT max(id) FROM capture) - ?", (KEYS_KEPT,)
                )
        return int(last) + 1

    def commit(self, result_id: str, payload: str) -> None:
        """Write the report of an accepted part. DeliveryError when it has one already, or was never accepted:
        a second report under one id would contradict the first."""
        with self._atomic() as connection:
            changed = connection.execute(
                "UPDATE result SET state = 'committed', payload = ? WHERE result_id = ?"
                " AND state = 'accepted'",
                (payload, result_id),
            ).rowcount
            if changed != 1:
                raise DeliveryError(
                    f"result {result_id} is not waiting for a report; it was not written twice"
                )

    def mark_published(self, result_id: str) -> None:
        """The broker confirmed this report. Confirming twice changes nothing."""
        with self._atomic() as connection:
            connection.execute(
                "UPDATE result SET state = 'published' WHERE result_id = ? AND state = 'committed'",
                (result_id,),
            )
            connection.execute(
                "DELETE FROM result WHERE state IN ('published', 'acknowledged') AND id <="
                " (SELECT max(id) FROM result) - ?",
                (self._keep,),
            )

    def mark_acknowledged(self, result_id: str) -> bool:
        """The MES has this report, which implies that the broker had it; False when the id is unknown."""
        with self._atomic() as connection:
            return (
                connection.execute(
                    "UPDATE result SET state = 'acknowledged' WHERE result_id = ?"
                    " AND state IN ('committed', 'published', 'acknowledged')",
                    (result_id,),
                ).rowcount
                == 1
            )

    def abandoned(self) -> tuple[Accepted, ...]:
        """Accepted parts without a report, oldest first: right after opening, what a crash left behind."""
        with self._atomic() as connection:
            rows = connection.execute(
                "SELECT result_id, sequence, trigger FROM result WHERE state = 'accepted' ORDER BY id"
            ).fetchall()
        return tuple(Accepted(*row) for row in rows)

    def waiting(self, limit: int) -> tuple[Committed, ...]:
        """The oldest reports that no broker has confirmed, at most `limit`."""
        with self._atomic() as connection:
            rows = connection.execute(
                "SELECT result_id, payload FROM result WHERE state = 'committed' ORDER BY id LIMIT ?",
                (limit,),
            ).fetchall()
        return tuple(Committed(*row) for row in rows)

    def last_source_sequence(self, source: str) -> int | None:
        """The highest capture number ever accepted from this source; None when there is none."""
        with self._atomic() as connection:
            (last,) = connection.execute(
                "SELECT max(source_sequence) FROM result WHERE source = ?", (source,)
            ).fetchone()
        return None if last is None else int(last)

    def accepted_keys(self, source: str) -> frozenset[str]:
        """The keys of all captures ever accepted from this source, the newest KEYS_KEPT."""
        with self._atomic() as connection:
            rows = connection.execute("SELECT key FROM capture WHERE source = ?", (source,)).fetchall()
        return frozenset(key for (key,) in rows)

    def counts(self) -> dict[str, int]:
        """Rows by state; a state without rows is 0."""
        with self._atomic() as connection:
            rows = connection.execute("SELECT state, count(*) FROM result GROUP BY state").fetchall()
        return {**dict.fromkeys(("accepted", "committed", "published", "acknowledged"), 0), **dict(rows)}

    @contextlib.contextmanager
    def _atomic(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it reaches the disk, or none of it."""
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # a full disk may have rolled it back already
                        self._connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise DeliveryError(f"outbox {self._path}: {error}; check the disk") from error


def _opened(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are ours), durable, with the schema in place."""
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise DeliveryError(f"outbox {path} cannot be opened: {error}") from error
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise DeliveryError(
                f"outbox {path} has schema {version} and this orinspect reads up to {SCHEMA_VERSION};"
                " install a newer one"
            )
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and application != APPLICATION_ID:
            raise DeliveryError(f"outbox {path} is another program's SQLite file; choose another outbox.path")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if not tables:
            connection.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID};"
                f" PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        connection.execute(_CAPTURE_TABLE)
    except sqlite3.Error as error:
        connection.close()
        raise DeliveryError(
            f"outbox {path} cannot be used: {error}; move it away to start an empty one"
        ) from error
    except DeliveryError:
        connection.close()
        raise
    return connection


def _locked(path: Path) -> IO[str]:
    """The open lock file beside the outbox; the kernel drops the lock when its process dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_file = open(f"{path}.lock", "w")  # noqa: SIM115 - stays open as long as the outbox
    except OSError as error:
        raise DeliveryError(f"outbox {path} cannot be made: {error.strerror}") from error
    try:
        import fcntl
    except ImportError:  # Windows workstation: one service at a time is the user's affair there
        return lock_file
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        raise DeliveryError(f"outbox {path} is in use by another orinspect; stop it first") from error
    return lock_file
