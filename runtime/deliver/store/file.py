"""The outbox's file: one lock, one connection, counted transactions, and a rescue when it is damaged."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from ...errors import DeliveryError
from .carve import CarvedRow
from .mark import Mark, MarkFile
from .rescue import Rescue, finish_rescue, rescue
from .schema import DATABASE_ERRORS, SCHEMA_VERSION, damage_in, is_damage, is_full, open_database

T = TypeVar("T")

log = logging.getLogger(__name__)


class OutboxFile:
    """Open from construction to `close`; its methods may be called from several threads.

    `open_parts` are the accepted rows of this process, which a rescue puts into the new file. `more_room` is
    asked when the disk is full, before the transaction is tried once more.
    """

    def __init__(
        self,
        path: Path,
        open_parts: Mapping[str, CarvedRow],
        more_room: Callable[[], bool],
        on_rescue: Callable[[Rescue, str], None] | None,
        unix_s: Callable[[], float],
    ) -> None:
        self.path = path
        self.rescues = 0  # of a damaged file, since construction
        self._open_parts, self._more_room = open_parts, more_room
        self._on_rescue, self._unix_s = on_rescue, unix_s
        self._mutex = threading.RLock()
        self._lock_file = _locked(path)
        self._mark_file = MarkFile(Path(f"{path}.mark"))
        try:
            finish_rescue(path)
            self._mark = self._mark_file.read()
            damage = damage_in(path, self._mark)
            if damage is not None:
                self._connection = self._rescued(damage)
            else:
                self._connection = open_database(path)
            self._transactions, self._sequences = 0, ("", 0)
            self._note()
        except BaseException as error:
            self._lock_file.close()
            if isinstance(error, OSError):
                raise DeliveryError(f"outbox {path} cannot be used: {error.strerror}") from error
            raise

    def close(self) -> None:
        """Close the file and give up the lock; twice is fine."""
        with self._mutex:
            self._connection.close()
            self._mark_file.close()
            self._lock_file.close()

    @contextlib.contextmanager
    def atomic(self) -> Iterator[sqlite3.Connection]:
        """A transaction: everything inside is written, or nothing. DeliveryError when the disk refuses."""
        with self._mutex:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("UPDATE ledger SET last = last + 1 WHERE boot_id = ''")
                    self._connection.execute("COMMIT")
                except BaseException:
                    if self._connection.in_transaction:  # a full disk may have rolled it back already
                        self._connection.execute("ROLLBACK")
                    raise
            except DATABASE_ERRORS as error:
                raise self._error(error) from error
            self._transactions += 1
            self._write_mark()

    def write(self, work: Callable[[sqlite3.Connection], T], *, may_make_room: bool = True) -> T:
        """Do `work` in a transaction; once more when the file was damaged and rescued, or when the disk was
        full and there is more room now."""
        with self._mutex:
            try:
                with self.atomic() as connection:
                    return work(connection)
            except DeliveryError as error:
                cause = error.__cause__
                if cause is not None and is_damage(cause):
                    self.rescue(str(cause))
                elif cause is None or not is_full(cause) or not may_make_room:
                    raise
                else:
                    self._more_room()
                    self._start_log_over()
            with self.atomic() as connection:
                return work(connection)

    def _start_log_over(self) -> None:
        """Let the next transactions overwrite the write-ahead log instead of making it longer."""
        with contextlib.suppress(*DATABASE_ERRORS):
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def read(self, query: str, *values: Any) -> list[Any]:
        """The rows of a query; a damaged file is rescued first and asked again."""
        with self._mutex:
            try:
                return self._connection.execute(query, values).fetchall()
            except DATABASE_ERRORS as error:
                if not is_damage(error):
                    raise self._error(error) from error
                self.rescue(str(error))
            try:
                return self._connection.execute(query, values).fetchall()
            except DATABASE_ERRORS as error:
                raise self._error(error) from error

    def one(self, query: str, *values: Any) -> int | None:
        """The one number of a query."""
        (value,) = self.read(query, *values)[0]
        return None if value is None else int(value)

    def next_sequence(self, connection: sqlite3.Connection, boot_id: str, at_least: int) -> int:
        """Take the next sequence of a boot inside a transaction; it is higher than `at_least`."""
        row = connection.execute("SELECT last FROM ledger WHERE boot_id = ?", (boot_id,)).fetchone()
        sequence = max(row[0] if row else 0, at_least) + 1
        self.take_sequences(connection, boot_id, sequence)
        return sequence

    def take_sequences(self, connection: sqlite3.Connection, boot_id: str, last: int) -> None:
        """Every sequence of a boot up to `last` is used; saying it twice changes nothing."""
        connection.execute(
            "INSERT INTO ledger VALUES (?, ?)"
            " ON CONFLICT (boot_id) DO UPDATE SET last = max(last, excluded.last)",
            (boot_id, last),
        )
        self._sequences = (boot_id, last)  # too high in the mark does no harm should this be rolled back

    def last_sequence(self, boot_id: str) -> int:
        """The last sequence of a boot that the file knows; 0 when it cannot be read."""
        with contextlib.suppress(DeliveryError, *DATABASE_ERRORS):
            rows = self.read("SELECT last FROM ledger WHERE boot_id = ?", boot_id)
            return int(rows[0][0]) if rows else 0
        return 0

    def used_and_unused_bytes(self) -> tuple[int, int]:
        """Bytes of the file that hold something, and bytes that are free inside it."""
        pages, free, size = (
            self.one(f"PRAGMA {name}") or 0 for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size, free * size

    def rescue(self, reason: str) -> None:
        """Put the damaged file aside and go on with what could be read of it."""
        with self._mutex:
            if self._connection.in_transaction:
                self._connection.rollback()
            self._connection.close()
            self._connection = self._rescued(reason)
            self._note()

    def _rescued(self, reason: str) -> sqlite3.Connection:
        log.error("outbox %s is damaged (%s); what can be read of it is saved", self.path, reason)
        while True:
            try:
                done = rescue(
                    self.path,
                    reason,
                    mark=self._mark,
                    open_parts=tuple(self._open_parts.values()),
                    unix_s=self._unix_s(),
                )
                break
            except (*DATABASE_ERRORS, OSError, DeliveryError) as error:
                if not self._more_room():
                    raise DeliveryError(
                        f"outbox {self.path} is damaged ({reason}) and cannot be saved: {error};"
                        " make room on its disk"
                    ) from error
        log.error(
            "%d rows were saved, %d sequences have none; the damaged file is %s",
            done.saved, done.missing, done.moved_to,
        )  # fmt: skip
        self.rescues += 1
        if self._on_rescue is not None:
            self._on_rescue(done, reason)
        return open_database(self.path)

    def _note(self) -> None:
        """Read back how many transactions the file counts, and say so in the mark."""
        row = self._connection.execute("SELECT last FROM ledger WHERE boot_id = ''").fetchone()
        self._transactions = int(row[0])
        if self._mark is not None:
            self._sequences = (self._mark.boot_id, self._mark.last)
        self._write_mark()

    def _write_mark(self) -> None:
        self._mark = Mark(SCHEMA_VERSION, *self._sequences, self._transactions)
        self._mark_file.write(self._mark)

    def _error(self, error: Exception) -> DeliveryError:
        return DeliveryError(f"outbox {self.path}: {error}; check the disk")


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
