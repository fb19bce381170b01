"""`orinspect calibrate confidence`: how far a bundle's confidences can be trusted, from labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...calibration.confidence.judgement_write import write_sections
from ...calibration.confidence.novelty_fit import novelty_section
from ...calibration.confidence.sections import confidence_section
from ...runtime.errors import DataSetError
from ...runtime.infer.bundle import Bundle
from ..sets.example import Row
from ..sets.source import calibration_split, check_fits, rows_from_source
from ..terminal import Progress
from .answers import answers_from_rows

NOVELTY_FIGURES = ("limit", "quantile", "parts", "tiles", "groups", "expected_share", "worst_share")


def calibrate_confidence(
    bundle_path: Path,
    dataset: str,
    *,
    recipe_id: str | None = None,
    split: str | None = None,
    list_path: Path | None = None,
    warp_seed: int | None = None,
    limit: int | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit on the labelled rows of `dataset` and put the result into the bundle.

    Without a split it is the training side, where the data set has one: never give pictures that the bundle
    will be scored on. The result: `bundle`, `recipe`, `confidence` (with its report) and the limit of
    `novelty`. BundleError, RecipeError, DataSetError; the bundle is then as it was.
    """
    bundle = Bundle.open(bundle_path)
    recipe = bundle.recipe(recipe_id).recipe
    if split is None and list_path is None:
        split = calibration_split(dataset)
    rows = rows_from_source(
        dataset,
        split=split,
        list_path=list_path,
        warp_seed=warp_seed,
        box_margin_px=recipe.box_margin_px,
        types=recipe.types,
    )
    if limit is not None and limit < len(rows):
        rows = [rows[index * len(rows) // limit] for index in range(limit)]
    if rows:
        check_fits(rows[0].read(), recipe, dataset)
    sections = sections_from_rows(bundle, recipe.id, rows, dataset, threads=threads, progress=progress)
    if not sections["confidence"]["report"]["parts"]:
        raise DataSetError(f"{dataset} has no labelled parts; confidences are calibrated on labels")
    write_sections(bundle_path, recipe.id, sections)
    novelty = sections.get("novelty")
    return {
        "bundle": Bundle.open(bundle_path, verify=False).id,
        "recipe": recipe.id,
        "confidence": sections["confidence"],
        "novelty": novelty and {key: novelty[key] for key in NOVELTY_FIGURES},
    }


def sections_from_rows(
    bundle: Bundle,
    recipe_id: str,
    rows: Sequence[Row],
    source: str,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """`confidence` and `novelty` of one recipe, measured on these rows."""
    threshold = bundle.recipe(recipe_id).recipe.thresholds.review_confidence
    found = answers_from_rows(bundle, recipe_id, rows, threads=threads, progress=progress)
    sections = {
        "confidence": confidence_section(
            found.defects, found.raw, found.clean, found.labelled, source, found.judged, threshold
        )
    }
    novelty = novelty_section(found.tokens, found.groups)
    return sections if novelty is None else {**sections, "novelty": novelty}


def confidence_text(result: dict[str, Any]) -> str:
    """The result in a few lines, for a person."""
    confidence = result["confidence"]
    report = confidence["report"]
    counts = f"{report['parts']} labelled parts, {report['labels']} reported defects"
    lines = [f"recipe {result['recipe']}: {counts}"]
    defect, clean = report["defect"], report["clean"]
    if isinstance(defect, str):
        lines.append(f"defects   raw confidence stays: {defect}")
    else:
        lines.append(
            f"defects   {defect['method']}; ECE {defect['before']['ece']:.4f} -> {defect['after']['ece']:.4f}"
            f" held out ({defect['right']} of {defect['labels']} right), by chance up to"
            f" {defect['before']['ece_by_chance'][1]:.4f}"
        )
    if isinstance(clean, str):
        lines.append(f"passes    raw confidence stays: {clean}")
    else:
        lines.append(
            f"passes    {clean['missed_defects']} missed defects beside {clean['parts']} clean parts;"
            f" without any evidence a pass has {clean['stated_without_evidence']:.4f}"
        )
    if (rates := report.get("rates")) is not None:
        lines += [_rates_text(name, rates) for name in ("before", "after")]
    novelty = result["novelty"]
    if novelty is None:
        lines.append("novelty   not known: too few parts")
    else:
        kin = "new group" if novelty["groups"] > 1 else "new part of this group"
        share = f"{novelty['expected_share']:.1%} beyond it (worst {novelty['worst_share']:.1%})"
        counts = f"{novelty['parts']} parts, {novelty['groups']} groups"
        lines.append(f"novelty   limit {novelty['limit']:.2f} from {counts}; expected of a {kin}: {share}")
    return "\n".join([*lines, f"bundle    now {result['bundle']}"])


def _rates_text(name: str, rates: dict[str, Any]) -> str:
    """One line: what the threshold makes of the parts."""
    one = rates[name]
    return (
        f"{name:9} at {rates['threshold']:g}: {one['review']} of {one['parts']} parts for a person,"
        f" {one['escape']} of {one['bad']} bad pass, {one['false_reject']} of {one['good']} good fail"
    )
