"""Detection scores: one-to-one matching at IoU > 0.33, precision, recall, F and mean average precision.

The rule is the one of DeepPCB's paper (Tang et al., "Online PCB defect detector on a new PCB defect dataset",
2019): a detection is right when its class is right and its IoU with a true box that nobody took yet is above
0.33; F = 2PR / (P + R). Average precision is the area under the precision-recall curve after making precision
non-increasing (all points, as PASCAL VOC does since 2010); mAP is its mean over the classes that have truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IOU_MIN = 0.33
# Longest side of the true box, px. The last bucket is open.
SIZE_BUCKETS = (("<32", 0.0, 32.0), ("32-48", 32.0, 48.0), ("48-64", 48.0, 64.0), ("64-96", 64.0, 96.5),
                (">96", 96.5, float("inf")))


@dataclass(frozen=True)
class NamedBox:
    """A box (x1, y1, x2, y2) in px, x2 and y2 exclusive, its type, and a detection's confidence 0..1."""

    type: str
    bbox_xyxy: tuple[float, ...]
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if len(self.bbox_xyxy) != 4:
            raise ValueError(f"bbox_xyxy must be (x1, y1, x2, y2); received {self.bbox_xyxy!r}")


@dataclass(frozen=True)
class ScoredPicture:
    """One picture's truth beside what a detector said.

    `detections` are those it stands by (precision, recall, F); `ranked` also those below its threshold, for
    average precision; empty means the same list.
    """

    truth: tuple[NamedBox, ...]
    detections: tuple[NamedBox, ...]
    ranked: tuple[NamedBox, ...] = ()


def iou_matrix(first: Sequence[NamedBox], second: Sequence[NamedBox]) -> npt.NDArray[np.float64]:
    """[len(first), len(second)] intersection over union."""
    a = np.array([box.bbox_xyxy for box in first], np.float64).reshape(-1, 1, 4)
    b = np.array([box.bbox_xyxy for box in second], np.float64).reshape(1, -1, 4)
    size = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    inter = np.prod(np.maximum(size, 0.0), axis=-1)
    union = np.prod(a[..., 2:] - a[..., :2], axis=-1) + np.prod(b[..., 2:] - b[..., :2], axis=-1) - inter
    return np.asarray(inter / np.maximum(union, 1e-9))


def matches(
    detections: Sequence[NamedBox], truth: Sequence[NamedBox], *, with_class: bool = True,
    iou_min: float = IOU_MIN,
) -> list[int | None]:
    """For every detection the index of the true box that it finds, or None.

    The most confident detection chooses first (ties: the earlier) and takes the free true box of its class
    with the highest IoU above `iou_min`. One true box is found once.
    """
    overlap = iou_matrix(detections, truth)
    found: list[int | None] = [None] * len(detections)
    free = [True] * len(truth)
    for row in sorted(range(len(detections)), key=lambda index: -detections[index].confidence):
        best, best_overlap = None, iou_min
        for column, box in enumerate(truth):
            right_class = not with_class or box.type == detections[row].type
            if free[column] and right_class and overlap[row, column] > best_overlap:
                best, best_overlap = column, float(overlap[row, column])
        if best is not None:
            found[row], free[best] = best, False
    return found


def precision_recall_f(pictures: Sequence[ScoredPicture], *, with_class: bool = True) -> dict[str, float]:
    """`precision, recall, f` over all pictures together (0 where there is nothing to divide by)."""
    right = sum(sum(index is not None for index in matches(p.detections, p.truth, with_class=with_class))
                for p in pictures)
    said = sum(len(p.detections) for p in pictures)
    true = sum(len(p.truth) for p in pictures)
    return _ratios(right, said, true)


