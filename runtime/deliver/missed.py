"""Accepted parts without reports, told to the MES as a run of sequences, `orinspect.not_inspected/1.0`.

The message goes the way of a report, on `result`, under an id and a sequence of its own: the MES stores and
acknowledges it like one, and no sequence is left that nobody accounts for.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


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
    is_simulated: bool

    def to_json(self) -> str:
        """The payload."""
        table = {"schema": "orinspect.not_inspected/1.0", **asdict(self)}
        return json.dumps(table, separators=(",", ":"), ensure_ascii=False)
