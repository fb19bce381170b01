"""The worst of what went wrong: misses and false alarms, in the order in which a person should look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..inspected import EvaluatedPart
from ..rates.confusion import paired
from ..rates.verdicts import PartVerdict
from ..scorecard import boxes_of
from ..scores import NamedBox, ScoredPicture, iou_matrix

# A candidate this close to a missed box had seen something there.
NEAR_IOU = 0.1


@dataclass(frozen=True)
class Mistake:
    """One box that went wrong on row `index`: `true` and what was `said` there, one of them None or of
    another type; `evidence`: the strongest candidate near it, 0..1; `disposition` of the part.
    """

    index: int
    true: NamedBox | None
    said: NamedBox | None
    evidence: float
    disposition: str
    is_grave: bool

    @property
    def box(self) -> NamedBox:
        """Where to look."""
        box = self.true or self.said
        assert box is not None
        return box


def worst_misses(
    parts: Sequence[EvaluatedPart], both: Sequence[ScoredPicture], verdicts: Sequence[PartVerdict], most: int
) -> list[Mistake]:
    """True boxes that were not found with their type: those of escaped parts first, then the least suspected,
    then the largest."""
    found = [Mistake(index, true, said, _evidence(part, true), verdict.disposition, verdict.is_escape)
             for index, (part, picture, verdict) in enumerate(zip(parts, both, verdicts, strict=True))
             for true, said in paired(picture)
             if true is not None and (said is None or said.type != true.type)]
    found.sort(key=lambda one: (not one.is_grave, one.evidence, -_area(one.box)))
    return found[:most]


def worst_false_alarms(
    both: Sequence[ScoredPicture], verdicts: Sequence[PartVerdict], most: int
) -> list[Mistake]:
    """Reported boxes where nothing is: those of good parts first, then the most certain."""
    found = [Mistake(index, None, said, said.confidence, verdict.disposition, verdict.is_false_alarm)
             for index, (picture, verdict) in enumerate(zip(both, verdicts, strict=True))
             for true, said in paired(picture) if true is None and said is not None]
    found.sort(key=lambda one: (not one.is_grave, -one.evidence))
    return found[:most]


def _evidence(part: EvaluatedPart, box: NamedBox) -> float:
    """The strongest candidate of either detector near a box."""
    candidates = boxes_of((*part.inspection.dense, *part.inspection.words))
    if not candidates:
        return 0.0
    near = iou_matrix(candidates, [box])[:, 0]
    return max((one.confidence for one, iou in zip(candidates, near, strict=True) if iou > NEAR_IOU),
               default=0.0)


def _area(box: NamedBox) -> float:
    x1, y1, x2, y2 = box.bbox_xyxy
    return (x2 - x1) * (y2 - y1)
