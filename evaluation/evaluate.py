"""Score a bundle on a labelled data set: dense head, words and both together, beside two floors.

`evaluate_bundle` returns one JSON object (DESIGN section 4, "Outputs that scripts read"); `terminal.py`
prints it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import DataSetError
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.fuse import CandidateDefect
from ..runtime.infer.inspector import Inspection, Inspector, Passes
from ..runtime.recipe import Thresholds
from .datasets import DEEPPCB_TYPES, Row, rows_from_source, training_rows, warped_row
from .floors.baseline_cnn import floor_from_examples
from .floors.baseline_xor import UNNAMED, unnamed, xor_detections
from .scores import (
    IOU_MIN,
    NamedBox,
    ScoredPicture,
    detection_scores,
    iou_matrix,
    precision_recall_f,
    recall_by_size,
)
from .terminal import Progress

DETECTORS = ("dense", "words", "both")
# Candidates that nobody reported come after every reported defect in the ranking for average precision.
TAIL_FACTOR = 0.1
PASS_FIELDS = ("row_passes", "row_passes_forced", "engine_calls", "tiles", "tiles_gated", "tiles_decoded",
          "canonical_tokens")
# Issue 2: at most 15 row-passes a defect and 2 a tile.
BUDGET_PER_DEFECT = 15
BUDGET_PER_TILE = 2


@dataclass(frozen=True)
class EvaluatedPart:
    """One part as inspected: its row, its truth, and what was found."""

    name: str
    group: str
    truth: tuple[NamedBox, ...]
    inspection: Inspection
    total_ms: float


def evaluate_bundle(
    bundle_path: Path, dataset: str, *, recipe_id: str | None = None, split: str | None = None,
    list_path: Path | None = None, warp_seed: int | None = None, predictions: Path | None = None,
    baseline: bool = False, threads: int = 2, limit: int | None = None, progress: Progress | None = None,
) -> dict[str, Any]:
    """Inspect every row of `dataset` with the bundle and score it; one JSON-ready object.

    `predictions` gets a JSON line a picture, written whole at the end. `limit` takes every n-th row so that
    about that many remain. BundleError, RecipeError or DataSetError, and no file, when something is wrong.
    """
    bundle = Bundle.open(bundle_path)
    with Inspector(bundle, recipe_id, threads) as inspector:
        recipe = inspector.recipe
        rows = rows_from_source(dataset, split=split, list_path=list_path, warp_seed=warp_seed,
                                box_margin_px=recipe.box_margin_px)
        rows = thinned_rows(rows, limit)
        parts = inspected_parts(inspector, rows, progress)
    result: dict[str, Any] = {
        "dataset": dataset, "split": _split_name(dataset, split, list_path), "warp_seed": warp_seed,
        "bundle": {"id": bundle.id, "precision": bundle.precision}, "recipe": recipe.id, "iou_min": IOU_MIN,
        "threads": threads, **scored_parts(parts, recipe.types, recipe.thresholds), "baseline": None,
    }
    if baseline:
        training = training_rows(dataset, rows, recipe.box_margin_px)
        result["baseline"] = baseline_scores(rows, training, recipe.types, warp_seed, progress)
    if predictions is not None:
        write_predictions(predictions, parts)
    return dict(rounded(result))


def thinned_rows(rows: list[Row], limit: int | None) -> list[Row]:
    """About `limit` rows spread evenly over all; all of them for None."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index * len(rows) // limit] for index in range(limit)]


