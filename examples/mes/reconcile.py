"""What every station accounts for, boot by boot: gaps, ranges, copies, contradictions, clashes."""

from __future__ import annotations

from typing import Any

from .database import Database

BOOTS = (
    "SELECT station, boot_id, MIN(sequence), MAX(sequence), COUNT(*), SUM(received) - COUNT(*),"
    " SUM(CASE WHEN result_state = 'aborted' THEN 1 ELSE 0 END),"
    " SUM(CASE WHEN is_simulated THEN 1 ELSE 0 END), SUM(CASE WHEN revision > 0 THEN 1 ELSE 0 END),"
    " MIN(received_at), MAX(received_at) FROM result GROUP BY station, boot_id ORDER BY 1, 10"
)
BOOT_NAMES = (
    *("station", "boot_id", "first_sequence", "last_sequence", "results", "copies", "aborted", "simulated"),
    *("revisions", "first_received_at", "last_received_at"),
)


def reconciliation(database: Database) -> dict[str, Any]:
    """One table: `boots`, what is missing or wrong in them, and `is_complete`, false when a person must look.

    Copies are no fault, and neither is a range that a station itself reported as not inspected.
    """
    boots = [dict(zip(BOOT_NAMES, row, strict=True)) for row in database.execute(BOOTS)]
    for boot in boots:
        boot.update((name, int(boot[name])) for name in BOOT_NAMES[2:9])
    found: dict[str, Any] = {
        "boots": boots,
        "missing": _rows(
            database,
            "SELECT station, boot_id, first_missing, last_missing FROM sequence_gap ORDER BY 1, 2, 3",
            ("station", "boot_id", "first_sequence", "last_sequence"),
        ),
        "not_inspected": _rows(
            database,
            "SELECT station, missed_boot_id, first_sequence, last_sequence, reason_code FROM not_inspected"
            " ORDER BY 1, 2, 3",
            ("station", "boot_id", "first_sequence", "last_sequence", "reason_code"),
        ),
        "contradictions": _rows(
            database,
            "SELECT station, result_id, 1 + COUNT(*) FROM contradiction GROUP BY 1, 2 ORDER BY 1, 2",
            ("station", "result_id", "contents"),
        ),
        "clashes": _rows(
            database,
            "SELECT station, boot_id, sequence, parts FROM sequence_clash ORDER BY 1, 2, 3",
            ("station", "boot_id", "sequence", "parts"),
        ),
    }
    ((found["quarantined"],),) = database.execute("SELECT COUNT(*) FROM quarantine")
    found["is_complete"] = not (
        found["missing"] or found["contradictions"] or found["clashes"] or found["quarantined"]
    )
    return found


def text_from(found: dict[str, Any]) -> str:
    """The same for a person: a line a boot, then a line a finding, what is wrong in capitals."""
    lines = []
    for boot in found["boots"]:
        counted = ", ".join(
            f"{boot[name]} {name}" for name in ("copies", "aborted", "simulated", "revisions") if boot[name]
        )
        lines.append(
            f"{_place(boot)}: {boot['results']} results up to sequence {boot['last_sequence']}"
            f" since {boot['first_received_at']}; {counted or 'each once'}"
        )
    lines += [
        f"not inspected: {_place(gap)}: {span(gap)}: {gap['reason_code']}" for gap in found["not_inspected"]
    ]
    lines += [f"MISSING {_place(gap)}: {span(gap)}" for gap in found["missing"]]
    lines += [
        f"CLASH {_place(clash)}: sequence {clash['sequence']} is {clash['parts']} parts"
        for clash in found["clashes"]
    ]
    lines += [
        f"CONTRADICTION {entry['station']}: {entry['result_id']} came with {entry['contents']} contents"
        for entry in found["contradictions"]
    ]
    if found["quarantined"]:
        lines.append(f"QUARANTINE {found['quarantined']} messages are no valid reports")
    lines.append("complete" if found["is_complete"] else "NOT COMPLETE")
    return "\n".join(lines)


def span(gap: dict[str, Any]) -> str:
    """`sequence 7`, or `sequences 7 to 9`."""
    first, last = gap["first_sequence"], gap["last_sequence"]
    return f"sequence {first}" if first == last else f"sequences {first} to {last} ({last - first + 1})"


def yields(database: Database) -> list[dict[str, Any]]:
    """The rows of the view `shift_yield`."""
    names = (
        *("station", "day", "shift", "results", "inspected", "not_inspected", "passed", "rejected"),
        *("in_review", "first_passed", "first_pass_yield"),
    )
    rows = _rows(database, f"SELECT {', '.join(names)} FROM shift_yield ORDER BY 1, 2, 3", names)
    for row in rows:
        row["first_pass_yield"] = None if row["first_pass_yield"] is None else float(row["first_pass_yield"])
    return rows


def _rows(database: Database, query: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in database.execute(query)]


def _place(entry: dict[str, Any]) -> str:
    return f"{entry['station']}, boot {entry['boot_id']}"
