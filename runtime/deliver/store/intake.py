"""What comes into the outbox: parts while there is room, and the count of parts when there is none.

A gap is a run of sequences without a row. It grows in one row of its own while the outbox is full, which
needs no more room than its first part did, and a report stands for all of it afterwards.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from ...errors import DeliveryError
from .carve import CarvedRow, digest_of
from .file import OutboxFile
from .rows import FULL, Gap, Level, OutboxFaultError, OutboxFullError
from .space import Space, Usage
from .tally import Tally, forget_confirmed

KEYS_KEPT = 1_000_000
"""Captures known by key, the newest: beyond them a file that still lies in its folder is a new part."""
_FORGOTTEN_AT_ONCE = 200

log = logging.getLogger(__name__)


class Intake:
    """The way into one outbox; safe to use from several threads."""

    def __init__(
        self,
        file: OutboxFile,
        tally: Tally,
        space: Space,
        open_parts: dict[str, CarvedRow],
        on_level: Callable[[Level, str], None] | None,
    ) -> None:
        self.level: Level = "ok"
        self._file, self._tally, self._space, self._on_level = file, tally, space, on_level
        self._open_parts = open_parts  # accepted by this process and not reported
        self._mutex = threading.RLock()
        self._last: dict[str, int] = {}  # boot -> last sequence given out by this process
        self._gap: Gap | None = None  # the one that grows now; number 0 while it is in memory only

    def accept(
        self,
        result_id: str,
        boot_id: str,
        source: str,
        source_sequence: int,
        trigger: str,
        source_key: str | None,
    ) -> int:
        """Write an accepted part and return its sequence, one higher than the last of this boot.

        OutboxFullError when there is no room: the part is counted in a gap and must not be inspected.
        OutboxFaultError when even that cannot be written: it is counted in memory and the line must stop.
        """

        def insert(connection: sqlite3.Connection) -> int:
            sequence = self._file.next_sequence(connection, boot_id, self._last.get(boot_id, 0))
            connection.execute(
                "INSERT INTO result (result_id, boot_id, sequence, source, source_sequence, state, trigger)"
                " VALUES (?, ?, ?, ?, ?, 'accepted', ?)",
                (result_id, boot_id, sequence, source, source_sequence, trigger),
            )
            if source_key is not None:
                connection.execute(
                    "INSERT OR IGNORE INTO capture (source, key) VALUES (?, ?)", (source, source_key)
                )
                connection.execute(
                    "DELETE FROM capture WHERE id <= (SELECT max(id) FROM capture) - ?", (KEYS_KEPT,)
                )
            return sequence

        with self._mutex:
            short = self._shortage()
            while short is None:
                try:
                    self._settle_gap()
                    sequence = self._file.write(insert, may_make_room=False)
                except DeliveryError as error:
                    if isinstance(error.__cause__, sqlite3.IntegrityError):
                        raise
                    if not self._space.release_evidence(self._space.bounds.reserve_bytes):
                        short = str(error)
                    continue
                self._tally.add(accepted=1)
                self._open_parts[result_id] = CarvedRow(
                    result_id, boot_id, sequence, source, source_sequence, "accepted", trigger,
                    None, None, None,
                )  # fmt: skip
                self._last[boot_id] = sequence
                self._gap = None
                self._set_level("ok", "there is room again")
                return sequence
            self._count_only(boot_id, short)
            raise OutboxFullError(f"outbox {self._file.path}: {short}; the part is counted as not inspected")

    def gaps(self) -> tuple[Gap, ...]:
        """Closed gaps that no report stands for yet, at most a hundred; the one that still grows is not among
        them."""
        growing = -1 if self._gap is None else self._gap.number
        rows = self._file.read("SELECT * FROM gap WHERE id != ? ORDER BY id LIMIT 100", growing)
        return tuple(Gap(*row) for row in rows)

    def commit_gap(self, gap: Gap, result_id: str, boot_id: str, payload_of: Callable[[int], str]) -> None:
        """Write the report that stands for a gap. It has a sequence of its own, in the present boot, which
        `payload_of` is given; gap and report change places in one transaction."""

        def write(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM gap WHERE id = ?", (gap.number,)).rowcount:
                raise DeliveryError(f"gap {gap.number} has its report already; it was not written twice")
            sequence = self._file.next_sequence(connection, boot_id, self._last.get(boot_id, 0))
            payload = payload_of(sequence)
            connection.execute(
                "INSERT INTO result (result_id, boot_id, sequence, source, source_sequence, state, trigger,"
                " payload, digest) VALUES (?, ?, ?, 'gap', 0, 'committed', '', ?, ?)",
                (
                    result_id, boot_id, sequence, payload,
                    digest_of(result_id, boot_id, sequence, "gap", 0, payload),
                ),
            )  # fmt: skip

        with self._mutex:
            self._file.write(write)
            self._tally.add(committed=1)

    def _shortage(self) -> str | None:
        """Why there is no room for another part, after everything that gives way has given way."""
        while True:
            waiting = self._tally["accepted"] + self._tally["committed"]
            usage = Usage(waiting, *self._file.used_and_unused_bytes())
            short = self._space.shortage(usage, was_full=self.level != "ok")
            if short is None:
                if self._space.reserve():
                    return None
                if self._space.release_evidence(self._space.bounds.reserve_bytes):
                    continue
                return "the reserved file cannot be made"
            if self._space.release_evidence(short.evidence_bytes):
                continue
            if not short.is_of_bytes or not self._prune_for_room():
                return short.why

    def _prune_for_room(self) -> bool:
        """Forget some confirmed reports; False when there are none. Those that the MES still owes its ack for
        go last."""

        def forget(connection: sqlite3.Connection) -> Counter[str]:
            pruned = forget_confirmed(connection, _FORGOTTEN_AT_ONCE)
            if not pruned:
                connection.execute(
                    "UPDATE result SET due = NULL WHERE id IN"
                    " (SELECT id FROM result WHERE due IS NOT NULL ORDER BY due, id LIMIT ?)",
                    (_FORGOTTEN_AT_ONCE,),
                )
                pruned = forget_confirmed(connection, _FORGOTTEN_AT_ONCE)
            return pruned

        try:
            pruned = self._file.write(forget)
        except DeliveryError:
            return False
        self._tally.add(**{state: -count for state, count in pruned.items()})
        return bool(pruned)

    def _count_only(self, boot_id: str, why: str) -> None:
        """The part gets a sequence in the gap and nothing else."""
        gap = self._gap
        if gap is None or gap.boot_id != boot_id:
            last = max(self._last.get(boot_id, 0), self._file.last_sequence(boot_id))
            gap = Gap(0, boot_id, last + 1, last, FULL, why)
        self._gap = replace(gap, last=gap.last + 1)
        self._last[boot_id] = self._gap.last
        try:
            self._settle_gap()
        except DeliveryError as error:
            self._set_level("fault", str(error))
            raise OutboxFaultError(
                f"{error}; parts are counted in memory only: stop the line and make room"
            ) from error
        self._set_level("full", why)

    def _settle_gap(self) -> None:
        """Write the gap that grows; nothing to do when there is none."""
        gap = self._gap
        if gap is None:
            return

        def write(connection: sqlite3.Connection) -> int:
            updated = connection.execute(
                "UPDATE gap SET last = ? WHERE id = ? AND boot_id = ? AND first = ?",
                (gap.last, gap.number, gap.boot_id, gap.first),
            ).rowcount
            self._file.take_sequences(connection, gap.boot_id, gap.last)
            if updated:
                return gap.number
            inserted = connection.execute(
                "INSERT INTO gap (boot_id, first, last, reason, why) VALUES (?, ?, ?, ?, ?)",
                (gap.boot_id, gap.first, gap.last, gap.reason, gap.why),
            )
            return int(inserted.lastrowid or 0)

        self._gap = replace(gap, number=self._file.write(write))

    def _set_level(self, level: Level, why: str) -> None:
        if level == self.level:
            return
        self.level = level
        log.log(logging.INFO if level == "ok" else logging.ERROR, "outbox: %s (%s)", level, why)
        if self._on_level is not None:
            self._on_level(level, why)
