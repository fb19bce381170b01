"""The outbox: every accepted part and every report, on disk before anything else happens to it.

A row passes through the states
    accepted      the part is known, under its final result id; nothing has looked at it yet
    committed     its report is written; the network has not confirmed it
    published     the broker confirmed it (PUBACK)
    acknowledged  the MES says that it has it
and never goes back. SQLite in WAL with synchronous=FULL: a commit survives a killed process and a power cut.
One process holds an outbox at a time, by a lock file that the kernel releases with the process. What happens
when its disk is full, or its file damaged, stands in docs/delivery.md.
"""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from ..errors import DeliveryError
from .store.carve import CarvedRow, digest_of, is_whole
from .store.file import OutboxFile
from .store.intake import Intake
from .store.rescue import Rescue
from .store.rows import STATES, Accepted, Committed, Gap, Level, OutboxFaultError, OutboxFullError
from .store.space import Bounds, Releases, Space
from .store.tally import Tally, forget_confirmed

__all__ = [
    "Accepted",
    "Bounds",
    "Committed",
    "Gap",
    "Level",
    "Outbox",
    "OutboxFaultError",
    "OutboxFullError",
    "Rescue",
]


class Outbox:
    """The SQLite file at `path`, made when missing. A context manager; safe to use from several threads.

    DeliveryError when another process holds it, when it was written by a newer orinspect, when it is not an
    outbox, or when the disk refuses. A damaged outbox is no error: see `rescued`.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        keep: int = 10_000,
        bounds: Bounds | None = None,
        evidence: Releases | None = None,
        on_level: Callable[[Level, str], None] | None = None,
        on_rescue: Callable[[Rescue, str], None] | None = None,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        """`keep`: how many published rows stay for later questions; waiting rows always stay.

        `on_level(level, why)` is told when the outbox becomes full (parts are counted only), a fault (the
        line must stop) or ok again; `on_rescue` when its file was damaged. Both are called in the thread that
        met it and must not call the outbox.
        """
        self._keep = keep
        space = Space(Path(path), bounds or Bounds(), evidence)
        self._open_parts: dict[str, CarvedRow] = {}  # accepted by this process and not reported
        self._file = OutboxFile(Path(path), self._open_parts, space.more_room, on_rescue, unix_s)
        self._tally = Tally(self._file)
        self._intake = Intake(self._file, self._tally, space, self._open_parts, on_level)
        space.reserve()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and give up the lock; twice is fine."""
        self._file.close()

    @property
    def rescued(self) -> int:
        """How often the file was damaged and saved since this object was made."""
        return self._file.rescues

    @property
    def level(self) -> Level:
        """`full`: parts are counted only; `fault`: not even that can be written."""
        return self._intake.level

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
        OutboxFullError when there is no room: the part is counted in a gap and must not be inspected.
        OutboxFaultError when even that cannot be written: it is counted in memory and the line must stop.
        """
        return self._intake.accept(result_id, boot_id, source, source_sequence, trigger, source_key)

    def gaps(self) -> tuple[Gap, ...]:
        """Closed gaps that no report stands for yet, at most a hundred; a growing one is not closed."""
        return self._intake.gaps()

    def commit_gap(self, gap: Gap, result_id: str, boot_id: str, payload_of: Callable[[int], str]) -> None:
        """Write the report that stands for a gap. It has a sequence of its own, in the present boot, which
        `payload_of` is given; gap and report change places in one transaction."""
        self._intake.commit_gap(gap, result_id, boot_id, payload_of)

    def commit(self, result_id: str, payload: str) -> None:
        """Write the report of an accepted part. DeliveryError when it has one already, or was never accepted:
        a second report under one id would contradict the first."""

        def update(connection: sqlite3.Connection) -> None:
            found: tuple[str, int, str, int] | None = connection.execute(
                "SELECT boot_id, sequence, source, source_sequence FROM result WHERE result_id = ?"
                " AND state = 'accepted'",
                (result_id,),
            ).fetchone()
            if found is None:
                raise DeliveryError(
                    f"result {result_id} is not waiting for a report; it was not written twice"
                )
            connection.execute(
                "UPDATE result SET state = 'committed', payload = ?, digest = ? WHERE result_id = ?",
                (payload, digest_of(result_id, *found, payload), result_id),
            )

        self._file.write(update)
        self._open_parts.pop(result_id, None)
        self._tally.add(accepted=-1, committed=1)

    def mark_published(self, *result_ids: str, due: int | None = None) -> None:
        """The broker confirmed these reports, in one transaction; confirming twice changes nothing.

        `due`: the round in which they are sent again unless the MES acknowledged them by then.
        """

        def update(connection: sqlite3.Connection) -> Counter[str]:
            changes: Counter[str] = Counter()
            for result_id in result_ids:
                changed = connection.execute(
                    "UPDATE result SET state = 'published', due = ? WHERE result_id = ?"
                    " AND state = 'committed'",
                    (due, result_id),
                ).rowcount
                changes.update(committed=-changed, published=changed)
            changes.subtract(forget_confirmed(connection, confirmed + changes["published"] - self._keep))
            return changes

        confirmed = self._tally["published"] + self._tally["acknowledged"]
        self._tally.add(**self._file.write(update))

    def mark_sent_again(self, result_id: str, due: int) -> None:
        """A published report was sent once more for want of an ack; the next time is round `due`."""
        self._file.write(
            lambda connection: connection.execute(
                "UPDATE result SET tries = tries + 1, due = ? WHERE result_id = ? AND due IS NOT NULL",
                (due, result_id),
            )
        )

    def mark_refused(self, result_id: str, reason: str) -> None:
        """The broker will not have this report; it waits aside until `retry_refused`."""
        self._file.write(
            lambda connection: connection.execute(
                "UPDATE result SET refused = ? WHERE result_id = ? AND state = 'committed'",
                (reason, result_id),
            )
        )

    def retry_refused(self) -> int:
        """Let all refused reports wait for the broker again; how many these are."""

        def update(connection: sqlite3.Connection) -> int:
            return connection.execute("UPDATE result SET refused = NULL WHERE refused IS NOT NULL").rowcount

        return self._file.write(update) if self.refused() else 0

    def mark_acknowledged(self, *result_ids: str) -> int:
        """The MES has these reports, which implies that the broker had them; how many ids are known."""

        def update(connection: sqlite3.Connection) -> Counter[str]:
            before: Counter[str] = Counter()
            for result_id in result_ids:
                found = connection.execute(
                    "SELECT state FROM result WHERE result_id = ? AND state != 'accepted'", (result_id,)
                ).fetchone()
                if found is not None:
                    before[found[0]] += 1
                    connection.execute(
                        "UPDATE result SET state = 'acknowledged', due = NULL, refused = NULL"
                        " WHERE result_id = ?",
                        (result_id,),
                    )
            return before

        before = self._file.write(update)
        known = before.total()
        changes = Counter({state: -count for state, count in before.items()})
        changes["acknowledged"] += known
        self._tally.add(**changes)
        return known

    def abandoned(self, limit: int = 10_000) -> tuple[Accepted, ...]:
        """Accepted parts without a report, oldest first: right after opening, what a crash left behind."""
        rows = self._file.read(
            "SELECT result_id, sequence, trigger FROM result WHERE state = 'accepted' ORDER BY id LIMIT ?",
            limit,
        )
        return tuple(Accepted(*row) for row in rows)

    def waiting(
        self, limit: int, *, without: Collection[str] = (), after: int | None = None
    ) -> tuple[Committed, ...]:
        """The oldest reports that no broker has confirmed, at most `limit`, leaving out these ids.

        With `after`, the newest among the rows beyond that number (see `last_number`), still in their order.
        A report with a wrong byte in it is a damaged outbox: it is rescued, and the rest goes on.
        """
        order = "ORDER BY id" if after is None else "AND id > ? ORDER BY id DESC"
        found = self._file.read(
            f"SELECT id, result_id FROM result WHERE state = 'committed' AND refused IS NULL {order} LIMIT ?",
            *(() if after is None else (after,)),
            limit + len(without),
        )
        chosen = sorted([row for row in found if row[1] not in without][: max(limit, 0)])
        return self._whole_reports([result_id for _, result_id in chosen])

    def due(self, round_: int, limit: int, *, without: Collection[str] = ()) -> tuple[Committed, ...]:
        """Published reports that the MES did not acknowledge in time, those due longest first."""
        found = self._file.read(
            "SELECT result_id FROM result WHERE due IS NOT NULL AND due <= ? ORDER BY due, id LIMIT ?",
            round_,
            limit + len(without),
        )
        chosen = [result_id for (result_id,) in found if result_id not in without]
        return self._whole_reports(chosen[: max(limit, 0)])

    def tries(self, result_id: str) -> int:
        """How often a report was sent again for want of an ack."""
        rows = self._file.read("SELECT tries FROM result WHERE result_id = ?", result_id)
        return int(rows[0][0]) if rows else 0

    def first_due(self) -> int | None:
        """The earliest round in which a report is due; None when none is."""
        return self._file.one("SELECT min(due) FROM result WHERE due IS NOT NULL")

    def last_number(self) -> int:
        """The number of the newest row: what is written later lies beyond it."""
        return self._file.one("SELECT max(id) FROM result") or 0

    def keys(self, after: tuple[str, int], limit: int) -> tuple[tuple[str, int], ...]:
        """(boot_id, sequence) of the rows behind `after`, in this order, at most `limit`."""
        rows = self._file.read(
            "SELECT boot_id, sequence FROM result WHERE (boot_id, sequence) > (?, ?)"
            " ORDER BY boot_id, sequence LIMIT ?",
            *after,
            limit,
        )
        return tuple((str(boot_id), int(sequence)) for boot_id, sequence in rows)

    def payload(self, boot_id: str, sequence: int) -> str | None:
        """The report of this number; None when it is not written, or no longer kept."""
        rows = self._file.read(
            "SELECT payload FROM result WHERE boot_id = ? AND sequence = ?", boot_id, sequence
        )
        return rows[0][0] if rows else None

    def last_source_sequence(self, source: str) -> int | None:
        """The highest capture number ever accepted from this source; None when there is none."""
        return self._file.one("SELECT max(source_sequence) FROM result WHERE source = ?", source)

    def accepted_keys(self, source: str) -> frozenset[str]:
        """The keys of all captures ever accepted from this source, the newest million."""
        return frozenset(
            key for (key,) in self._file.read("SELECT key FROM capture WHERE source = ?", source)
        )

    def refused(self) -> int:
        """Reports that the broker will not have."""
        return self._file.one("SELECT count(*) FROM result WHERE refused IS NOT NULL") or 0

    def counts(self) -> dict[str, int]:
        """Rows by state; a state without rows is 0. Kept in memory: asking costs nothing."""
        return {state: self._tally[state] for state in STATES}

    def _atomic(self) -> AbstractContextManager[sqlite3.Connection]:
        return self._file.atomic()

    def _whole_reports(self, result_ids: list[str]) -> tuple[Committed, ...]:
        """These reports, in this order; one whose digest is wrong has the outbox rescued and is left out."""
        reports, is_sound = [], True
        for result_id in result_ids:
            rows = self._file.read(
                "SELECT boot_id, sequence, source, source_sequence, payload, digest FROM result"
                " WHERE result_id = ?",
                result_id,
            )
            if rows and is_whole(result_id, *rows[0]):
                reports.append(Committed(result_id, rows[0][4]))
            else:
                is_sound = False
        if not is_sound:
            self._file.rescue("a report is not what was written")
        return tuple(reports)
