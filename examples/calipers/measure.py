"""How right the calipers are, on pictures whose truth is known: errors, coverage of the uncertainty, cost.

python -m orinspect.examples.calipers.measure [--json] [--specimens 2000]

Prints the share of lengths within 1.5 px, the share of true values inside the stated uncertainty (k = 2:
95 %), median errors in px and in mm, by condition. Scenes of metal and boards: scenes.py beside this. The
factors of the uncertainty budget were fitted on the specimens 0 to 899 and 5000 to 6199; what is printed are
others, from 30000.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...runtime.judge.measure.calipers import measure_defect
from ...runtime.judge.measure.measurement import Measurement
from ...runtime.judge.scale import plain_scale
from .populations import SCALE_UNCERTAINTY, Specimen, specimen

FIRST_SPECIMEN = 30000
WITHIN_PX = 1.5
SIZES = ("length", "width", "area")


@dataclass(frozen=True)
class Try:
    """One measured defect: errors and expanded uncertainties of length, width (mm) and area (mm2)."""

    groups: dict[str, str]
    mm_per_px: float
    truth: tuple[float, float, float]
    found: tuple[float, float, float] | None
    stated: tuple[float, float, float] | None


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("--specimens", type=int, default=2000, help="drawn shapes (%(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    table = measured(arguments.specimens)
    print(json.dumps(table, indent=1) if arguments.json else table_text(table))
    return 0


def measured(specimens: int) -> dict[str, Any]:
    """Everything that is printed, as one table."""
    shapes = [try_of_specimen(specimen(FIRST_SPECIMEN + number)) for number in range(specimens)]
    return {
        "specimens": rows_of_groups(shapes),
        "ms_per_defect_60_px": round(milliseconds(), 2),
    }


def try_of_specimen(drawn: Specimen) -> Try:
    """Measure one specimen with the scale that its calibration found."""
    scale = plain_scale(drawn.stated_mm_per_px, SCALE_UNCERTAINTY * drawn.stated_mm_per_px)
    found = measure_defect(drawn.image, drawn.box, scale=scale, template=drawn.template)
    size = drawn.mm_per_px
    groups = {
        "": "all",
        "mm/px": f"{size:g}",
        "shape": drawn.kind,
        "surface": drawn.surface,
        "blur px": _bin(drawn.blur_px, (0.5, 1.0, 1.5, 2.0)),
        "noise / contrast": _bin(drawn.noise / drawn.contrast, (0.0, 0.05, 0.1, 0.2, 0.4)),
        "thickness / blur": _bin(drawn.thickness / drawn.blur_px, (0, 1, 2, 3, 5, 100)),
        "length px": _bin(drawn.length, (0, 10, 20, 40, 80, 200)),
    }
    truth = (drawn.length * size, drawn.width * size, drawn.area * size**2)
    return try_of_measurement(groups, size, truth, found)


def rows_of_groups(tries: list[Try]) -> list[dict[str, Any]]:
    """One row a condition, in the order of the conditions."""
    names = list(dict.fromkeys((name, one.groups[name]) for one in tries for name in one.groups))
    names.sort(key=lambda pair: list(tries[0].groups).index(pair[0]))
    return [
        _row(f"{name} {value}".strip(), [one for one in tries if one.groups[name] == value])
        for name, value in names
    ]


def milliseconds(rounds: int = 40) -> float:
    """CPU milliseconds for one defect of 60 px in colour, the median of many."""
    drawn = next(
        one
        for one in map(specimen, range(FIRST_SPECIMEN, FIRST_SPECIMEN + 2000))
        if 55 < one.length < 65 and one.image.ndim == 3
    )
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        measure_defect(drawn.image, drawn.box, scale=plain_scale(0.02))
        taken.append(time.process_time() - start)
    return 1000.0 * float(np.median(taken))


def table_text(table: dict[str, Any]) -> str:
    """The table for a terminal."""
    lines = []
    heads = (f" | {name:>6s} cov {'bias':>7s} {'median':>7s} {'U':>7s}" for name in SIZES)
    lines += [f"{'condition':34s} {'n':>5s} {'null':>4s} {'<1.5 px':>8s}" + "".join(heads)]
    for row in table["specimens"]:
        within = 100 * row["within_1.5_px"]
        cells = [f"{row['condition']:34s} {row['n']:5d} {row['null']:4d} {within:7.1f}%"]
        cells += [
            f"{100 * row[name]['coverage']:9.1f}% {row[name]['bias_px']:7.2f} "
            f"{row[name]['median_error_px']:7.2f} {row[name]['median_uncertainty_px']:7.2f}"
            for name in SIZES
        ]
        lines.append(" | ".join(cells))
    lines.append(f"a defect of 60 px: {table['ms_per_defect_60_px']} ms of CPU")
    return "\n".join(lines)


def try_of_measurement(
    groups: dict[str, str], mm_per_px: float, truth: tuple[float, float, float], found: Measurement
) -> Try:
    """A measurement beside the truth: length and width in mm, area in mm2."""
    sizes = found.size_mm
    parts = None if sizes is None else (sizes.length, sizes.width, sizes.area_mm2)
    if parts is None or any(part is None for part in parts):
        return Try(groups, mm_per_px, truth, None, None)
    kept = [part for part in parts if part is not None]
    values, uncertainties = zip(*((part.value, part.expanded_uncertainty) for part in kept), strict=True)
    return Try(groups, mm_per_px, truth, values, uncertainties)


def _row(condition: str, tries: list[Try]) -> dict[str, Any]:
    """The figures of one condition; an area's are in px2, and its error also as a share."""
    known = [one for one in tries if one.found is not None and one.stated is not None]
    row: dict[str, Any] = {"condition": condition, "n": len(tries), "null": len(tries) - len(known)}
    units = np.array([[one.mm_per_px, one.mm_per_px, one.mm_per_px**2] for one in known]).reshape(-1, 3)
    truth = np.array([one.truth for one in known]).reshape(-1, 3)
    error = np.array([one.found for one in known]).reshape(-1, 3) - truth
    stated = np.array([one.stated for one in known]).reshape(-1, 3)
    row["within_1.5_px"] = _share(np.abs(error / units)[:, 0] <= WITHIN_PX)
    for index, name in enumerate(SIZES):
        of = (error / units)[:, index]
        row[name] = {
            "coverage": _share(np.abs(error[:, index]) <= stated[:, index]),
            "bias_px": _median(of),
            "median_error_px": _median(np.abs(of)),
            "median_error_mm": _median(np.abs(error[:, index]), 5),
            "median_uncertainty_px": _median((stated / units)[:, index]),
            "median_error_share": _median(np.abs(error[:, index] / truth[:, index]), 4),
        }
    return row


def _share(of: Any) -> float:
    return round(float(np.mean(of)), 4) if len(of) else float("nan")


def _median(values: Any, digits: int = 3) -> float:
    return round(float(np.median(values)), digits) if len(values) else float("nan")


def _bin(value: float, edges: tuple[float, ...]) -> str:
    upper = next((edge for edge in edges[1:] if value <= edge), edges[-1])
    return f"{edges[edges.index(upper) - 1]:g} to {upper:g}"


if __name__ == "__main__":
    sys.exit(main())
