"""The verdict on one part: disposition, evaluation, and why a person must look.

Rules, first match wins:
1. the answer failed                                             -> review: what else is there is unknown
2. the picture itself is in doubt: its quality, or unlike any    -> review, whatever was found on it
   training picture
3. a sure defect that rejects: its severity does, at the mildest -> reject
   that its size may be, or its size does not conform to the
   recipe's standard
4. anything in doubt: an unsure defect, a size that decides and  -> review, with every reason that applies
   is unknown or spans a limit, compliance that is not decided,
   a type or box that cannot be listed, a part not sure to be
   clean
5. sure minor defects                                            -> what the recipe's review.minor says
6. a pass drawn for the lot's sample                             -> review: sampled
7. nothing, or nothing but what the recipe ignores               -> pass

Sure: a confidence of at least the recipe's review_confidence. Major and critical reject; minor does where
review.minor is "reject". A defect of severity "ignore" is listed and decides nothing; how sure it is matters
only as to its type and its size. A failed answer is never a pass, and never a reject either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..limits import MinorRule, Review, Severity
from ..recipe import Recipe
from ..report import REVIEW_REASONS, Compliance, Defect, Disposition, Evaluation
from .findings import Finding, floored
from .grade.compliance import undecided

EVALUATIONS: dict[Disposition, Evaluation] = {"pass": "ok", "reject": "not_ok", "review": "not_decidable"}

OF_TYPE_AND_SIZE = ("low_type_margin", "at_tile_edge")
"""Doubts about a defect that count even where its severity is "ignore"."""

NEVER_A_DOUBT = ("sampled", "minor_defect")
"""Review reasons that leave nothing open about the part."""


@dataclass(frozen=True)
class Circumstances:
    """What the rules want to know beside the findings.

    failed: the answer was cut or does not parse; picture: review reasons of the whole picture; unlisted:
    those of what was found and cannot be listed; clean: confidence that nothing else is on the part;
    is_scale_unusable: a scale is there and must not be used; is_sampled: drawn for the lot's sample.
    """

    clean: float = 1.0
    failed: bool = False
    picture: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    is_scale_unusable: bool = False
    is_sampled: bool = False


@dataclass(frozen=True)
class Verdict:
    """Judged defects and what becomes of the part; `review_reasons` is empty unless it goes to review."""

    defects: tuple[Defect, ...]
    disposition: Disposition
    evaluation: Evaluation
    review_reasons: tuple[str, ...]
    confidence: float | None
    compliance: Compliance


def verdict_from_findings(
    findings: Sequence[Finding],
    recipe: Recipe,
    circumstances: Circumstances,
    compliance: Compliance | None = None,
) -> Verdict:
    """Apply the rules above."""
    compliance = compliance or Compliance()
    threshold = recipe.thresholds.review_confidence
    doubts = {each.defect_id: _doubts(each, recipe, circumstances) for each in findings}
    strongest = max((each.confidence for each in findings), default=circumstances.clean)

    def made(disposition: Disposition, reasons: Sequence[str], confidence: float | None) -> Verdict:
        of_part = tuple(name for name in REVIEW_REASONS if name in set(reasons))
        # Of a sure reject too: what could not be listed may be what does not conform.
        asked = {*of_part, *_unseen(recipe, circumstances)}.difference(NEVER_A_DOUBT)
        open_questions = [name for name in REVIEW_REASONS if name in asked]
        return Verdict(
            tuple(
                each.defect(tuple(name for name in of_part if name in doubts[each.defect_id]))
                for each in findings
            ),
            disposition,
            EVALUATIONS[disposition],
            of_part,
            None if confidence is None else floored(confidence),
            undecided(compliance, open_questions) if open_questions else compliance,
        )

    if circumstances.failed:
        return made("review", ["answer_failed"], None)
    if circumstances.picture:
        return made("review", circumstances.picture, strongest)
    deciding = [each for each in findings if _rejects(each, recipe.review, compliance)]
    sure = [each.confidence for each in deciding if each.confidence >= threshold]
    if sure:
        return made("reject", [], max(sure))
    reasons = [name for names in doubts.values() for name in names]
    reasons += _part_doubts(recipe, circumstances, compliance, is_unsure=bool(deciding))
    if reasons:
        return made("review", reasons, strongest)
    minor = [each.confidence for each in findings if each.graded.severity == "minor"]
    if minor and recipe.review.minor == "review":
        return made("review", ["minor_defect"], min(minor))
    confidence = min([circumstances.clean, *minor])
    if circumstances.is_sampled:
        return made("review", ["sampled"], confidence)
    return made("pass", [], confidence)


def consequence_of(severity: Severity, review: Review) -> MinorRule:
    """What a sure defect of this severity does to its part."""
    if severity == "ignore":
        return "pass"
    return review.minor if severity == "minor" else "reject"


def _rejects(finding: Finding, review: Review, compliance: Compliance) -> bool:
    """Whether this defect rejects the part, if it is sure, at the mildest that it may be."""
    failing = compliance.compared if compliance.decision == "does_not_conform" else None
    if failing is not None and failing.defect_id == finding.defect_id:
        return True
    return consequence_of(finding.graded.mildest, review) == "reject"


def _doubts(finding: Finding, recipe: Recipe, circumstances: Circumstances) -> tuple[str, ...]:
    """Review reasons of one defect, as far as they could change what becomes of the part."""
    graded = finding.graded
    worst, mildest = (consequence_of(each, recipe.review) for each in (graded.severity, graded.mildest))
    reasons: dict[str, None] = {}
    if finding.confidence < recipe.thresholds.review_confidence:
        if graded.severity != "ignore":
            reasons.update(dict.fromkeys(("low_confidence", *finding.doubts)))
        else:  # it stays ignored whether it is there or not, as long as its type and its size are right
            reasons.update(dict.fromkeys(name for name in finding.doubts if name in OF_TYPE_AND_SIZE))
    is_size_needed = worst != "reject" or circumstances.is_scale_unusable
    if worst != mildest or (graded.is_size_missing and is_size_needed):
        reasons["scale_uncertain"] = None
    return tuple(reasons)


def _unseen(recipe: Recipe, circumstances: Circumstances) -> list[str]:
    """Review reasons of what may be on the part and is not listed."""
    reasons = list(circumstances.unlisted)
    if circumstances.clean < recipe.thresholds.review_confidence:
        reasons.append("low_confidence")
    return reasons


def _part_doubts(
    recipe: Recipe,
    circumstances: Circumstances,
    compliance: Compliance,
    *,
    is_unsure: bool,
) -> list[str]:
    """Review reasons that no single defect has."""
    reasons = _unseen(recipe, circumstances)
    if compliance.decision == "not_decidable":
        reasons.append("compliance_undecided")
    if is_unsure:  # a defect that would reject is not sure enough to do so
        reasons.append("low_confidence")
    return reasons
