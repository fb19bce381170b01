"""What one report adds to the counters, read from the payload that was committed: nothing else is counted."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Facts:
    """One report. `verdict` is its disposition when a verdict exists, else None and `not_inspected` says why.

    `captured_s` is None while the clock was not synchronised. `defects`: faults by (defect code, type), those
    of severity `ignore` left out.
    """

    boot_id: str
    sequence: int
    captured_s: float | None
    is_simulated: bool
    product_id: str
    part_id: str | None
    lot: str | None
    view: str
    verdict: str | None
    not_inspected: str
    defects: Counter[tuple[str, str]]


def facts_from_payload(payload: str) -> Facts | None:
    """The facts of a report; None for one that corrects an earlier one, which is counted already.

    A report without a verdict (`result_state` is not `completed`) was not inspected, whatever it looked at.
    KeyError, TypeError or ValueError when this is no report.
    """
    table: dict[str, Any] = json.loads(payload)
    if table["revision"]:
        return None
    part, view = table["part"], table["view"]
    captured = datetime.fromisoformat(table["captured_at"].replace("Z", "+00:00"))
    faults = [each for each in table["defects"] if each["severity"] != "ignore"]
    done = table["result_state"] == "completed"
    return Facts(
        boot_id=table["boot_id"],
        sequence=table["sequence"],
        captured_s=captured.timestamp() if table["clock"]["synchronised"] else None,
        is_simulated=table["is_simulated"],
        product_id=part["product_id"],
        part_id=part["part_id"],
        lot=part["lot"],
        view=f"{view['camera_id']}/{view['index']}",
        verdict=table["disposition"] if done else None,
        not_inspected="" if done else table["reason_code"] or table["result_state"],
        defects=Counter((each["defect_code"], each["type"]) for each in faults) if done else Counter(),
    )
