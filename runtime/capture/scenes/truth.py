"""What is known about a simulated part: its defects, in pixels of the part picture and in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

DEFECT_TYPES: tuple[str, ...] = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
"""The defect types of a PCB scene, in the order of DeepPCB's classes 1..6; the same order everywhere."""

Style = Literal["binary", "grey"]
"""`binary`: a scan reduced to black (copper) and white; `grey`: a camera picture of the same polarity."""

STYLES: tuple[Style, ...] = ("binary", "grey")


@dataclass(frozen=True)
class SceneDefect:
    """One defect that was really put on the part.

    `bbox_xyxy` is tight, x2/y2 exclusive, in pixels of the part picture; `mask` bool [y2-y1, x2-x1] marks
    the pixels that differ from the same part without the defect. Length and width are the sides of the
    smallest rotated rectangle around the mask, area is the mask's own; where the drawn shape is known
    exactly (metal scenes), all three are the shape's. `colour_rgb` and `surround_rgb` are the mean colours of
    the defect and of the sound surface around it, red green blue 0..255 before blur and noise; None for grey.
    """

    type: str
    bbox_xyxy: tuple[int, int, int, int]
    mask: npt.NDArray[np.bool_]
    length_mm: float
    width_mm: float
    area_mm2: float
    colour_rgb: tuple[float, float, float] | None = None
    surround_rgb: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Scene:
    """A part, its golden template and the truth about the part.

    `image` and `template` are uint8 [H, W]. `shift_xy` is how many pixels the template lies to the right of
    and below the part, before the local warp; `misregistration_px` bounds shift and warp together per axis.
    """

    image: npt.NDArray[np.uint8]
    template: npt.NDArray[np.uint8]
    defects: tuple[SceneDefect, ...]
    mm_per_px: float
    style: Style
    seed: int
    shift_xy: tuple[float, float]
    misregistration_px: float


def defect_from_changes(kind: str, changed: npt.NDArray[np.bool_], mm_per_px: float,
                        origin_xy: tuple[int, int] = (0, 0)) -> SceneDefect:
    """The defect whose changed pixels are `changed` (bool [h, w], top left corner at `origin_xy`).

    Raises ValueError when nothing changed.
    """
    rows, columns = np.nonzero(changed)
    if rows.size == 0:
        raise ValueError(f"a defect of type {kind} changes no pixel: give a mask with at least one True")
    x1, x2 = int(columns.min()), int(columns.max()) + 1
    y1, y2 = int(rows.min()), int(rows.max()) + 1
    length_px, width_px = sides_of_mask(changed)
    return SceneDefect(
        type=kind,
        bbox_xyxy=(x1 + origin_xy[0], y1 + origin_xy[1], x2 + origin_xy[0], y2 + origin_xy[1]),
        mask=np.ascontiguousarray(changed[y1:y2, x1:x2]),
        length_mm=length_px * mm_per_px,
        width_mm=width_px * mm_per_px,
        area_mm2=float(rows.size) * mm_per_px * mm_per_px,
    )


def sides_of_mask(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Longer and shorter side in pixels of the smallest rotated rectangle around the pixels of `mask`.

    A pixel counts with the middles of its four sides: a drawn 20 x 8 rectangle is 20 x 8, not 19 x 7, and one
    that lies aslant is as long as it was drawn, where the corners of its staircase would add 0.7 pixels.
    """
    rows, columns = np.nonzero(mask)
    sides = ((0.5, 0.0), (0.5, 1.0), (0.0, 0.5), (1.0, 0.5))
    middles = np.concatenate([np.stack([columns + dx, rows + dy], axis=1) for dx, dy in sides])
    (_, (first, second), _) = cv2.minAreaRect(middles.astype(np.float32))
    return max(first, second), min(first, second)
