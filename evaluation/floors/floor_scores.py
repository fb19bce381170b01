"""Both floors, run on the rows that a bundle is scored on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..scores import ScoredPicture, detection_scores, precision_recall_f, recall_by_size
from ..sets.deeppcb import DEEPPCB_TYPES
from ..sets.example import Row
from ..sets.source import training_rows, warped_row
from ..terminal import Progress
from .baseline_cnn import floor_from_examples
from .baseline_xor import UNNAMED, unnamed, xor_detections

NO_TEMPLATE = "not applicable: the floors look for differences from a template, and these rows have none"


def floor_scores(
    dataset: str, rows: Sequence[Row], types: Sequence[str], box_margin_px: int, warp_seed: int | None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Scores of `xor` and `cnn`, the latter trained now on other rows; without templates a `reason`."""
    if rows and rows[0].read().template is None:
        return {"xor": None, "cnn": None, "reason": NO_TEMPLATE}
    training = training_rows(dataset, rows, box_margin_px)
    return baseline_scores(rows, training, types, warp_seed, progress)


def baseline_scores(
    rows: Sequence[Row], training: Sequence[Row], types: Sequence[str], warp_seed: int | None,
    progress: Progress | None = None, seed: int = 0,
) -> dict[str, Any]:
    """Both floors on `rows`; the second one trained on `training` now, half of it warped if `rows` are."""
    if warp_seed is not None:
        training = [warped_row(row, warp_seed + 1) if i % 2 else row for i, row in enumerate(training)]
    started = time.perf_counter()
    names = tuple(dict.fromkeys([*types, *DEEPPCB_TYPES]))
    floor = floor_from_examples((row.read() for row in training), names, seed=seed, progress=progress)
    minutes = (time.perf_counter() - started) / 60.0
    boxes: list[ScoredPicture] = []
    named: list[ScoredPicture] = []
    ms = {"xor": 0.0, "cnn": 0.0}
    for count, row in enumerate(rows, start=1):
        example = row.read()
        started = time.perf_counter()
        boxes.append(ScoredPicture(unnamed(example.truth), xor_detections(example)))
        middle = time.perf_counter()
        detections, ranked = floor.detections(example)
        named.append(ScoredPicture(example.truth, detections, ranked))
        ms["xor"] += 1000.0 * (middle - started)
        ms["cnn"] += 1000.0 * (time.perf_counter() - middle)
        if progress:
            progress(count, len(rows), "floors")
    return {
        "xor": {"with_class": False, **precision_recall_f(boxes), "recall_by_size": recall_by_size(boxes),
                "map": detection_scores(boxes, (UNNAMED,))["map"], "ms_per_part": ms["xor"] / len(rows)},
        "cnn": {"with_class": True, **detection_scores(named, types), "recall_by_size": recall_by_size(named),
                "ms_per_part": ms["cnn"] / len(rows), "parameters": floor.network.parameters,
                "training_parts": len(training), "training_minutes": minutes, "seed": seed},
    }
