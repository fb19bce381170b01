"""What a threshold makes of parts: how many go to a person for their confidence, and what slips through.

The rule is that of `judge/confidence.py` alone: severities, sizes, novelty and picture quality are left out,
so that raw and calibrated confidences are held against each other and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.infer.judgement import ConfidenceModel, Judgement
from ...runtime.judge.confidence import clean_confidence


@dataclass(frozen=True)
class LabelledPart:
    """One labelled part before anybody judges it: `defects`, the features of its reported ones; `raw`, their
    confidence as the detectors say it; `rejected`, the strongest evidence that was not reported; `picture`,
    what folds do not part, as in `fit.Labelled`.
    """

    picture: str
    defects: tuple[dict[str, float], ...]
    raw: tuple[float, ...]
    rejected: float
    has_defect: bool

    def judged(self, defect: ConfidenceModel | None, clean: ConfidenceModel | None) -> JudgedPart:
        """By these models; by the raw confidences where there is none."""
        said = self.raw if defect is None else tuple(map(defect.probability, self.defects))
        return JudgedPart(said, clean_confidence(self.rejected, Judgement(clean=clean)), self.has_defect)


@dataclass(frozen=True)
class JudgedPart:
    """One labelled part: the confidences of its reported defects, that of a clean part, and the truth."""

    defects: tuple[float, ...]
    clean: float
    has_defect: bool

    def disposition(self, threshold: float) -> str:
        """pass, reject or review."""
        if self.defects:
            return "reject" if max(self.defects) >= threshold else "review"
        return "pass" if self.clean >= threshold else "review"


def part_rates(parts: Sequence[JudgedPart], threshold: float) -> dict[str, Any]:
    """`review`: parts for a person; `escape`: passes with a defect; `false_reject`: rejects without one; each
    a count beside how many there could be: `parts`, `bad`, `good`.
    """
    said = [(one.disposition(threshold), one.has_defect) for one in parts]
    return {
        "review": sum(what == "review" for what, _ in said),
        "escape": sum(what == "pass" and is_bad for what, is_bad in said),
        "false_reject": sum(what == "reject" and not is_bad for what, is_bad in said),
        "parts": len(parts),
        "bad": sum(one.has_defect for one in parts),
        "good": sum(not one.has_defect for one in parts),
    }