def inspected_parts(
    inspector: Inspector, rows: Sequence[Row], progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[EvaluatedPart]:
    """Every row read and inspected, in order; pictures are not kept."""
    parts = []
    for sequence, row in enumerate(rows):
        example = row.read()
        started = clock()
        inspection = inspector.inspect(example.frame(sequence))
        total_ms = 1000.0 * (clock() - started)
        parts.append(EvaluatedPart(example.name, example.group, example.truth, inspection, total_ms))
        if progress:
            progress(sequence + 1, len(rows), "evaluate")
    return parts


def scored_parts(
    parts: Sequence[EvaluatedPart], types: Sequence[str], thresholds: Thresholds
) -> dict[str, Any]:
    """Everything that `evaluate` says about the bundle itself; top-level figures are those of `both`."""
    scored = {name: [_scored(part, name, thresholds) for part in parts] for name in DETECTORS}
    per_detector = {name: detection_scores(pictures, types) for name, pictures in scored.items()}
    both = scored["both"]
    boards = sorted({part.group for part in parts})
    stages = dict.fromkeys(stage for part in parts for stage in part.inspection.timings_ms)
    return {
        "parts": len(parts),
        **per_detector["both"],
        "per_detector": per_detector,
        "per_board": {board: {"parts": sum(part.group == board for part in parts), **precision_recall_f(
            [picture for picture, part in zip(both, parts, strict=True) if part.group == board])}
            for board in boards},
        "recall_by_size": recall_by_size(both),
        "ms_per_part": {
            **{name: _mean(part.inspection.timings_ms.get(name, 0.0) for part in parts) for name in stages},
            "total": _mean(part.total_ms for part in parts),
        },
        "passes": passes_summary([(part.inspection.passes, len(part.inspection.defects)) for part in parts]),
        "failed_parts": [{"image": part.name, "reason": part.inspection.failed}
                         for part in parts if part.inspection.failed is not None],
    }


def passes_summary(parts: Sequence[tuple[Passes, int]]) -> dict[str, Any]:
    """Sums of `Passes` over parts given with their number of reported defects.

    `row_passes_per_defect` divides by reported defects, `row_passes_per_tile` by tiles that were decoded,
    None where there is none. `budget` allows 15 a reported defect and 2 a tile that reached the network;
    `parts_over` counts the parts that needed more. A defect that two overlapping tiles hold is decoded twice
    and reported once.
    """
    sums: dict[str, int] = {
        name: sum(int(getattr(passes, name)) for passes, _ in parts) for name in PASS_FIELDS
    }
    defects = sum(count for _, count in parts)
    over = sum(passes.row_passes > _allowed(passes, count) for passes, count in parts)
    return {
        **sums,
        "defects": defects,
        "row_passes_per_defect": _ratio(sums["row_passes"], defects),
        "row_passes_per_tile": _ratio(sums["row_passes"], sums["tiles_decoded"]),
        "engine_calls_per_part": _ratio(sums["engine_calls"], len(parts)),
        "canonical_tokens_per_part": _ratio(sums["canonical_tokens"], len(parts)),
        "budget": {"allowed": sum(_allowed(passes, count) for passes, count in parts),
                   "used": sums["row_passes"], "parts_over": over},
    }


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


def write_predictions(path: Path, parts: Sequence[EvaluatedPart]) -> None:
    """One JSON line a picture: `{"image", "defects": [{"type", "bbox", "confidence"}]}`; written whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as lines:
            for part in parts:
                defects = [{"type": box.type, "bbox": [round(value, 2) for value in box.bbox_xyxy],
                            "confidence": round(box.confidence, 5)}
                           for box in _boxes(part.inspection.defects)]
                lines.write(json.dumps({"image": part.name, "defects": defects}) + "\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataSetError(f"{path} cannot be written: {error.strerror or error}") from error


def rounded(value: Any) -> Any:
    """The same nested value with floats to six digits behind the point, for reading and for diffs."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    return round(value, 6) if isinstance(value, float) else value


def _scored(part: EvaluatedPart, detector: str, thresholds: Thresholds) -> ScoredPicture:
    """One part as one detector saw it; `dense` and `words` stand by what passes their own threshold."""
    inspection = part.inspection
    if detector == "both":
        said = _boxes(inspection.defects)
        tail = [NamedBox(box.type, box.bbox_xyxy, TAIL_FACTOR * box.confidence)
                for box in _boxes((*inspection.dense, *inspection.words))
                if not said or float(iou_matrix([box], said).max()) <= IOU_MIN]
        return ScoredPicture(part.truth, said, (*said, *tail))
    ranked = _boxes(inspection.dense if detector == "dense" else inspection.words)
    limit = thresholds.presence if detector == "dense" else thresholds.words
    return ScoredPicture(part.truth, tuple(box for box in ranked if box.confidence >= limit), ranked)


def _boxes(defects: Iterable[CandidateDefect]) -> tuple[NamedBox, ...]:
    """Candidates of the inspector as boxes to score."""
    return tuple(NamedBox(one.type, tuple(map(float, one.bbox_xyxy)), float(one.confidence))
                 for one in defects)


def _split_name(dataset: str, split: str | None, list_path: Path | None) -> str:
    """What was scored, for the report."""
    if list_path is not None:
        return f"list {list_path.name}"
    return "scenes" if dataset.startswith("scenes:") else split or "validation"


def _mean(values: Iterable[float]) -> float:
    """Mean, 0 for nothing."""
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0


def _allowed(passes: Passes, defects: int) -> int:
    """Row-passes that one part may take."""
    return BUDGET_PER_DEFECT * defects + BUDGET_PER_TILE * (passes.tiles - passes.tiles_gated)


def _ratio(value: int, count: int) -> float | None:
    """Mean, None for nothing."""
    return value / count if count else None
