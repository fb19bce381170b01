"""Every figure that `evaluate` gives about one bundle, from its inspected and judged parts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration.confidence.calibration_error import calibration_error, reliability_bins
from ..runtime.infer.fuse import CandidateDefect
from ..runtime.recipe import Recipe, Thresholds
from ..runtime.report import Defect, SizeMm
from .inspected import EvaluatedPart
from .rates.confusion import class_accuracy, confusion_matrix
from .rates.cost import passes_summary, stage_times
from .rates.resampling import (
    group_weights,
    percentile_interval,
    resampling_header,
    resampling_units,
    trusted_names,
)
from .rates.size_error import MeasuredSize, size_error_figures
from .rates.tally import Tally
from .rates.verdicts import PartVerdict, alarm_curve, verdict_rates
from .scores import (
    IOU_MIN,
    NamedBox,
    ScoredPicture,
    detection_scores,
    iou_matrix,
    matches,
    precision_recall_f,
    recall_by_size,
    scores_by_size,
)

Floats = npt.NDArray[np.float64]
DETECTORS = ("dense", "words", "both")
# Candidates that nobody reported come after every reported defect in the ranking for average precision.
TAIL_FACTOR = 0.1
# A detection with this share of itself inside an ignored region says nothing about the detector.
IGNORED_SHARE = 0.5


def scored_parts(parts: Sequence[EvaluatedPart], recipe: Recipe) -> dict[str, Any]:
    """Everything that `evaluate` says about the bundle itself; top-level figures are those of `both`."""
    types = recipe.types
    scored = {name: scored_pictures(parts, name, recipe.thresholds) for name in DETECTORS}
    per_detector = {name: detection_scores(pictures, types) for name, pictures in scored.items()}
    both = scored["both"]
    verdicts = part_verdicts(parts, both)
    groups = [part.group for part in parts]
    return {
        "parts": len(parts),
        **per_detector["both"],
        "map_dense": per_detector["dense"]["map"], "map_words": per_detector["words"]["map"],
        "per_detector": per_detector,
        "per_board": _per_board(groups, both),
        "per_size": scores_by_size(both, types),
        "recall_by_size": recall_by_size(both),
        "confusion": confusion_matrix(both, types),
        "class_accuracy": _class_accuracy(parts),
        **verdict_rates(verdicts),
        "alarm_curve": alarm_curve(verdicts, group_weights(trusted_names(groups))),
        "bootstrap": bootstrap_intervals(parts, Tally.of(both), verdicts),
        "ece": calibration_figures(parts),
        "size_error_mm": size_error_figures(_sizes(parts)),
        **stage_times([_stages(part) for part in parts], [part.total_ms for part in parts]),
        "passes": passes_summary([(part.inspection.passes, len(part.inspection.defects)) for part in parts]),
        "failed_parts": [{"image": part.name, "reason": part.inspection.failed}
                         for part in parts if part.inspection.failed is not None],
    }


def scored_pictures(
    parts: Sequence[EvaluatedPart], detector: str, thresholds: Thresholds
) -> list[ScoredPicture]:
    """The parts as one detector saw them; `dense` and `words` stand by what passes their own threshold."""
    return [_scored(part, detector, thresholds) for part in parts]


def part_verdicts(parts: Sequence[EvaluatedPart], both: Sequence[ScoredPicture]) -> list[PartVerdict]:
    """The judge's dispositions beside the truth; evidence is the strongest candidate in the ranking of AP."""
    verdicts = []
    for part, picture in zip(parts, both, strict=True):
        disposition: str = "reject" if picture.detections else "pass"
        reasons: tuple[str, ...] = ()
        reported = len(picture.detections)
        if part.report is not None:
            disposition, reasons = part.report.disposition, part.report.review_reasons
            reported = sum(defect.severity != "ignore" for defect in part.report.defects)
        evidence = max((box.confidence for box in (*picture.ranked, *picture.detections)), default=0.0)
        has_defect = True if part.truth or part.label else None if part.ignored else False
        verdicts.append(PartVerdict(part.name, has_defect, disposition, reported, reasons, evidence))
    return verdicts


