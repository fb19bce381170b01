"""Rows by state, kept in memory, and confirmed reports that are forgotten."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter

from .file import OutboxFile

_MOST = 200  # rows that one transaction deletes


class Tally:
    """Counted once after opening and after a rescue, and kept up to date since: asking costs nothing."""

    def __init__(self, file: OutboxFile) -> None:
        self._file = file
        self._mutex = threading.Lock()
        self._rescues = -1
        self._counter: Counter[str] = Counter()

    def __getitem__(self, state: str) -> int:
        with self._mutex:
            if self._rescues != self._file.rescues:
                self._rescues = self._file.rescues
                rows = self._file.read("SELECT state, count(*) FROM result GROUP BY state")
                self._counter = Counter({str(name): int(count) for name, count in rows})
            return self._counter[state]

    def add(self, **changes: int) -> None:
        """After a transaction; where the file was rescued in it, all is counted anew when next asked for."""
        with self._mutex:
            if self._rescues == self._file.rescues:
                self._counter.update(changes)


def forget_confirmed(connection: sqlite3.Connection, most: int) -> Counter[str]:
    """Delete the oldest confirmed reports, at most so many and two hundred; how many of each state."""
    found = connection.execute(
        "SELECT state, id FROM result WHERE state IN ('published', 'acknowledged') AND due IS NULL"
        " ORDER BY id LIMIT ?",
        (max(min(most, _MOST), 0),),
    ).fetchall()
    connection.executemany("DELETE FROM result WHERE id = ?", [(number,) for _, number in found])
    return Counter(state for state, _ in found)
