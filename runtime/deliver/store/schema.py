"""The tables of the outbox, version by version, and how an older file becomes a newer one.

A new file runs through every version too, so that a migrated file and a new one hold the same statements:
`damage_in` compares them word by word. A migration is one transaction: a power cut leaves the old version.
"""

from __future__ import annotations

import sqlite3
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

from ...errors import DeliveryError
from .mark import Mark

SCHEMA_VERSION = 2
APPLICATION_ID = 0x6F72696E  # "orin"
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite may raise; the second when its sentence quotes damaged bytes, which Python cannot decode."""

VERSIONS: dict[int, Iterable[str]] = {
    1: (
        """CREATE TABLE result (
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
)""",
        "CREATE INDEX result_by_state ON result (state, id)",
        "CREATE INDEX result_by_source ON result (source, source_sequence)",
    ),
    2: (
        # of what must never change once the report is written; null in reports that version 1 wrote
        "ALTER TABLE result ADD COLUMN digest INTEGER",
        # why the broker will not have this report; null while it may be sent
        "ALTER TABLE result ADD COLUMN refused TEXT",
        # how often it was sent for want of an ack, and the round in which it is sent again; null: not at all
        "ALTER TABLE result ADD COLUMN tries INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE result ADD COLUMN due INTEGER",
        "CREATE INDEX result_waiting ON result (id) WHERE state = 'committed' AND refused IS NULL",
        "CREATE INDEX result_refused ON result (id) WHERE refused IS NOT NULL",
        """CREATE INDEX result_sent ON result (id)
WHERE state IN ('published', 'acknowledged') AND due IS NULL""",
        "CREATE INDEX result_due ON result (due, id) WHERE due IS NOT NULL",
        # boot -> last sequence given out; the row '' counts the transactions of this file in `last`
        "CREATE TABLE ledger (boot_id TEXT PRIMARY KEY, last INTEGER NOT NULL)",
        "INSERT INTO ledger SELECT boot_id, max(sequence) FROM result GROUP BY boot_id",
        "INSERT INTO ledger VALUES ('', 0)",
        # captures of a source whose numbers do not tell them apart
        """CREATE TABLE IF NOT EXISTS capture
 (id INTEGER PRIMARY KEY, source TEXT NOT NULL, key TEXT NOT NULL, UNIQUE (source, key))""",
        # sequences that no report stands for yet
        """CREATE TABLE gap (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    reason TEXT NOT NULL,
    why TEXT NOT NULL
)""",
    ),
}


def open_database(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode (transactions are ours), durable, with the newest schema in place.

    DeliveryError when the file is of a newer orinspect, of another program, or cannot be used.
    """
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.text_factory = _text
    except sqlite3.Error as error:
        raise DeliveryError(f"outbox {path} cannot be opened: {error}") from error
    try:
        version = _version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # A log of a megabyte: on a full disk the reserved file must have room for what it holds.
        connection.execute("PRAGMA wal_autocheckpoint = 256")
        if version < SCHEMA_VERSION:
            _migrate(connection, version)
    except DATABASE_ERRORS as error:
        connection.close()
        raise DeliveryError(f"outbox {path} cannot be used: {error}; check the disk") from error
    except BaseException:
        connection.close()
        raise
    return connection


def damage_in(path: Path, mark: Mark | None) -> str | None:
    """What is wrong with the file at `path`; None when it is sound or new. It is only read.

    With a mark this place is known to hold an outbox, so a file that does not look like one is damaged.
    Without one such a file is somebody else's, which is a DeliveryError.
    """
    is_ours = mark is not None and mark.schema <= SCHEMA_VERSION
    if not path.exists() or not path.stat().st_size:
        return "the file is gone" if is_ours else None
    # Read-only, because closing the last writer would fold the write-ahead log into the file and delete it.
    address = f"file:{urllib.parse.quote(str(path.absolute()))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, isolation_level=None)
        connection.text_factory = _text
    except sqlite3.Error as error:
        raise DeliveryError(f"outbox {path} cannot be opened: {error}") from error
    try:
        version = _version(connection, path)
        (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            return str(found).replace("\n", " ")
        if version and not _expected_statements(version) <= _statements(connection):
            return "its tables are not those of an outbox"
        if is_ours and mark is not None and _transactions(connection, version) < mark.transactions:
            return "its last transactions are gone"
    except DeliveryError as error:
        if is_ours:
            return str(error)
        raise
    except DATABASE_ERRORS as error:
        if "readonly" in str(error) and Path(f"{path}-journal").exists():
            return None  # the power went while the file was made; opening it for writing takes that back
        if is_damage(error) and (is_ours or "not a database" not in str(error)):
            return str(error) or "SQLite quotes bytes that are no text"
        raise DeliveryError(
            f"outbox {path} cannot be used: {error}; move it away to start an empty one"
        ) from error
    finally:
        connection.close()
    return None


def is_damage(error: BaseException) -> bool:
    """True for what SQLite says about a file with wrong bytes in it.

    It may quote those bytes. Where they are no UTF-8, Python 3.10 gives an error without a sentence and later
    versions the decoding error.
    """
    text = str(error)
    return isinstance(error, UnicodeDecodeError) or (isinstance(error, sqlite3.Error) and (
        not text or any(part in text for part in ("malformed", "not a database", "corrupt"))
    ))


def is_full(error: BaseException) -> bool:
    """True when room on the disk may help; an I/O error is what a shared-memory file without room gives."""
    text = str(error)
    return isinstance(error, sqlite3.Error) and ("is full" in text or "disk I/O error" in text)


def _text(data: bytes) -> str:
    """Wrong bytes come out as what they are not, which a digest tells, and not as an error."""
    return data.decode("utf-8", "replace")


def _version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of the file's schema, 0 for an empty one; DeliveryError when we must not touch it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if not 0 <= version <= SCHEMA_VERSION:
        raise DeliveryError(
            f"outbox {path} has schema {version} and this orinspect reads up to {SCHEMA_VERSION};"
            " install a newer one"
        )
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if tables and application != APPLICATION_ID:
        raise DeliveryError(f"outbox {path} is another program's SQLite file; choose another outbox.path")
    return int(version)


def _transactions(connection: sqlite3.Connection, version: int) -> int:
    """How many there were; 0 in a file of version 1, which did not count them."""
    if version < 2:
        return 0
    row = connection.execute("SELECT last FROM ledger WHERE boot_id = ''").fetchone()
    return int(row[0]) if row else 0


def _migrate(connection: sqlite3.Connection, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for newer in range(version + 1, SCHEMA_VERSION + 1):
            for statement in VERSIONS[newer]:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(connection: sqlite3.Connection) -> set[tuple[str, str | None]]:
    return set(connection.execute("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'"))


def _expected_statements(version: int) -> set[tuple[str, str | None]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        for number in range(1, version + 1):
            for statement in VERSIONS[number]:
                connection.execute(statement)
        return _statements(connection)
    finally:
        connection.close()
