"""The counters of a local day as two CSV files: a row for each shift and lot, a row for each kind of defect.

RFC 4180 in UTF-8. `lot` is `*` in the row of a whole shift. Simulated parts have rows of their own. A text
that a spreadsheet would take for a formula gets an apostrophe in front: lots and defect types come from
elsewhere.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .counters import Counters
from .figures import Figures, figures_of, lots_of, shifts_of_day
from .shifts import Shift

WHOLE = "*"
COUNTS = (
    "shift", "starts_at", "ends_at", "lot", "is_simulated", "inspected", "pass", "reject", "review",
    "not_inspected", "first_pass_parts", "first_pass_passed", "first_pass_yield", "counting_since",
)  # fmt: skip
DEFECTS = ("shift", "starts_at", "lot", "is_simulated", "defect_code", "type", "defects", "results", "share")


def write_sheets(folder: Path, counters: Counters, shift: Shift) -> tuple[Path, Path]:
    """Both files of the day of a shift, whole or not at all; OSError where the disk refuses.

    When an existing file was counted since another moment (the counters were begun anew in between), it is
    renamed first: its numbers stay.
    """
    name = shift.day or shift.key.replace("/", "-")[:32]
    with counters.atomic() as connection:
        found = [
            (each, lot_name, is_simulated, figures)
            for number, each in shifts_of_day(connection, shift)
            for is_simulated in (False, True)
            for lot_name, figures in (
                (WHOLE, figures_of(connection, number, is_simulated=is_simulated)),
                *(
                    (lot or "", figures_of(connection, number, is_simulated=is_simulated, lot=key))
                    for key, lot in lots_of(connection, number, is_simulated=is_simulated)
                ),
            )
        ]
    since = counters.begun_at
    shown = [row for row in found if row[3].inspected or row[3].not_inspected]
    counts, defects = folder / f"{name}.csv", folder / f"{name}-defects.csv"
    folder.mkdir(parents=True, exist_ok=True)
    _set_aside((counts, defects), since)
    _write(counts, COUNTS, (_count_row(*row, since) for row in shown))
    _write(defects, DEFECTS, (bar for row in shown for bar in _defect_rows(*row)))
    return counts, defects


def _count_row(shift: Shift, lot: str, is_simulated: bool, figures: Figures, since: str) -> list[Any]:
    return [
        shift.name, shift.starts_at, shift.ends_at, lot, str(is_simulated).lower(), figures.inspected,
        *figures.verdicts.values(), sum(figures.not_inspected.values()), figures.first_parts,
        figures.first_passed, figures.first_pass_yield, since,
    ]  # fmt: skip


def _defect_rows(shift: Shift, lot: str, is_simulated: bool, figures: Figures) -> Iterator[list[Any]]:
    for bar in figures.pareto:
        counted = (bar.defect_code, bar.type, bar.defects, bar.results, bar.share)
        yield [shift.name, shift.starts_at, lot, str(is_simulated).lower(), *counted]


def _write(path: Path, header: tuple[str, ...], rows: Iterable[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _plain(cell: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    is_formula = isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{cell}" if is_formula else cell


def _set_aside(paths: tuple[Path, Path], since: str) -> None:
    """Rename the files of an earlier count."""
    try:
        with paths[0].open(encoding="utf-8", newline="") as file:
            last = [row["counting_since"] for row in csv.DictReader(file)][-1:]
    except (OSError, KeyError, ValueError):
        return
    if last and last[0] != since:
        mark = last[0].replace(":", "").replace(".", "")
        for path in paths:
            if path.exists():
                path.replace(path.with_name(f"{path.stem}.since-{mark}.csv"))
