"""Which type is taken for which: by defect, and by picture where a picture has one label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..scores import IOU_MIN, NamedBox, ScoredPicture, matches
from .binomial import share_with_bounds

MISSED = "missed"
INVENTED = "invented"


def confusion_matrix(
    pictures: Sequence[ScoredPicture], types: Sequence[str], iou_min: float = IOU_MIN
) -> dict[str, Any]:
    """`{types, rows: {true type or "invented": {said type or "missed": count}}}`, zeros left out.

    Boxes of the right type are paired first, so that the diagonal is what precision and recall count; what is
    left is paired by overlap alone.
    """
    rows: dict[str, dict[str, int]] = {}

    def count(true: str, said: str) -> None:
        row = rows.setdefault(true, {})
        row[said] = row.get(said, 0) + 1

    for picture in pictures:
        for true, said in paired(picture, iou_min):
            count(INVENTED if true is None else true.type, MISSED if said is None else said.type)
    seen = {name for row in rows.values() for name in row} | set(rows)
    names = list(dict.fromkeys([*types, *sorted(seen - {MISSED, INVENTED})]))
    return {"types": names, "rows": {name: rows[name] for name in [*names, INVENTED] if name in rows}}


def paired(
    picture: ScoredPicture, iou_min: float = IOU_MIN
) -> list[tuple[NamedBox | None, NamedBox | None]]:
    """(true, said) for every box: both where they meet, None where one was missed or invented."""
    truth, said = list(picture.truth), list(picture.detections)
    pairs: list[tuple[NamedBox | None, NamedBox | None]] = []
    for with_class in (True, False):
        found = matches(said, truth, with_class=with_class, iou_min=iou_min)
        pairs += [(truth[index], box) for box, index in zip(said, found, strict=True) if index is not None]
        taken = set(found)
        said = [box for box, index in zip(said, found, strict=True) if index is None]
        truth = [box for index, box in enumerate(truth) if index not in taken]
    return [*pairs, *((box, None) for box in truth), *((None, box) for box in said)]


def class_accuracy(
    labels: Sequence[str | None], evidence: Sequence[Mapping[str, float]]
) -> dict[str, Any] | None:
    """Share of pictures whose type of strongest evidence is their label, with bounds; None without labels.

    labels: a picture's one type, None where it has none or several (left out); evidence: type -> summed
    confidence of its candidates. A picture without any evidence counts as wrong. None, too, where most
    pictures with a defect have several types: a share of the rest would say little.
    """
    known = [(label, table) for label, table in zip(labels, evidence, strict=True) if label is not None]
    if not known:
        return None
    said = [max(table, key=lambda name: (table[name], name)) if table else None for _, table in known]
    right = sum(name == label for name, (label, _) in zip(said, known, strict=True))
    rows: dict[str, dict[str, int]] = {}
    for name, (label, _) in zip(said, known, strict=True):
        row = rows.setdefault(label, {})
        row[name or MISSED] = row.get(name or MISSED, 0) + 1
    share = share_with_bounds(right, len(known))
    return {"pictures": len(known), "right": right, "accuracy": share["rate"], "low": share["low"],
            "high": share["high"], "undecided": said.count(None),
            "per_class": {one: rows[one].get(one, 0) / sum(rows[one].values()) for one in sorted(rows)},
            "rows": {label: rows[label] for label in sorted(rows)}}
