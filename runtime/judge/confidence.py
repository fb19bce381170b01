"""How sure a verdict is: confidence of each defect and of a clean part, and why a person must look.

A confidence is p(right) as fitted on labelled pictures (`calibrate confidence`, or export); without such a
fit it is the raw one, which is too sure of itself. Reasons come from a closed list (report.REVIEW_REASONS);
each has a rule with a number below, measured in docs/confidence.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..infer.judgement import Judgement

if TYPE_CHECKING:
    from ..infer.fuse import CandidateDefect

LEAST_TYPE_MARGIN = 0.5
"""low_type_margin: the reported type leads the next one by less than this share of the certainty."""

LEAST_SHIFT_IOU = 0.5
"""box_unstable: the box of the second, shifted look overlaps the first by less; 0 when it was not found."""

LEAST_AGREEMENT_IOU = 0.4
"""detectors_disagree: the boxes of dense head and words overlap by less, or they name different types, or
one of them does not see the defect at all."""

MOST_NOVELTY = 1.0
"""unlike_training: novelty beyond the limit that the bundle states, that of calibration boards left out."""

FLOOR, CEILING = 0.02, 0.9995
"""A probability is kept between them before its logit is weighed. The floor stands for a detector that does
not see the defect too: the dense head lists nothing under its candidate threshold of 0.05.
"""


def judged_confidence(candidate: CandidateDefect, judgement: Judgement) -> float:
    """p(this defect is there, of this type, at this place), 0..1; the raw confidence without a fit."""
    if judgement.defect is None:
        return candidate.confidence
    return judgement.defect.probability(defect_features(candidate))


def clean_confidence(strongest_rejected: float, judgement: Judgement) -> float:
    """p(no defect on a part without a reported one), 0..1: as fitted, never above 1 - `strongest_rejected`.

    A few dozen labelled parts hold a handful of missed defects at most: they may make a pass less sure than
    its evidence says, and are too few to make it surer.
    """
    raw = 1.0 - strongest_rejected
    if judgement.clean is None:
        return raw
    return min(judgement.clean.probability(clean_features(strongest_rejected)), raw)


def defect_features(candidate: CandidateDefect) -> dict[str, float]:
    """What a model may weigh, by name; a detector that does not see the defect counts as FLOOR."""
    dense, words = candidate.dense_confidence, candidate.words_confidence
    is_both = candidate.detector == "both"
    return {
        "bias": 1.0,
        "raw": logit(candidate.confidence),
        "dense": logit(dense or 0.0),
        "words": logit(words or 0.0),
        "dense_only": float(candidate.detector == "dense"),
        "words_only": float(candidate.detector == "words"),
        "agreement": (candidate.agreement_iou or 0.0) if is_both else 0.0,
        "margin": 1.0 if candidate.type_margin is None else candidate.type_margin,
        "edge": float(candidate.at_tile_edge),
        "shift": 1.0 if candidate.shift_iou is None else candidate.shift_iou,
    }


def clean_features(strongest_rejected: float) -> dict[str, float]:
    """As `defect_features`, of a part without a reported defect."""
    return {"bias": 1.0, "rejected": logit(strongest_rejected)}


def defect_reasons(candidate: CandidateDefect) -> tuple[str, ...]:
    """What speaks against one defect, in the order of the closed list; empty when nothing does."""
    found = []
    if candidate.type_margin is not None and candidate.type_margin < LEAST_TYPE_MARGIN:
        found.append("low_type_margin")
    if candidate.shift_iou is not None and candidate.shift_iou < LEAST_SHIFT_IOU:
        found.append("box_unstable")
    agreement = candidate.agreement_iou
    if candidate.reason is not None or (agreement is not None and agreement < LEAST_AGREEMENT_IOU):
        found.append("detectors_disagree")
    if candidate.at_tile_edge:
        found.append("at_tile_edge")
    return tuple(found)


def review_reasons(
    judged: Sequence[tuple[CandidateDefect, float]],
    clean: float,
    threshold: float,
    *,
    novelty: float | None = None,
) -> tuple[str, ...]:
    """Why a part goes to a person as far as confidence says, each reason once; empty for none.

    `judged`: its defects with their judged confidence; `clean`: that of a part without any; `threshold`: the
    recipe's review_confidence. One defect at or above it decides the part (reject), and what the unsure ones
    beside it lack does not matter; a part unlike the training pictures goes to a person whatever was found.
    """
    reasons: dict[str, None] = {}
    if novelty is not None and novelty > MOST_NOVELTY:
        reasons["unlike_training"] = None
    surest = max((confidence for _, confidence in judged), default=None)
    if surest is None:
        if clean < threshold:
            reasons["low_confidence"] = None
        return tuple(reasons)
    if surest >= threshold:
        return tuple(reasons)
    reasons["low_confidence"] = None
    for candidate, _ in judged:
        reasons.update(dict.fromkeys(defect_reasons(candidate)))
    return tuple(reasons)


def logit(probability: float) -> float:
    """ln(p / (1 - p)) with p kept between FLOOR and CEILING."""
    kept = min(max(probability, FLOOR), CEILING)
    return math.log(kept / (1.0 - kept))
