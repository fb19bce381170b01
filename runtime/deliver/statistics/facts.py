"""What one committed payload adds to the counters; nothing else is counted.

Two kinds of payload stand in the outbox: reports, and `orinspect.not_inspected/1.0`, which stands for a run
of sequences that were accepted while the outbox had no room, or lost when its file was damaged.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Facts:
    """One payload, about the sequences `first` to `last` of a boot: one of them when it is a report.

    `verdict` is the disposition when there is a verdict, else None and `not_inspected` says why. `captured_s`
    is None while the clock was not synchronised. `defects`: faults by (defect code, type), those of severity
    `ignore` left out.
    """

    boot_id: str
    first: int
    last: int
    captured_s: float | None
    is_simulated: bool
    not_inspected: str
    verdict: str | None = None
    product_id: str = ""
    part_id: str | None = None
    lot: str | None = None
    view: str = ""
    defects: Counter[tuple[str, str]] = field(default_factory=Counter)


def facts_from_payload(payload: str) -> Facts | None:
    """The facts; None for a report that corrects an earlier one, which is counted already.

    KeyError, TypeError or ValueError when this is neither kind of payload.
    """
    table: dict[str, Any] = json.loads(payload)
    if str(table["schema"]).startswith("orinspect.not_inspected/"):
        return _facts_of_run(table)
    return None if table["revision"] else _facts_of_report(table)


def _facts_of_report(table: dict[str, Any]) -> Facts:
    """A report without a verdict (`result_state` is not `completed`) was not inspected, whatever it saw."""
    part, view = table["part"], table["view"]
    faults = [each for each in table["defects"] if each["severity"] != "ignore"]
    done = table["result_state"] == "completed"
    return Facts(
        boot_id=table["boot_id"],
        first=table["sequence"],
        last=table["sequence"],
        captured_s=_seconds(table["captured_at"]) if table["clock"]["synchronised"] else None,
        is_simulated=table["is_simulated"],
        not_inspected="" if done else table["reason_code"] or table["result_state"],
        verdict=table["disposition"] if done else None,
        product_id=part["product_id"],
        part_id=part["part_id"],
        lot=part["lot"],
        view=f"{view['camera_id']}/{view['index']}",
        defects=Counter((each["defect_code"], each["type"]) for each in faults) if done else Counter(),
    )


def _facts_of_run(table: dict[str, Any]) -> Facts:
    """When it happened is not known: the run counts when it was told."""
    missed = table["missed"]
    return Facts(
        boot_id=missed["boot_id"],
        first=missed["first_sequence"],
        last=missed["last_sequence"],
        captured_s=_seconds(table["created_at"]) if table["clock_synchronised"] else None,
        is_simulated=table["is_simulated"],
        not_inspected=table["reason_code"],
    )


def _seconds(text: str) -> float:
    """Unix seconds of what `report.timestamp` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
