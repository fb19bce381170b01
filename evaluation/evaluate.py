"""Score a bundle on a labelled data set: dense head, words and both together, beside two floors.

`evaluate_bundle` returns one JSON object (docs/evaluate.md names its keys); `terminal.py` prints it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..runtime.errors import DataSetError
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.inspector import Inspector
from ..runtime.recipe import Recipe
from .floors.floor_scores import floor_scores
from .inspected import EvaluatedPart, inspected_beside, setup_for
from .page.document import PageInput, write_page
from .rates.paired import Contender, paired_figures
from .rates.resampling import group_weights, resampling_units
from .rates.tally import Tally
from .scorecard import boxes_of, part_verdicts, resampled_figures, scored_parts, scored_pictures
from .scores import IOU_MIN
from .sets.example import Row
from .sets.source import check_fits, default_split, rows_from_source
from .terminal import Progress

# Figures of two bundles that are held against each other.
COMPARED = ("precision", "recall", "f", "map", "escape", "false_alarm", "review_share")


def evaluate_bundle(
    bundle_path: Path, dataset: str, *, recipe_id: str | None = None, split: str | None = None,
    list_path: Path | None = None, warp_seed: int | None = None, predictions: Path | None = None,
    baseline: bool = False, threads: int = 2, limit: int | None = None, against: Path | None = None,
    page: Path | None = None, command: str = "", classes: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Inspect every row of `dataset` with the bundle and score it; one JSON-ready object.

    `predictions` gets a JSON line a picture, written whole at the end. `limit` takes every n-th row so that
    about that many remain. `against` is another bundle for the same rows; `page` a folder for the result as
    an HTML page with pictures, `command` what the page says made it; `classes` a file that maps the data
    set's classes to the recipe's. BundleError, RecipeError or DataSetError, and no file, when something is
    wrong.
    """
    _check_places(predictions, page)
    bundles = [Bundle.open(path) for path in (bundle_path, against) if path is not None]
    with ExitStack() as stack:
        inspectors = [stack.enter_context(Inspector(bundle, recipe_id, threads)) for bundle in bundles]
        recipe = inspectors[0].recipe
        rows = rows_from_source(dataset, split=split, list_path=list_path, warp_seed=warp_seed,
                                box_margin_px=recipe.box_margin_px, types=recipe.types, classes=classes)
        rows = thinned_rows(rows, limit)
        check_fits(rows[0].read(), recipe, dataset)
        looked = inspected_beside([(one, setup_for(bundle, one))
                                   for one, bundle in zip(inspectors, bundles, strict=True)], rows, progress)
    parts = [row[0] for row in looked]
    result: dict[str, Any] = {
        "dataset": dataset, "split": _split_name(dataset, split, list_path), "warp_seed": warp_seed,
        "bundle": named_bundle(bundles[0]), "recipe": recipe.id, "iou_min": IOU_MIN,
        "threads": threads, **scored_parts(parts, recipe), "baseline": None, "against": None,
    }
    if against is not None:
        result["against"] = compared(result, parts, [row[1] for row in looked], inspectors[1].recipe,
                                     recipe, bundles[1])
    if baseline:
        result["baseline"] = floor_scores(dataset, rows, recipe.types, recipe.box_margin_px, warp_seed,
                                          progress)
    result = dict(rounded(result))
    if predictions is not None:
        write_predictions(predictions, parts)
    if page is not None:
        write_page(page, PageInput(result, parts, rows, recipe, command), progress)
    return result


def _check_places(predictions: Path | None, page: Path | None) -> None:
    """DataSetError, before an hour of work, for results that could not be written after it."""
    if predictions is not None and predictions.is_dir():
        raise DataSetError(f"{predictions} is a folder; give --predictions a file")
    if page is not None and page.exists() and not page.is_dir():
        raise DataSetError(f"{page} is a file; give --page a folder")


def compared(
    result: dict[str, Any], parts: Sequence[EvaluatedPart], others: Sequence[EvaluatedPart],
    other_recipe: Recipe, recipe: Recipe, other: Bundle,
) -> dict[str, Any]:
    """The other bundle's scores on the same rows, and how sure the differences are."""
    table = scored_parts(others, other_recipe)
    first, second = _contender(parts, recipe, result), _contender(others, other_recipe, table)
    return {"bundle": named_bundle(other), "recipe": other_recipe.id, "scores": table,
            **paired_figures(first, second, [part.group for part in parts])}


def _contender(parts: Sequence[EvaluatedPart], recipe: Recipe, table: dict[str, Any]) -> Contender:
    """One bundle's parts as what is compared; every resample draws the same parts for both."""
    both = scored_pictures(parts, "both", recipe.thresholds)
    tally, verdicts = Tally.of(both), part_verdicts(parts, both)
    figures = {name: table[name]["rate"] if isinstance(table[name], dict) else table[name]
               for name in COMPARED}
    units = resampling_units([part.group for part in parts])
    return Contender(tally, verdicts, figures, {
        unit: resampled_figures(tally, verdicts, group_weights(names)) for unit, names in units.items()})


def thinned_rows(rows: list[Row], limit: int | None) -> list[Row]:
    """About `limit` rows spread evenly over all; all of them for None."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index * len(rows) // limit] for index in range(limit)]


def write_predictions(path: Path, parts: Sequence[EvaluatedPart]) -> None:
    """One JSON line a picture: `{"image", "defects": [{"type", "bbox", "confidence"}]}`; written whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as lines:
            for part in parts:
                defects = [{"type": box.type, "bbox": [round(value, 2) for value in box.bbox_xyxy],
                            "confidence": round(box.confidence, 5)}
                           for box in boxes_of(part.inspection.defects)]
                lines.write(json.dumps({"image": part.name, "defects": defects}) + "\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataSetError(f"{path} cannot be written: {error.strerror or error}") from error


def rounded(value: Any) -> Any:
    """The same nested value with floats to six digits behind the point, for diffs; NaN: None."""
    if isinstance(value, dict):
        return {key: rounded(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(entry) for entry in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def _split_name(dataset: str, split: str | None, list_path: Path | None) -> str:
    """What was scored, for the report."""
    if list_path is not None:
        return f"list {list_path.name}"
    return split or default_split(dataset)


def named_bundle(bundle: Bundle) -> dict[str, Any]:
    """A bundle as results name it."""
    return {"name": bundle.path.name, "id": bundle.id, "precision": bundle.precision}
