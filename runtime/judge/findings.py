"""What was found, judged one by one: listed under the plant's codes, measured, graded, and how sure it is."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from ..infer.judgement import UNJUDGED, Judgement
from ..limits import DefectType
from ..recipe import Recipe
from ..report import Defect, Measure
from .confidence import defect_reasons, judged_confidence
from .grade.severity import Graded, severity_of
from .measure.calipers import measure_defect
from .measure.measurement import MEASURES, Box, Measurement, nothing_measured
from .scale import PixelScale

if TYPE_CHECKING:
    from ..infer.fuse import CandidateDefect

log = logging.getLogger(__name__)

Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Finding:
    """One listed defect: `box` inside the picture, `confidence` calibrated where the bundle can, `doubts`:
    what speaks against it, from the closed list of review reasons."""

    defect_id: str
    candidate: CandidateDefect
    entry: DefectType
    box: Box
    confidence: float
    measurement: Measurement
    graded: Graded
    doubts: tuple[str, ...] = ()

    def defect(self, review_reasons: tuple[str, ...] = ()) -> Defect:
        """The defect as the report carries it; `review_reasons`: those of the part's that come from here."""
        measures: dict[str, Measure | None] = dict.fromkeys((*MEASURES, "depth"))
        return Defect(
            defect_id=self.defect_id,
            defect_code=self.entry.code,
            type=self.entry.type,
            bbox=self.box,
            severity=self.graded.severity,
            confidence=floored(self.confidence),
            detector=self.candidate.detector,
            reason=self.candidate.reason,
            size_mm=self.measurement.size_mm,
            severity_reason=self.graded.reason,
            raw_confidence=floored(self.candidate.confidence),
            measures={**measures, **self.measurement.measures},
            notes=self.measurement.notes,
            review_reasons=review_reasons,
        )


@dataclass(frozen=True)
class Findings:
    """All of a part in reading order; `unlisted`: review reasons of what could not be listed; `measure_ms`:
    time spent on measuring, None where the recipe switches it off."""

    listed: tuple[Finding, ...]
    unlisted: tuple[str, ...]
    measure_ms: float | None


def findings_from_candidates(
    candidates: Iterable[CandidateDefect],
    recipe: Recipe,
    *,
    image: Picture,
    template: Picture | None,
    scale: PixelScale | None,
    judgement: Judgement = UNJUDGED,
    why_no_scale: str = "not_calibrated",
    clock: Callable[[], float],
) -> Findings:
    """Judge each candidate on a picture uint8 [H, W] or [H, W, 3] BGR; `template` has its size.

    A type that the recipe does not name, and a box outside the picture, cannot be listed and become reasons.
    `why_no_scale`: said of every size where `scale` is None.
    """
    height, width = image.shape[:2]
    known = {entry.type: entry for entry in recipe.defects}
    listed: list[tuple[CandidateDefect, DefectType, Box]] = []
    unlisted: dict[str, None] = {}
    for candidate in sorted(candidates, key=lambda found: (found.bbox_xyxy[1], found.bbox_xyxy[0])):
        entry, box = known.get(candidate.type), clipped(candidate.bbox_xyxy, width, height)
        if entry is None:
            unlisted["unknown_type"] = None
        elif box is None:
            unlisted["unusable_box"] = None
        else:
            listed.append((candidate, entry, box))
    started = clock()
    measured = _measured(listed, recipe, image, template, scale, why_no_scale)
    measure_ms = (clock() - started) * 1e3 if recipe.measure.enabled else None
    findings = (
        _finding(f"d{number}", *each, measurement, judgement)
        for number, (each, measurement) in enumerate(zip(listed, measured, strict=True), 1)
    )
    return Findings(tuple(findings), tuple(unlisted), measure_ms)


def null_reasons_of(findings: Sequence[Finding]) -> dict[str, str]:
    """Why sizes and measures are null, by report path; reasons of several defects are joined."""
    found: dict[str, dict[str, None]] = {}
    for finding in findings:
        for name, reason in finding.measurement.nulls.items():
            path = f"defects[].{name}" if name.startswith("size_mm") else f"defects[].measures.{name}"
            found.setdefault(path, {})[reason] = None
    return {path: ", ".join(reasons) for path, reasons in found.items()}


def floored(probability: float) -> float:
    """0 to 1 with four decimals, cut and never rounded up: 0.84999 must not read as 0.85."""
    if not math.isfinite(probability):
        return probability  # the report refuses it
    kept = Decimal(repr(min(max(float(probability), 0.0), 1.0)))
    return float(kept.quantize(Decimal("0.0001"), ROUND_FLOOR))


def clipped(box: Box, width: int, height: int) -> Box | None:
    """The box inside the picture, to a tenth of a pixel; None when nothing is left of it."""
    x1, x2 = (round(min(max(float(x), 0.0), float(width)), 1) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(float(y), 0.0), float(height)), 1) for y in (box[1], box[3]))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def _measured(
    listed: Sequence[tuple[CandidateDefect, DefectType, Box]],
    recipe: Recipe,
    image: Picture,
    template: Picture | None,
    scale: PixelScale | None,
    why_no_scale: str,
) -> list[Measurement]:
    """A measurement for every defect; without calipers, or beyond the recipe's bound, it says so."""
    if not recipe.measure.enabled:
        return [nothing_measured("switched_off_in_recipe") for _ in listed]
    boxes = [box for *_, box in listed]
    golden = template if recipe.mode == "compare" else None
    measured = []
    for number, (_, entry, box) in enumerate(listed):
        if number >= recipe.measure.max_defects:
            measured.append(nothing_measured("more_defects_than_the_recipe_measures"))
            continue
        try:
            found = measure_defect(
                image,
                box,
                scale=scale,
                template=golden,
                box_margin_px=recipe.box_margin_px,
                others=[*boxes[:number], *boxes[number + 1 :]],
                defect_type=entry.type,
            )
        except (ArithmeticError, LookupError, ValueError, cv2.error):
            # The defect is found and named: a size that nobody knows is no reason to stop the line.
            log.exception("the %s at %s could not be measured", entry.type, box)
            found = nothing_measured("calipers_failed")
        if found.nulls.get("size_mm") == "not_calibrated":
            found.nulls["size_mm"] = why_no_scale
        measured.append(found)
    return measured


def _finding(
    defect_id: str,
    candidate: CandidateDefect,
    entry: DefectType,
    box: Box,
    measurement: Measurement,
    judgement: Judgement,
) -> Finding:
    return Finding(
        defect_id,
        candidate,
        entry,
        box,
        judged_confidence(candidate, judgement),
        measurement,
        severity_of(entry, measurement),
        defect_reasons(candidate),
    )
