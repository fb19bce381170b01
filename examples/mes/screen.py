"""What a person sees while the consumer runs: one line a part."""

from __future__ import annotations

from typing import Any

from .store import COPY, NEW, Stored

COLUMNS = "{:<22} {:<11} {:<42} {:>8} {:>7}"


class Screen:
    """Prints at once, also into a pipe; the table's head comes before its first row."""

    def __init__(self) -> None:
        self._has_head = False

    def say(self, line: str) -> None:
        """One line of text."""
        print(line, flush=True)

    def take_stored(self, stored: Stored) -> None:
        """One message and what became of it."""
        if stored.table is None:
            self.say(f"not a valid report, quarantined: {stored.why[:200]}")
        elif stored.outcome == COPY:
            self.say(f"{_name(stored.table)}: received again, not counted again")
        elif stored.outcome != NEW:
            self.say(f"CONTRADICTION: {stored.why}")
        elif missed := stored.table.get("missed"):
            first, last = missed["first_sequence"], missed["last_sequence"]
            self.say(f"not inspected: sequences {first} to {last}, {stored.table['reason_code']}")
        else:
            if not self._has_head:
                self.say(COLUMNS.format("part", "disposition", "defects", "ms", "passes"))
                self._has_head = True
            self.say(row_from_report(stored.table))

    def take_state(self, state: dict[str, Any], is_retained: bool) -> None:
        """The station's state; a retained one tells what was before we came."""
        if not is_retained:
            reason = f" ({state['reason']})" if state["reason"] else ""
            self.say(f"station is {state['state']}{reason}")


def row_from_report(report: dict[str, Any]) -> str:
    """One line of the table; a defect of severity "ignore" is no fault."""
    faults = [defect for defect in report["defects"] if defect["severity"] != "ignore"]
    types: dict[str, int] = {}
    for defect in faults:
        types[defect["type"]] = types.get(defect["type"], 0) + 1
    names = ", ".join(f"{count} {name}" if count > 1 else name for name, count in types.items())
    found = f"{len(faults)}: {names}" if types else ", ".join(report["review_reasons"]) or "none"
    if ignored := len(report["defects"]) - len(faults):
        found += f" (+{ignored} ignored)"
    found = found if len(found) <= 42 else found[:41] + "…"
    milliseconds = f"{report['timings_ms']['total']:.0f}" if report["timings_ms"] else "-"
    passes = str(report["passes"]["row_passes"]) if report["passes"] else "-"
    return COLUMNS.format(_name(report)[-22:], report["disposition"], found, milliseconds, passes)


def _name(report: dict[str, Any]) -> str:
    part = report.get("part", {}).get("part_id")
    return str(part or report["result_id"])