def average_precision(pictures: Sequence[ScoredPicture], type_name: str) -> float | None:
    """Area under the precision-recall curve of one class, all points; None when the class has no truth."""
    ranked: list[tuple[float, bool]] = []
    true = 0
    for picture in pictures:
        truth = [box for box in picture.truth if box.type == type_name]
        boxes = [box for box in (picture.ranked or picture.detections) if box.type == type_name]
        true += len(truth)
        found = matches(boxes, truth)
        ranked += [(box.confidence, index is not None) for box, index in zip(boxes, found, strict=True)]
    if true == 0:
        return None
    ranked.sort(key=lambda pair: -pair[0])
    right = np.cumsum([hit for _, hit in ranked], dtype=np.float64)
    precision = right / np.arange(1, len(ranked) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(np.concatenate([[0.0], right / true]))
    return float(np.sum(steps * envelope))


def scores_per_class(pictures: Sequence[ScoredPicture], types: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For every type `truth, detections, precision, recall, f, ap`; `ap` is None for a type without truth."""
    hits = dict.fromkeys(types, 0)
    said, true = dict.fromkeys(types, 0), dict.fromkeys(types, 0)
    for picture in pictures:
        for box in picture.truth:
            true[box.type] = true.get(box.type, 0) + 1
        for box, index in zip(picture.detections, matches(picture.detections, picture.truth), strict=True):
            said[box.type] = said.get(box.type, 0) + 1
            hits[box.type] = hits.get(box.type, 0) + (index is not None)
    return {name: {"truth": true.get(name, 0), "detections": said.get(name, 0),
                   **_ratios(hits.get(name, 0), said.get(name, 0), true.get(name, 0)),
                   "ap": average_precision(pictures, name)}
            for name in dict.fromkeys([*types, *true, *said])}


def recall_by_size(pictures: Sequence[ScoredPicture]) -> dict[str, dict[str, Any]]:
    """Recall (with class) by the longest side of the true box: `{bucket: {truth, found, recall}}`.

    `recall` is None for a bucket without truth.
    """
    true = {name: 0 for name, _, _ in SIZE_BUCKETS}
    found = dict(true)
    for picture in pictures:
        hit = {index for index in matches(picture.detections, picture.truth) if index is not None}
        for index, box in enumerate(picture.truth):
            bucket = next(name for name, low, high in SIZE_BUCKETS if low <= _side(box) < high)
            true[bucket] += 1
            found[bucket] += index in hit
    return {name: {"truth": true[name], "found": found[name],
                   "recall": found[name] / true[name] if true[name] else None} for name in true}


def scores_by_size(pictures: Sequence[ScoredPicture], types: Sequence[str]) -> dict[str, dict[str, Any]]:
    """For every bucket `truth, detections, precision, recall, f, ap` (mean of types) and `per_class` recall.

    A detection that found a box counts in that box's bucket, any other in its own; `recall` and `ap` are None
    without truth. As COCO does for its areas: boxes of other sizes are neither right nor wrong here.
    """
    table = {}
    for name, low, high in SIZE_BUCKETS:
        own = [_of_size(picture, low, high) for picture in pictures]
        scores = scores_per_class(own, types)
        areas = [row["ap"] for row in scores.values() if row["ap"] is not None]
        true = sum(row["truth"] for row in scores.values())
        table[name] = {
            "truth": true, "detections": sum(row["detections"] for row in scores.values()),
            **precision_recall_f(own), "ap": float(np.mean(areas)) if areas else None,
            "per_class": {kind: {"truth": row["truth"], "recall": row["recall"] if row["truth"] else None}
                          for kind, row in scores.items()},
        }
        if not true:
            table[name]["recall"] = None
    return table


def detection_scores(pictures: Sequence[ScoredPicture], types: Sequence[str]) -> dict[str, Any]:
    """Everything about one detector: `precision, recall, f, map, agnostic{...}, per_class{...}`."""
    per_class = scores_per_class(pictures, types)
    areas = [float(entry["ap"]) for entry in per_class.values() if entry["ap"] is not None]
    return {**precision_recall_f(pictures), "map": float(np.mean(areas)) if areas else 0.0,
            "agnostic": precision_recall_f(pictures, with_class=False), "per_class": per_class}


def _of_size(picture: ScoredPicture, low: float, high: float) -> ScoredPicture:
    """The same picture with the true boxes of one bucket, and the detections that count there."""

    def kept(boxes: Sequence[NamedBox]) -> tuple[NamedBox, ...]:
        found = matches(boxes, picture.truth)
        sizes = [_side(box if index is None else picture.truth[index])
                 for box, index in zip(boxes, found, strict=True)]
        return tuple(box for box, side in zip(boxes, sizes, strict=True) if low <= side < high)

    truth = tuple(box for box in picture.truth if low <= _side(box) < high)
    return ScoredPicture(truth, kept(picture.detections), kept(picture.ranked or picture.detections))


def _side(box: NamedBox) -> float:
    """The longest side, px."""
    x1, y1, x2, y2 = box.bbox_xyxy
    return max(x2 - x1, y2 - y1)


def _ratios(right: int, said: int, true: int) -> dict[str, float]:
    """Precision, recall and F from counts."""
    precision = right / said if said else 0.0
    recall = right / true if true else 0.0
    total = precision + recall
    return {"precision": precision, "recall": recall, "f": 2 * precision * recall / total if total else 0.0}
