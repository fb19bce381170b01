"""Accepted parts without reports, told to the MES as a run of sequences, `orinspect.not_inspected/1.0`.

The message goes the way of a report, on `result`, under an id and a sequence of its own: the MES stores and
acknowledges it like one, and no sequence is left that nobody accounts for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .outbox import Gap, Outbox


@dataclass(frozen=True)
class Missed:
    """Sequences `first_sequence` to `last_sequence` of a boot, both included."""

    boot_id: str
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True)
class NotInspected:
    """One message; `boot_id` and `sequence` are its own, `created_at` is RFC 3339."""

    result_id: str
    created_at: str
    clock_synchronised: bool
    device_id: str
    station_id: str
    boot_id: str
    sequence: int
    missed: Missed
    reason_code: str
    why: str

    def to_json(self) -> str:
        """The payload."""
        table = {"schema": "orinspect.not_inspected/1.0", **asdict(self)}
        return json.dumps(table, separators=(",", ":"), ensure_ascii=False)


def report_gaps(
    outbox: Outbox,
    *,
    device_id: str,
    station_id: str,
    boot_id: str,
    new_id: Callable[[], str],
    created_at: str,
    clock_synchronised: bool,
) -> int:
    """Commit a message for every closed gap of the outbox; how many. DeliveryError when the disk refuses:
    the gaps that are left stay for the next call."""
    done = 0
    while gaps := outbox.gaps():
        for gap in gaps:
            result_id = new_id()

            def payload(sequence: int, gap: Gap = gap, result_id: str = result_id) -> str:
                missed = Missed(gap.boot_id, gap.first, gap.last)
                station = (device_id, station_id, boot_id)
                return NotInspected(
                    result_id, created_at, clock_synchronised, *station, sequence, missed, gap.reason, gap.why
                ).to_json()

            outbox.commit_gap(gap, result_id, boot_id, payload)
            done += 1
    return done
