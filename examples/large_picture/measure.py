"""Measures inspections of pictures up to 12 megapixels: time and peak memory against tiles and pixels.

python -m orinspect.examples.large_picture.measure bundle                       # the bundle's first recipe
python -m orinspect.examples.large_picture.measure bundle --recipe metal-surface --sizes 640x480,4000x3000
python -m orinspect.examples.large_picture.measure bundle --rounds 5 --threads 1 --json out.json

Every size is a process of its own, so its peak is its own; the drawing of the picture is not part of it. The
time is the CPU's, all threads added up, because it says the same on a busy machine; the wall time stands
beside it. The fit says whether both are linear: milliseconds a tile and a megapixel, MiB likewise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.capture.frame import Frame
from ...runtime.errors import OrinspectError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.inspector import Inspector
from ..real_size.child import ChildError, Say, measured
from .scenes import panel, surface

SCHEMA = "orinspect.large-picture/1.0"
SIZES = ("640x640", "1280x960", "1920x1080", "2560x1920", "3840x2160", "4000x3000")
DEFECTS = (1, 8)
"""Defects a board or surface: few and many."""


def measure(
    bundle: Path,
    sizes: Sequence[tuple[int, int]],
    *,
    recipe_id: str | None = None,
    defects: Sequence[int] = DEFECTS,
    rounds: int = 3,
    threads: int = 2,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Inspect a picture of every size and number of defects in a process of its own; plain JSON values.

    ChildError when an inspection fails.
    """
    opened = Bundle.open(bundle)
    recipe = opened.recipe(recipe_id).recipe
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for width, height in sizes:
            for count in defects:
                draw = panel if recipe.mode == "compare" else surface
                place = Path(folder) / "frame.npz"
                _save(place, draw(width, height, defects=count))
                found, spent = measured(_inspected, bundle, recipe.id, place, rounds, threads)
                rows.append(
                    {
                        "width": width,
                        "height": height,
                        "defects_drawn_each": count,
                        **found,
                        "peak_rss_mib": spent.peak_rss_mib,
                        "peak_anonymous_mib": spent.peak_anonymous_mib,
                    }
                )
                say(row_text(rows[-1]))
    return {
        "schema": SCHEMA,
        "bundle": {"id": opened.id, "precision": opened.precision},
        "recipe": recipe.id,
        "mode": recipe.mode,
        "levels": list(recipe.tiling.levels),
        "threads": threads,
        "rounds": rounds,
        "rows": rows,
        "fits": {name: linear_fit(rows, name) for name in ("cpu_ms", "peak_rss_mib")},
    }


def linear_fit(rows: Sequence[dict[str, Any]], name: str) -> dict[str, float] | None:
    """Least squares of one figure = start + a_tile * tiles looked at + a_megapixel * megapixels.

    Where the tiles are a fixed number a megapixel (a grid), a_megapixel is left out. `residual` is the
    largest |figure - fit| over the largest figure. None for fewer rows than unknowns and one more.
    """
    known = [row for row in rows if row.get(name) is not None]
    tiles = np.array([row["tiles_looked"] for row in known], float)
    pixels = np.array([row["width"] * row["height"] / 1e6 for row in known], float)
    figures = np.array([row[name] for row in known], float)
    columns = [np.ones_like(tiles), tiles]
    if len(known) > 2 and abs(np.corrcoef(tiles, pixels)[0, 1]) < 0.99:
        columns.append(pixels)
    if len(known) <= len(columns):
        return None
    system = np.stack(columns, axis=1)
    # Relative weights: a small picture's milliseconds count as much as a large one's.
    weight = 1.0 / np.maximum(figures, 1e-9)
    solved = np.linalg.lstsq(system * weight[:, None], figures * weight, rcond=None)[0]
    off = np.abs(system @ solved - figures)
    return {
        "start": float(solved[0]),
        "a_tile": float(solved[1]),
        "a_megapixel": float(solved[2]) if len(columns) > 2 else 0.0,
        "residual": float(off.max() / figures.max()),
    }