def bootstrap_intervals(
    parts: Sequence[EvaluatedPart], tally: Tally, verdicts: Sequence[PartVerdict]
) -> dict[str, Any]:
    """`{replicates, seed, level, groups, note, group, part}`: 95 % intervals over groups and over parts."""
    groups = [part.group for part in parts]
    table = {}
    for unit, names in resampling_units(groups).items():
        weights = group_weights(names)
        figures = resampled_figures(tally, verdicts, weights)
        table[unit] = {name: percentile_interval(values) for name, values in figures.items()}
    return {**resampling_header(groups), **{unit: table.get(unit) for unit in ("group", "part")}}


def resampled_figures(
    tally: Tally, verdicts: Sequence[PartVerdict], weights: Floats
) -> dict[str, Floats]:
    """[resamples] of each figure for weights [resamples, parts]; NaN where a resample cannot tell."""
    precision, recall, f = tally.precision_recall_f(weights)
    shares = {}
    events: dict[str, tuple[Callable[[PartVerdict], bool], Callable[[PartVerdict], bool]]] = {
        "escape": (lambda one: one.is_escape, lambda one: one.has_defect is True),
        "false_alarm": (lambda one: one.is_false_alarm, lambda one: one.has_defect is False),
        "review_share": (lambda one: one.disposition == "review", lambda one: True),
    }
    for name, (happened, could) in events.items():
        count = weights @ np.array([happened(one) for one in verdicts], np.float64)
        of = weights @ np.array([could(one) for one in verdicts], np.float64)
        shares[name] = np.where(of > 0, count / np.maximum(of, 1e-12), np.nan)
    return {"precision": precision, "recall": recall, "f": f,
            "map": tally.mean_average_precision(weights), **shares}


def calibration_figures(parts: Sequence[EvaluatedPart]) -> dict[str, Any]:
    """ECE and reliability bins of reported defects: `raw`, and `calibrated` (None without a calibration).

    A report's confidence is the calibrated one where the bundle brings a calibration; a defect is right when
    it finds a true box of its type.
    """
    raw = [(_counted(boxes_of(part.inspection.defects), part), part) for part in parts]
    defects = [defect for part in parts if part.report is not None for defect in part.report.defects]
    is_calibrated = any(defect.confidence != defect.raw_confidence for defect in defects)
    reported = [(_counted(_reported_boxes(part.report.defects), part), part)
                for part in parts if part.report is not None]
    return {"raw": _reliability(raw), "calibrated": _reliability(reported) if is_calibrated else None}


def _reliability(said: Sequence[tuple[tuple[NamedBox, ...], EvaluatedPart]]) -> dict[str, Any]:
    """`equal_width, equal_mass` (ECE) and `bins` of both kinds."""
    confidences: list[float] = []
    right: list[bool] = []
    for boxes, part in said:
        confidences += [box.confidence for box in boxes]
        right += [index is not None for index in matches(boxes, part.truth)]
    return {
        "n": len(right), "right": sum(right) / len(right) if right else None,
        "mean_confidence": float(np.mean(confidences)) if confidences else None,
        "equal_width": calibration_error(confidences, right),
        "equal_mass": calibration_error(confidences, right, binning="equal_mass"),
        "bins": {"equal_width": reliability_bins(confidences, right),
                 "equal_mass": reliability_bins(confidences, right, binning="equal_mass")},
    }


def _per_board(groups: Sequence[str], both: Sequence[ScoredPicture]) -> dict[str, Any]:
    """Precision, recall and F of every group; of `all` where none has more than one part."""
    members = defaultdict(list)
    for group, picture in zip(groups, both, strict=True):
        members[group].append(picture)
    if len(members) == len(groups):
        members = defaultdict(list, {"all": list(both)})
    return {name: {"parts": len(own), **precision_recall_f(own)} for name, own in sorted(members.items())}


def _class_accuracy(parts: Sequence[EvaluatedPart]) -> dict[str, Any] | None:
    """By each picture's label, or by its only type where (nearly) every picture with a defect has one."""
    labels = [part.label or _only_type(part.truth) for part in parts]
    with_truth = sum(bool(part.truth or part.label) for part in parts)
    if 10 * sum(label is not None for label in labels) < 9 * with_truth:
        return None
    evidence: list[Mapping[str, float]] = []
    for part in parts:
        sums: dict[str, float] = defaultdict(float)
        for one in (*part.inspection.dense, *part.inspection.words):
            sums[one.type] += one.confidence
        evidence.append(sums)
    return class_accuracy(labels, evidence)


