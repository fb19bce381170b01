"""One way to speak to SQLite and to PostgreSQL: `?` for values, one transaction at a time, two errors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_name("tables.sql")
LAYOUT = 1


class DownError(Exception):
    """The database cannot be reached, is full or locked: the same statement may succeed later."""


class RefusedError(Exception):
    """The database will never take this value."""


class Database:
    """`sqlite:PATH`, or `postgresql://user@host/name` through psycopg; a context manager.

    With `create` an empty database gets the tables; without it, DownError for one that has none.
    """

    def __init__(self, url: str, *, create: bool = False) -> None:
        self.url = url
        self._is_sqlite = url.startswith("sqlite:")
        self._down, self._refused = _errors_of(url)
        self._connection: Any = None
        try:
            self.open(create=create)
            self._prepare(create)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def open(self, *, create: bool = False) -> None:
        """Connect where there is no connection: at the start, and after DownError and `close`."""
        if self._connection is not None:
            return
        with self._named():
            if self._is_sqlite:
                path = Path(self.url.removeprefix("sqlite:"))
                if not (create or path.exists()):
                    raise DownError(f"{path} does not exist")
                self._connection = sqlite3.connect(path, timeout=30.0, isolation_level=None)
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # an ack must survive a power cut
            else:
                import psycopg

                self._connection = psycopg.connect(self.url, autocommit=True, connect_timeout=10)

    def execute(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with self._named():
            if not self._is_sqlite:
                statement = statement.replace("?", "%s")
            cursor = self._connection.execute(statement, tuple(values))
            return list(cursor.fetchall()) if cursor.description else []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it is on the disk afterwards, or none of it."""
        self.execute("BEGIN IMMEDIATE" if self._is_sqlite else "BEGIN")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(DownError):
                self.execute("ROLLBACK")
            raise

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """The two databases' errors as ours."""
        try:
            yield
        except self._refused as error:
            raise RefusedError(str(error).strip()) from error
        except self._down as error:
            raise DownError(f"{self.url.partition('@')[2] or self.url}: {error}".strip()) from error

    def _prepare(self, create: bool) -> None:
        """The tables are there and of our layout, or are made."""
        named = "SELECT 1 FROM sqlite_master WHERE name = 'layout'"
        if not self._is_sqlite:
            named = "SELECT 1 WHERE to_regclass('layout') IS NOT NULL"
        with self.transaction():
            if not self._is_sqlite:
                self.execute("SELECT pg_advisory_xact_lock(730117)")  # two consumers that start at once
            if self.execute(named):
                ((version,),) = self.execute("SELECT version FROM layout")
                if version != LAYOUT:
                    raise DownError(f"{self.url} has layout {version}, this consumer writes {LAYOUT}")
                return
            if not create:
                raise DownError(f"{self.url} has none of our tables; `run` makes them")
            for statement in _statements():
                self.execute(statement)


def _errors_of(url: str) -> tuple[tuple[type[Exception], ...], tuple[type[Exception], ...]]:
    """The exceptions that mean "later" and those that mean "never"."""
    values = (OverflowError, UnicodeError)
    if url.startswith("sqlite:"):
        return (sqlite3.OperationalError,), (*values, sqlite3.IntegrityError, sqlite3.DataError)
    if url.startswith(("postgresql:", "postgres:")):
        try:
            import psycopg
        except ModuleNotFoundError as error:
            raise DownError("PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from error
        return (psycopg.OperationalError, psycopg.InterfaceError), (
            *values,
            psycopg.DataError,
            psycopg.IntegrityError,
        )
    raise DownError(f"{url!r} is no database; give sqlite:PATH or postgresql://user@host/name")


def _statements() -> Iterator[str]:
    """The statements of tables.sql, without the comments (one of which may hold a `;`)."""
    lines = TABLES.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line.partition("--")[0] for line in lines)
    yield from (statement for part in text.split(";") if (statement := part.strip()))