def row_text(row: dict[str, Any]) -> str:
    """One line of the table."""
    looked = max(row["tiles_looked"], 1)
    return (
        f"{row['width']:5d} x {row['height']:<5d} {row['tiles']:6d} {row['tiles_looked']:6d}"
        f" {row['tiles_decoded']:7d} {row['found']:6d} {row['wall_ms']:9.0f} {row['cpu_ms']:9.0f}"
        f" {row['cpu_ms'] / looked:8.2f} {row['peak_rss_mib'] or 0:9.0f}"
    )


def table_text(result: dict[str, Any]) -> str:
    """Table and fits for the terminal."""
    head = f"{result['recipe']} ({result['mode']}), {result['bundle']['precision']}"
    lines = [
        f"{head}, {result['threads']} threads",
        "  picture      tiles looked decoded  found   wall ms    CPU ms  ms/tile  peak MiB",
    ]
    lines += [row_text(row) for row in result["rows"]]
    for name, fit in result["fits"].items():
        if fit is not None:
            lines.append(
                f"{name} = {fit['start']:.1f} + {fit['a_tile']:.4g} a tile"
                f" + {fit['a_megapixel']:.4g} a megapixel,"
                f" off by at most {100 * fit['residual']:.1f} % of the largest"
            )
    return "\n".join(lines)


def _save(place: Path, frame: Frame) -> None:
    pictures = {"image": frame.image}
    if frame.template is not None:
        pictures["template"] = frame.template
    np.savez(place, **pictures)  # type: ignore[arg-type]


def _inspected(
    say: Say, bundle: Path, recipe_id: str, place: Path, rounds: int, threads: int
) -> dict[str, Any]:
    """The child: inspects one frame `rounds` times after one that warms up."""
    with np.load(place) as pictures:
        template = pictures.get("template", None)
        frame = Frame(pictures["image"], template, 1, 0.0, 0, "large_picture", is_simulated=True)
    with Inspector(Bundle.open(bundle, verify=False), recipe_id, threads) as inspector:
        inspector.inspect(frame)
        walls, spent = [], []
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), time.process_time()
            inspection = inspector.inspect(frame)
            walls.append(1e3 * (time.perf_counter() - wall))
            spent.append(1e3 * (time.process_time() - cpu))
    passes = inspection.passes
    return {
        "tiles": passes.tiles,
        "tiles_looked": passes.tiles - passes.tiles_gated,
        "tiles_decoded": passes.tiles_decoded,
        "found": len(inspection.defects),
        "wall_ms": min(walls),
        "cpu_ms": min(spent),
        "stages_ms": {name: round(value, 1) for name, value in inspection.timings_ms.items()},
    }


def size_from_text(text: str) -> tuple[int, int]:
    """`4000x3000` as (4000, 3000); ValueError on anything else."""
    width, times, height = text.partition("x")
    if not times or int(width) < 1 or int(height) < 1:
        raise ValueError(f"{text!r} is no size; write for instance 4000x3000")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: a line a size on stderr, the table on stdout, the figures in --json."""
    parser = argparse.ArgumentParser(description="Measure inspections of large pictures.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    parser.add_argument("--recipe", metavar="ID", help="the bundle's first")
    parser.add_argument("--sizes", default=",".join(SIZES), help="(%(default)s)")
    parser.add_argument("--defects", default=",".join(map(str, DEFECTS)), help="each scene (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="one more warms up (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    given = parser.parse_args(argv)
    try:
        sizes = [size_from_text(text) for text in given.sizes.split(",")]
        defects = [int(text) for text in given.defects.split(",")]
    except ValueError as problem:
        parser.error(str(problem))
    try:
        result = measure(
            given.bundle, sizes, recipe_id=given.recipe, defects=defects, rounds=given.rounds,
            threads=given.threads, say=lambda line: print(line, file=sys.stderr),
        )
    except (ChildError, OrinspectError) as problem:
        print(f"measure: {problem}", file=sys.stderr)
        return 1
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table_text(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
