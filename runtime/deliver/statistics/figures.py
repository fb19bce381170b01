"""The figures of a shift or lot, asked of the counters."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from .counters import EVER
from .shifts import Shift

VERDICTS = ("pass", "reject", "review")


@dataclass(frozen=True)
class Fault:
    """One bar of the Pareto: defects of a type, the results that show it, its share of all defects."""

    defect_code: str
    type: str
    defects: int
    results: int
    share: float


@dataclass(frozen=True)
class Figures:
    """Counts of one shift or lot. inspected = pass + reject + review; a result without a verdict was not.

    First-pass yield: of the parts whose first verdict of all fell in here, the share passed in all views.
    """

    verdicts: dict[str, int]
    not_inspected: dict[str, int]
    first_parts: int
    first_passed: int
    pareto: tuple[Fault, ...]

    @property
    def inspected(self) -> int:
        """Results with a verdict."""
        return sum(self.verdicts.values())

    @property
    def first_pass_yield(self) -> float | None:
        """None while no part had its first verdict here."""
        return round(self.first_passed / self.first_parts, 6) if self.first_parts else None

    def to_table(self) -> dict[str, Any]:
        """As in `stats/shift`."""
        return {
            "inspected": self.inspected,
            **self.verdicts,
            "not_inspected": sum(self.not_inspected.values()),
            "not_inspected_by_reason": self.not_inspected,
            "first_pass": {
                "parts": self.first_parts, "passed": self.first_passed, "yield": self.first_pass_yield
            },
            "pareto": [dict(bar.__dict__) for bar in self.pareto],
        }  # fmt: skip


def figures_of(
    connection: sqlite3.Connection, shift: int, *, is_simulated: bool, lot: str | None = None
) -> Figures:
    """The figures of a shift, or of one of its lots (its key, see `lots_of`)."""
    one_lot = "" if lot is None else " AND lot = :lot"
    values = {"shift": shift, "simulated": is_simulated, "lot": lot}
    rows = connection.execute(
        "SELECT kind, name, sum(amount) FROM tally WHERE shift = :shift AND is_simulated = :simulated"
        f"{one_lot} GROUP BY kind, name",
        values,
    )
    tally: dict[str, dict[str, int]] = {}
    for kind, name, amount in rows:
        tally.setdefault(kind, {})[name] = int(amount)
    parts, passed = connection.execute(
        "SELECT count(*), coalesce(sum(passed), 0) FROM (SELECT min(passed) AS passed FROM first_look"
        f" WHERE shift = :shift AND is_simulated = :simulated{one_lot} GROUP BY product_id, part_id)",
        values,
    ).fetchone()
    nameless = tally.get("nameless", {})
    return Figures(
        {name: tally.get("result", {}).get(name, 0) for name in VERDICTS},
        dict(sorted(tally.get("missed", {}).items())),
        int(parts) + sum(nameless.values()),
        int(passed) + nameless.get("passed", 0),
        _pareto(tally.get("defects", {}), tally.get("results_with", {})),
    )


def totals_of(connection: sqlite3.Connection, *, is_simulated: bool) -> Figures:
    """Everything since the counters were begun; first looks are kept for shifts only and are 0 here."""
    return figures_of(connection, EVER, is_simulated=is_simulated)


def lots_of(
    connection: sqlite3.Connection, shift: int, *, is_simulated: bool
) -> list[tuple[str, str | None]]:
    """(key, lot) of a shift's lots in order; the lot None stands for results without one."""
    rows = connection.execute(
        "SELECT DISTINCT lot FROM tally WHERE shift = ? AND is_simulated = ? ORDER BY lot",
        (shift, is_simulated),
    )
    return [(key, json.loads(key)) for (key,) in rows]


def shift_of(connection: sqlite3.Connection, number: int) -> Shift | None:
    """The shift with this number."""
    row = connection.execute(
        "SELECT key, name, day, starts_at, ends_at FROM shift WHERE id = ?", (number,)
    ).fetchone()
    return None if row is None else Shift(*row)


def number_of(connection: sqlite3.Connection, key: str) -> int | None:
    """The number of the shift with this key; None when nothing was counted in it."""
    row = connection.execute("SELECT id FROM shift WHERE key = ?", (key,)).fetchone()
    return None if row is None else int(row[0])


def shifts_of_day(connection: sqlite3.Connection, shift: Shift) -> list[tuple[int, Shift]]:
    """The shifts that started on the same local day, in order; one without a day stands alone."""
    rows = connection.execute(
        "SELECT id, key, name, day, starts_at, ends_at FROM shift WHERE day = ? OR key = ?"
        " ORDER BY starts_at, id",
        (shift.day, shift.key),
    )
    return [(int(number), Shift(*row)) for number, *row in rows]


def _pareto(defects: dict[str, int], results: dict[str, int]) -> tuple[Fault, ...]:
    """Bars from the longest on."""
    total = sum(defects.values())
    bars = []
    for label, amount in sorted(defects.items(), key=lambda each: (-each[1], each[0])):
        code, name = json.loads(label)
        bars.append(Fault(code, name, amount, results.get(label, 0), round(amount / total, 6)))
    return tuple(bars)
