"""What a standard allows: the tolerance of a grade at a nominal size, from the tables beside this file.

`iso-286-1.json`: standard tolerance grades IT5 to IT14, the width of a tolerance zone. `iso-2768-1.json`:
general tolerances f, m, c, v, the permissible deviation to either side. Ranges are above .. up to and
including.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ..errors import RecipeError

Dimension = Literal["linear", "radius"]
Zone = Literal["js", "H", "h"]

TABLES = ("iso-286-1.json", "iso-2768-1.json")
ROUGHNESS = re.compile(r"\s*(ra|rz|rmax|rq|rt|n\s*\d)\s*[<≤=]*\s*[\d.,]*", re.IGNORECASE)
"""Ra 1.6, Rz<=6.3, N7: limits of a surface's roughness, in um."""

ROUGHNESS_STANDARDS = re.compile(r"ISO\s*(1302|4287|21920)|GB/T\s*(131|1031|3505)", re.IGNORECASE)


@dataclass(frozen=True)
class Tolerance:
    """What a standard allows at one nominal size.

    standard: with its edition, as a report names it; width_mm: of the whole zone; deviation_mm: how far from
    the nominal form at most, which is the whole zone of an IT grade and one side of a general tolerance;
    is_symmetric: the zone lies on both sides of the nominal size by its definition; note: how the name in the
    recipe was read, None when it is the standard itself.
    """

    standard: str
    grade: str
    nominal_mm: float
    width_mm: Decimal
    deviation_mm: Decimal
    is_symmetric: bool
    note: str | None

    def zone_mm(self, zone: Zone) -> tuple[Decimal, Decimal]:
        """Least and largest size allowed: around the nominal size ("js"), above it ("H") or below ("h")."""
        nominal = Decimal(repr(self.nominal_mm))
        if zone == "js" or self.is_symmetric:
            return nominal - self.width_mm / 2, nominal + self.width_mm / 2
        return (nominal, nominal + self.width_mm) if zone == "H" else (nominal - self.width_mm, nominal)


def tolerance_of(
    standard: str, grade: str, nominal_mm: float, *, dimension: Dimension = "linear"
) -> Tolerance:
    """The tolerance, or a RecipeError in one sentence that says why there is none."""
    _refuse_roughness(standard, grade)
    table = _table_of(standard)
    if grade not in table["grades"]:
        known = ", ".join(table["grades"])
        raise RecipeError(f"{table['standard']} has no grade {grade!r} here; it has {known}")
    rows = table["rows"] if _is_it(table) else table["dimensions"][dimension]
    if _is_it(table) and dimension != "linear":
        raise RecipeError(f"{table['standard']} has linear sizes only, not dimension {dimension!r}")
    value = _value_at(table, rows, grade, nominal_mm)
    amount = Decimal(str(value)) / (1000 if table["unit"] == "um" else 1)
    is_symmetric = not _is_it(table)
    named, note = table["names"][standard]
    return Tolerance(
        standard=named,
        grade=grade,
        nominal_mm=nominal_mm,
        width_mm=amount * 2 if is_symmetric else amount,
        deviation_mm=amount,
        is_symmetric=is_symmetric,
        note=note,
    )


def _refuse_roughness(standard: str, grade: str) -> None:
    """An Ra limit beside an IT grade is a mix-up that no table can answer."""
    if ROUGHNESS.fullmatch(grade) or ROUGHNESS_STANDARDS.match(standard.strip()):
        raise RecipeError(
            f"{grade!r} of {standard!r} is a limit of surface roughness, which is not a tolerance"
            " grade: an IT grade limits a size in mm, Ra the height of a profile in um, which no camera"
            " measures; give a grade such as 'IT7' and check Ra with a roughness tester"
        )


def _value_at(table: dict[str, Any], rows: list[dict[str, Any]], grade: str, nominal_mm: float) -> float:
    """The entry of one row and column; RecipeError outside the table and where the standard has a dash."""
    name, least = table["standard"], table["above_mm"]
    most = rows[-1]["up_to_mm"]
    includes = bool(table.get("includes_least"))
    is_low = nominal_mm < least if includes else nominal_mm <= least
    if not math.isfinite(nominal_mm) or is_low or (most is not None and nominal_mm > most):
        start = f"from {least:g} mm" if includes else f"above {least:g} mm"
        end = "" if most is None else f" up to and including {most:g} mm"
        raise RecipeError(f"nominal_mm is {nominal_mm:g}; {name} has values {start}{end}")
    row = next(row for row in rows if row["up_to_mm"] is None or nominal_mm <= row["up_to_mm"])
    value: float | None = row["width" if _is_it(table) else "plus_minus"][table["grades"].index(grade)]
    if value is None or nominal_mm <= table.get("above_mm_of_grade", {}).get(grade, 0):
        raise RecipeError(f"{name} gives no tolerance for grade {grade} at {nominal_mm:g} mm")
    return value


def _is_it(table: dict[str, Any]) -> bool:
    return "rows" in table


def _table_of(standard: str) -> dict[str, Any]:
    tables = [_read_table(name) for name in TABLES]
    for table in tables:
        if standard in table["names"]:
            return table
    known = ", ".join(name for table in tables for name in table["names"])
    raise RecipeError(f"standard {standard!r} is not known here; known are {known}")


@cache
def _read_table(name: str) -> dict[str, Any]:
    """A table of this folder; it is ours, so it is not checked again."""
    table: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return table
