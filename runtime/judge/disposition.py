"""The verdict on one part: severity of each defect, disposition, evaluation, and why a person must look.

Rules, first match wins:
1. the answer failed                                          -> review
2. a defect as certain as the recipe's review_confidence      -> reject
3. a less certain defect, an unknown type or an unusable box     -> review, with every reason that applies
4. nothing                                                    -> pass
A failed answer is never a pass, and never a reject either: what else is on the part is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..recipe import Recipe
from ..report import Defect, Disposition, Evaluation

if TYPE_CHECKING:
    from ..infer.fuse import CandidateDefect


@dataclass(frozen=True)
class Verdict:
    """Judged defects and what becomes of the part; `review_reasons` is empty unless it goes to review."""

    defects: tuple[Defect, ...]
    disposition: Disposition
    evaluation: Evaluation
    review_reasons: tuple[str, ...]
    confidence: float | None


def verdict_from_candidates(
    candidates: Iterable[CandidateDefect],
    recipe: Recipe,
    *,
    width: int,
    height: int,
    failed: bool = False,
    dropped: int = 0,
    strongest_rejected: float = 0.0,
) -> Verdict:
    """Judge what was found on a picture of `width` x `height`.

    `dropped` counts boxes that an answer named and that cannot be a defect: such a part is no clean pass.
    `strongest_rejected` is the highest presence among what stayed below the threshold (0 to 1): how close a
    clean part came to having a defect, so that a pass carries a confidence too.
    """
    defects, reasons = _defects_from(candidates, recipe, width, height)
    if dropped and "unusable_box" not in reasons:
        reasons = (*reasons, "unusable_box")
    threshold = recipe.thresholds.review_confidence
    strongest = max((defect.confidence or 0.0 for defect in defects), default=0.0)
    if failed:
        return Verdict(defects, "review", "not_decidable", ("answer_failed",), None)
    if defects and strongest >= threshold:
        return Verdict(defects, "reject", "not_ok", (), strongest)
    if defects:
        reasons = ("low_confidence", *reasons)
    if not defects and strongest_rejected >= recipe.thresholds.presence:
        reasons = ("low_confidence", *reasons)  # the dense head alone would have reported a defect
    if reasons:
        return Verdict(defects, "review", "not_decidable", reasons, strongest if defects else None)
    return Verdict((), "pass", "ok", (), round(1.0 - strongest_rejected, 4))


def _defects_from(
    candidates: Iterable[CandidateDefect], recipe: Recipe, width: int, height: int
) -> tuple[tuple[Defect, ...], tuple[str, ...]]:
    """Defects in reading order with the plant's codes; what cannot be listed becomes a review reason."""
    known = {entry.type: entry for entry in recipe.defects}
    defects: list[Defect] = []
    reasons: dict[str, None] = {}
    for candidate in sorted(candidates, key=lambda found: (found.bbox_xyxy[1], found.bbox_xyxy[0])):
        box = _clipped(candidate.bbox_xyxy, width, height)
        entry = known.get(candidate.type)
        if entry is None:
            reasons["unknown_type"] = None
        elif box is None:
            reasons["unusable_box"] = None
        else:
            defects.append(
                Defect(
                    defect_id=f"d{len(defects) + 1}",
                    defect_code=entry.code,
                    type=entry.type,
                    bbox=box,
                    severity=entry.severity,
                    confidence=round(min(max(float(candidate.confidence), 0.0), 1.0), 4),
                    detector=candidate.detector,
                    reason=candidate.reason,
                )
            )
    return tuple(defects), tuple(reasons)


def _clipped(
    box: tuple[float, float, float, float], width: int, height: int
) -> tuple[float, float, float, float] | None:
    """The box inside the picture, to a tenth of a pixel; None when nothing is left of it."""
    x1, x2 = (round(min(max(float(x), 0.0), float(width)), 1) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(float(y), 0.0), float(height)), 1) for y in (box[1], box[3]))
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None