def _only_type(truth: Iterable[NamedBox]) -> str | None:
    names = {box.type for box in truth}
    return names.pop() if len(names) == 1 else None


def _sizes(parts: Sequence[EvaluatedPart]) -> list[MeasuredSize]:
    """Measured beside true extents of every defect that was found with its type and whose size is known."""
    rows = []
    for part in parts:
        defects = part.report.defects if part.report is not None else ()
        for defect, index in zip(defects, matches(_reported_boxes(defects), part.truth), strict=True):
            if index is not None and index < len(part.truth_sizes) and part.truth_sizes[index] is not None:
                rows += _size_rows(defect, part.truth_sizes[index])
    return rows


def _size_rows(defect: Defect, true: Any) -> list[MeasuredSize]:
    """Length, width and area as reported beside the truth; `measured` is None where the report says null."""
    size = defect.size_mm or SizeMm(None, None, None)
    rows = []
    for name, one, known in (("length", size.length, true.length_mm), ("width", size.width, true.width_mm),
                             ("area", size.area_mm2, true.area_mm2)):
        if known is not None:
            value, uncertainty = (None, None) if one is None else (one.value, one.expanded_uncertainty)
            rows.append(MeasuredSize(name, defect.type, known, value, uncertainty))
    return rows


def _stages(part: EvaluatedPart) -> dict[str, float]:
    """Milliseconds by stage, measuring included where the judge measured."""
    timings = part.report.timings_ms if part.report is not None else None
    measure = None if timings is None else timings.measure
    return {**part.inspection.timings_ms, **({} if measure is None else {"measure": measure})}


def _scored(part: EvaluatedPart, detector: str, thresholds: Thresholds) -> ScoredPicture:
    """One part as one detector saw it, less what lies in ignored regions."""
    inspection = part.inspection
    if detector == "both":
        said = boxes_of(inspection.defects)
        tail = [NamedBox(box.type, box.bbox_xyxy, TAIL_FACTOR * box.confidence)
                for box in boxes_of((*inspection.dense, *inspection.words))
                if not said or float(iou_matrix([box], said).max()) <= IOU_MIN]
        ranked: tuple[NamedBox, ...] = (*said, *tail)
    else:
        ranked = boxes_of(inspection.dense if detector == "dense" else inspection.words)
        limit = thresholds.presence if detector == "dense" else thresholds.words
        said = tuple(box for box in ranked if box.confidence >= limit)
    return ScoredPicture(part.truth, _counted(said, part), _counted(ranked, part))


def _counted(boxes: tuple[NamedBox, ...], part: EvaluatedPart) -> tuple[NamedBox, ...]:
    """The boxes less those in ignored regions of the part."""
    return counted_boxes(boxes, part.truth, part.ignored)


def counted_boxes(
    boxes: tuple[NamedBox, ...], truth: Sequence[NamedBox], ignored: Sequence[NamedBox]
) -> tuple[NamedBox, ...]:
    """`boxes` less those that lie in an ignored region and find no true box."""
    return tuple(box for box in boxes if not _is_ignored(box, truth, ignored)) if ignored else boxes


def _is_ignored(box: NamedBox, truth: Sequence[NamedBox], ignored: Sequence[NamedBox]) -> bool:
    """Whether a box lies in a region that is neither right nor wrong to find, and finds no true one."""
    if truth and float(iou_matrix([box], truth).max()) > IOU_MIN:
        return False
    x1, y1, x2, y2 = box.bbox_xyxy
    area = max((x2 - x1) * (y2 - y1), 1e-9)
    for region in ignored:
        left, top, right, bottom = region.bbox_xyxy
        inside = max(min(x2, right) - max(x1, left), 0.0) * max(min(y2, bottom) - max(y1, top), 0.0)
        if inside / area > IGNORED_SHARE:
            return True
    return False


def boxes_of(defects: Iterable[CandidateDefect]) -> tuple[NamedBox, ...]:
    """Candidates of the inspector as boxes to score."""
    return tuple(NamedBox(one.type, tuple(map(float, one.bbox_xyxy)), float(one.confidence))
                 for one in defects)


def _reported_boxes(defects: Iterable[Defect]) -> tuple[NamedBox, ...]:
    """Defects of a report as boxes to score; one without a confidence counts as 0."""
    return tuple(NamedBox(one.type, one.bbox, float(one.confidence or 0.0)) for one in defects)
