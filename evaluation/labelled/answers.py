"""A bundle's answers on labelled pictures: which were right, what it missed, what its encoder saw.

Of each part come its reported defects, right or wrong, and two kinds of made-up parts that would have passed,
for p(no defect): one without its true defects, unless a false one was reported there; and one with only one
true defect for each that nobody reported. Those count so that every second part has one defect: far more than
on a line, so that the stated confidence of a pass is on the safe side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...calibration.confidence.fit import FOLDS, Labelled
from ...calibration.confidence.part_rates import LabelledPart
from ...runtime.errors import DataSetError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.engines.engine import Engine, FloatArray, engine_from_bundle
from ...runtime.infer.fuse import CandidateDefect
from ...runtime.infer.inspector import Inspection, Inspector
from ...runtime.judge.confidence import clean_features, defect_features
from ..gate.differences import RememberedEngine
from ..scores import NamedBox, iou_matrix, matches
from ..sets.example import Example, Row
from ..terminal import Progress

NEAR_IOU = 0.1
"""A candidate that overlaps a true box by more speaks of it; an escape is a defect without any report."""


@dataclass(frozen=True)
class Answers:
    """`defects`: reported ones with their features; `raw` [n]: their confidence as the detectors say it;
    `clean`: made-up parts that would have passed, right where they are clean; `tokens`: of each part the
    image tokens of its tiles, [tiles, T, H], `groups`: its group, a part; `labelled`: parts with labels among
    `parts`; `judged`: those, each with all that its verdict rests on.
    """

    defects: tuple[Labelled, ...]
    raw: npt.NDArray[np.float64]
    clean: tuple[Labelled, ...]
    tokens: tuple[FloatArray, ...]
    groups: tuple[str, ...]
    parts: int
    labelled: int
    judged: tuple[LabelledPart, ...] = ()


def answers_from_rows(
    bundle: Bundle, recipe_id: str, rows: Sequence[Row], *, threads: int = 2, progress: Progress | None = None
) -> Answers:
    """Inspect every row with both detectors as on the device. DataSetError for no rows."""
    if not rows:
        raise DataSetError("no pictures to calibrate on; give a data set with some")
    calls: list[dict[str, FloatArray]] = []

    def open_engine(opened: Bundle, component: str, **options: object) -> Engine:
        engine = engine_from_bundle(opened, component, **options)  # type: ignore[arg-type]
        return RememberedEngine(engine, calls) if component == "vision" else engine

    defects: list[Labelled] = []
    clean: list[Labelled] = []
    raw: list[float] = []
    tokens: list[FloatArray] = []
    judged: list[LabelledPart] = []
    labelled = true_boxes = 0
    kin = fold_names(rows)
    with Inspector(bundle, recipe_id, threads, open_engine=open_engine) as inspector:
        for sequence, row in enumerate(rows):
            example = within_types(row.read(), inspector.recipe.types)
            calls.clear()
            inspection = inspector.inspect(example.frame(sequence))
            looked = inspection.passes.tiles - inspection.passes.tiles_gated
            tokens.append(_last_tokens(calls, looked, inspector.recipe.pictures, bundle))
            if example.is_labelled:
                defects += [replace(one, picture=kin[sequence])
                            for one in defect_answers(example, inspection)]
                raw += [one.confidence for one in inspection.defects if not _is_ignored(one, example)]
                clean += [replace(one, picture=kin[sequence]) for one in clean_answers(example, inspection)]
                judged.append(labelled_part(example, inspection, kin[sequence]))
                labelled += 1
                true_boxes += len(example.truth)
            if progress:
                progress(sequence + 1, len(rows), "labelled pictures")
    missed = labelled / max(true_boxes, 1)
    counted = tuple(one if one.right else replace(one, count=missed) for one in clean)
    groups = tuple(row.group for row in rows)
    return Answers(
        tuple(defects), np.array(raw), counted, tuple(tokens), groups, len(rows), labelled, tuple(judged)
    )


def within_types(example: Example, types: Sequence[str]) -> Example:
    """The example with what the recipe has no name for out of scoring: no answer could be right there, and
    confidences must not be fitted to that. Pictures given for INT8 alone may have any labels.
    """
    unknown = tuple(box for box in example.truth if box.type not in types)
    if not unknown:
        return example
    truth = tuple(box for box in example.truth if box.type in types)
    return replace(example, truth=truth, ignored=(*example.ignored, *unknown), truth_sizes=(), masks=())


def fold_names(rows: Sequence[Row]) -> list[str]:
    """What is on one side of every fold, a name a row: boards or sessions where they fill the folds."""
    groups = [row.group for row in rows]
    return groups if len(set(groups)) >= FOLDS else [row.name for row in rows]


def labelled_part(example: Example, inspection: Inspection, picture: str) -> LabelledPart:
    """What the verdict on one part rests on as far as confidence goes; what lies on ignored places is out."""
    asked = [one for one in inspection.defects if not _is_ignored(one, example)]
    return LabelledPart(
        picture,
        tuple(defect_features(one) for one in asked),
        tuple(one.confidence for one in asked),
        inspection.strongest_rejected,
        bool(example.truth),
    )


def defect_answers(example: Example, inspection: Inspection) -> list[Labelled]:
    """The reported defects of one part: right with a true box of their type at IoU > 0.33, one each."""
    asked = [one for one in inspection.defects if not _is_ignored(one, example)]
    found = matches([_box(one) for one in asked], example.truth)
    return [
        Labelled(defect_features(one), index is not None, example.name)
        for one, index in zip(asked, found, strict=True)
    ]


def clean_answers(example: Example, inspection: Inspection) -> list[Labelled]:
    """The made-up parts of one part, each with the strongest evidence that was not reported."""
    truth = (*example.truth, *example.ignored)
    reported = _near([_box(one) for one in inspection.defects], truth)  # [defects, truth]
    candidates = (*inspection.dense, *inspection.words)
    presence = np.array([one.presence or one.confidence for one in candidates])
    near = _near([_box(one) for one in candidates], truth)  # [candidates, truth]
    answers = []
    if bool(reported.any(axis=1).all()):  # no report beside the true defects
        evidence = float(presence[~near.any(axis=1)].max(initial=0.0))
        answers.append(Labelled(clean_features(evidence), True, example.name))
    is_found = np.atleast_1d(reported.any(axis=0))
    for column in range(len(example.truth)):
        if is_found[column]:
            continue
        evidence = float(presence[near[:, column]].max(initial=0.0))
        answers.append(Labelled(clean_features(evidence), False, example.name))
    return answers


def _near(boxes: Sequence[NamedBox], truth: Sequence[NamedBox]) -> npt.NDArray[np.bool_]:
    return np.asarray(iou_matrix(boxes, truth) > NEAR_IOU)


def _is_ignored(defect: CandidateDefect, example: Example) -> bool:
    """Whether a report lies on a place that is neither right nor wrong to find."""
    if not example.ignored:
        return False
    box = [_box(defect)]
    return bool(_near(box, example.ignored).any()) and not bool(_near(box, example.truth).any())


def _box(defect: CandidateDefect) -> NamedBox:
    return NamedBox(defect.type, defect.bbox_xyxy, defect.confidence)


def _last_tokens(
    calls: Sequence[dict[str, FloatArray]], tiles: int, pictures: int, bundle: Bundle
) -> FloatArray:
    """[tiles, T, H] of the last picture of each tile of the first look; second looks come behind them."""
    shape = bundle.shape
    if not calls or not tiles:
        return np.zeros((0, shape.tokens, shape.hidden), np.float32)
    rows = np.concatenate([call["image_tokens"].reshape(-1, shape.tokens, shape.hidden) for call in calls])
    return np.asarray(rows[: tiles * pictures][pictures - 1 :: pictures], np.float32)
