"""False alarms on good parts: templates held against re-captured copies of themselves, gate on and off.

Every part here is good by construction, so that whatever is reported is a false alarm. Tiles are counted as
the grid over the part, whether the gate spared them or not.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...runtime.capture.frame import Frame
from ...runtime.errors import DataSetError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.inspector import Inspection, Inspector
from ...runtime.judge.assessment import Setup
from ..evaluate import named_bundle, rounded, thinned_rows
from ..inspected import judged, setup_for
from ..rates.binomial import share_with_bounds, upper_bound
from ..sets.example import Example, Row
from ..sets.source import rows_from_source
from ..terminal import Progress
from .recapture import NEUTRAL, Recapture, captured_pair, draw_recapture

GOOD_PREFIX = "good:"
GATES = {"on": (True,), "off": (False,), "both": (True, False)}
DISPOSITIONS = ("pass", "reject", "review")
MOST_LISTED = 50


@dataclass
class Alarms:
    """What one setting of the gate said about the good parts."""

    parts: int = 0
    tiles: int = 0
    tiles_looked_at: int = 0
    tiles_decoded: int = 0
    alarmed: list[dict[str, Any]] = field(default_factory=list)
    dispositions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DISPOSITIONS, 0))
    failed: int = 0
    ms: float = 0.0

    def add(self, inspection: Inspection, disposition: str, total_ms: float) -> None:
        """Count one part."""
        passes = inspection.passes
        self.parts += 1
        self.tiles += passes.tiles
        self.tiles_looked_at += passes.tiles - passes.tiles_gated
        self.tiles_decoded += passes.tiles_decoded
        self.dispositions[disposition] += 1
        self.failed += inspection.failed is not None
        self.ms += total_ms


def good_part_figures(
    bundle_path: Path, source: str, *, recipe_id: str | None = None, split: str | None = None,
    list_path: Path | None = None, limit: int | None = None, copies: int = 1, seed: int = 0,
    gate: str = "both", threads: int = 2, progress: Progress | None = None,
) -> dict[str, Any]:
    """Inspect `copies` re-captured copies of every template of `source` (less its `good:`); JSON-ready.

    `gate`: one of GATES. The same seed gives the same copies. DataSetError when rows have no template.
    """
    bundle = Bundle.open(bundle_path)
    with ExitStack() as stack:
        inspectors = {is_on: stack.enter_context(Inspector(bundle, recipe_id, threads, gated=is_on))
                      for is_on in GATES[gate]}
        first = next(iter(inspectors.values()))
        rows = thinned_rows(rows_from_source(source.removeprefix(GOOD_PREFIX), split=split,
                                             list_path=list_path,
                                             box_margin_px=first.recipe.box_margin_px), limit)
        setup = setup_for(bundle, first)
        figures = {is_on: Alarms() for is_on in inspectors}
        for number, (example, copy, capture) in enumerate(_captures(rows, copies, seed)):
            frame = _frame(example, capture)
            for is_on, inspector in inspectors.items():
                found = _looked_at(inspector, frame, setup, figures[is_on])
                if found.defects:
                    figures[is_on].alarmed.append(_entry(example, copy, capture, found, inspector))
            if progress:
                progress(number + 1, len(rows) * copies, "good parts")
    table = {("on" if is_on else "off"): _figures(alarms) for is_on, alarms in figures.items()}
    return dict(rounded({
        "dataset": source, "bundle": named_bundle(bundle), "recipe": first.recipe.id, "threads": threads,
        "seed": seed, "templates": len(rows), "copies": copies, "parts": len(rows) * copies, "gate": table,
    }))


def _captures(
    rows: Sequence[Row], copies: int, seed: int
) -> Iterator[tuple[Example, int, Recapture]]:
    """Every template with the capture of each of its copies."""
    for row in rows:
        example = row.read()
        if example.template is None:
            raise DataSetError(f"{row.name} has no template to capture again; good: needs pairs")
        for copy in range(copies):
            yield example, copy, draw_recapture(seed, zlib.crc32(row.name.encode("utf-8")), copy)


def _frame(example: Example, capture: Recapture) -> Frame:
    """The copy as the part, the template as itself, both less an edge."""
    template, part = captured_pair(example.golden, capture)
    return dataclasses.replace(example, image=part, template=template, truth=()).frame(0)


def _looked_at(inspector: Inspector, frame: Frame, setup: Setup, alarms: Alarms) -> Inspection:
    """Inspect, judge and count one part."""
    inspection = inspector.inspect(frame)
    total_ms = sum(inspection.timings_ms.values())
    alarms.add(inspection, judged(frame, inspection, setup, total_ms).disposition, total_ms)
    return inspection


def _entry(
    example: Example, copy: int, capture: Recapture, found: Inspection, inspector: Inspector
) -> dict[str, Any]:
    """One false alarm: what was said, what was done to the part, and without which of it nothing is said.

    Only disturbances that alone silence it are named; none when it takes several, or when any would do.
    """
    silenced_by = [name for name in NEUTRAL
                   if not inspector.inspect(_frame(example, capture.without(name))).defects]
    return {
        "image": example.name, "copy": copy, "silenced_without": silenced_by,
        "defects": [{"type": one.type, "bbox": [round(float(side), 1) for side in one.bbox_xyxy],
                     "confidence": float(one.confidence), "detector": one.detector}
                    for one in found.defects],
        "capture": {name: value for name, value in dataclasses.asdict(capture).items() if name != "seed"},
    }


def _figures(alarms: Alarms) -> dict[str, Any]:
    """Shares a part and a tile with bounds; `upper_95` is one-sided."""
    count = len(alarms.alarmed)
    defects = sum(len(entry["defects"]) for entry in alarms.alarmed)
    stopped = alarms.parts - alarms.dispositions["pass"]
    blamed = {name: sum(name in entry["silenced_without"] for entry in alarms.alarmed) for name in NEUTRAL}
    names = {entry["image"] for entry in alarms.alarmed}
    return {
        "parts": alarms.parts, "tiles": alarms.tiles, "tiles_looked_at": alarms.tiles_looked_at,
        "tiles_decoded": alarms.tiles_decoded,
        "false_alarm": {**share_with_bounds(count, alarms.parts),
                        "upper_95": upper_bound(count, alarms.parts)},
        "a_tile": {"count": defects, "tiles": alarms.tiles, "rate": defects / alarms.tiles,
                   "upper_95": upper_bound(min(defects, alarms.tiles), alarms.tiles)},
        "stopped": {**share_with_bounds(stopped, alarms.parts),
                    "upper_95": upper_bound(stopped, alarms.parts)},
        "dispositions": alarms.dispositions, "failed": alarms.failed,
        "templates_with_alarms": len(names), "silenced_without": blamed,
        "ms_per_part": alarms.ms / max(alarms.parts, 1), "alarms": alarms.alarmed[:MOST_LISTED],
    }
