"""From what an annotation marks to an example: outlines, boxes, clipping, sizes that must agree.

A drawn box stands as it was drawn. A box around an outline (mask or polygon) is tight, and is widened by the
margin that the recipe's own boxes have. All boxes end at the picture's edge.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ....runtime.errors import DataSetError
from ...scores import NamedBox
from ..example import Example, Mask, Picture, Row
from .reading import picture_from_file

log = logging.getLogger(__name__)

Outline = Callable[[int, int], Mask]
"""Height and width of the picture to a mask bool [H, W]."""

JOIN_PX = 8
SPECK_PX = 10
"""Pieces of a mask nearer than `JOIN_PX` are one defect; pieces of fewer pixels than `SPECK_PX` are none."""


@dataclass(frozen=True)
class Mark:
    """One annotated defect: its recipe type, its box (None: around `outline`), whether it is out of scoring.

    A box that is tight around an outline is widened; one that was drawn stands.
    """

    type: str
    box: tuple[float, float, float, float] | None = None
    outline: Outline | None = None
    is_ignored: bool = False
    is_tight: bool = False


@dataclass(frozen=True)
class Sheet:
    """One picture with its marks; `size_wh` as the annotation says it, None where it does not."""

    picture: Path
    name: str
    group: str
    marks: tuple[Mark, ...]
    where: str
    size_wh: tuple[int, int] | None = None
    label: str | None = None


def rows_from_sheets(sheets: Sequence[Sheet], margin_px: float) -> list[Row]:
    """Rows in the order of `sheets`; says once how many drawn boxes reach beyond their pictures."""
    beyond = [sheet for sheet in sheets if sheet.size_wh is not None
              for mark in sheet.marks if mark.box is not None and _is_beyond(mark.box, sheet.size_wh)]
    if beyond:
        log.warning("%d boxes reach beyond their pictures and are cut at the edge; the first one is in %s",
                    len(beyond), beyond[0].where)
    return [_row(sheet, margin_px) for sheet in sheets]


def _row(sheet: Sheet, margin_px: float) -> Row:
    def read() -> Example:
        return example_from_sheet(sheet, picture_from_file(sheet.picture), margin_px)

    return Row(sheet.name, sheet.group, read)


def example_from_sheet(sheet: Sheet, image: Picture, margin_px: float) -> Example:
    """The example of a sheet and its picture; DataSetError when their sizes differ or a box is outside."""
    height, width = image.shape[:2]
    if sheet.size_wh is not None and sheet.size_wh != (width, height):
        raise DataSetError(
            f"{sheet.where}: says {sheet.size_wh[0]} x {sheet.size_wh[1]} pixels and {sheet.picture} has"
            f" {width} x {height}; annotate the picture as it is shown (OpenCV turns it by its EXIF flag)"
        )
    truth: list[NamedBox] = []
    masks: list[Mask | None] = []
    ignored: list[NamedBox] = []
    for mark in sheet.marks:
        try:
            mask = None if mark.outline is None else mark.outline(height, width)
        except ValueError as error:
            raise DataSetError(f"{sheet.where}: {error}") from None
        box = mark.box if mark.box is not None else _around(mask)
        if box is None:
            raise DataSetError(f"{sheet.where}: the outline of a {mark.type!r} has no pixel on the picture")
        wide = margin_px if mark.is_tight else 0.0
        around = (box[0] - wide, box[1] - wide, box[2] + wide, box[3] + wide)
        named = NamedBox(mark.type, clipped(around, width, height, sheet.where))
        if mark.is_ignored:
            ignored.append(named)
        else:
            truth.append(named)
            masks.append(mask)
    known = tuple(masks) if any(mask is not None for mask in masks) else ()
    kinds = {box.type for box in truth}
    label = sheet.label or (next(iter(kinds)) if len(kinds) == 1 else None)
    return Example(sheet.name, sheet.group, image, None, tuple(truth), masks=known, ignored=tuple(ignored),
                   label=label)


def clipped(box: Sequence[float], width: int, height: int, where: str) -> tuple[float, float, float, float]:
    """The part of a box that lies on the picture; DataSetError when nothing does."""
    x1, y1, x2, y2 = (float(value) for value in box)
    inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        raise DataSetError(f"{where}: the box {(x1, y1, x2, y2)} has no pixel on the picture,"
                           f" which has {width} x {height}")
    return inside


def pieces_of_mask(mask: Mask, join_px: int = JOIN_PX, speck_px: int = SPECK_PX) -> list[Mask]:
    """Defects of a mask bool [H, W], each again [H, W], from top to bottom.

    Connected pixels (8 neighbours) are a piece; pieces of fewer than `speck_px` pixels are dropped; pieces
    whose distance is below `join_px` belong to one defect.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] >= speck_px)
    kept = np.isin(labels, large[large > 0])
    if count < 2 or not kept.any():
        return []
    # Two pieces grow together when each is widened by half of the distance.
    side = 2 * (join_px // 2) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    joined, regions = cv2.connectedComponents(cv2.dilate(kept.astype(np.uint8), kernel), connectivity=8)
    return [np.asarray(kept & (regions == number), np.bool_) for number in range(1, joined)]


def fixed_outline(mask: Mask) -> Outline:
    """The outline of a mask that is already there."""
    return lambda height, width: mask


def _around(mask: Mask | None) -> tuple[float, float, float, float] | None:
    """The tight box around a mask, x2 and y2 exclusive."""
    if mask is None or not mask.any():
        return None
    rows: npt.NDArray[np.intp] = np.flatnonzero(mask.any(axis=1))
    columns: npt.NDArray[np.intp] = np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1


def _is_beyond(box: Sequence[float], size_wh: tuple[int, int]) -> bool:
    """More than a pixel: tools differ by one in where a picture begins."""
    return box[0] < -1 or box[1] < -1 or box[2] > size_wh[0] + 1 or box[3] > size_wh[1] + 1
