"""A simulated printed circuit board beside its golden template, with everything known about its defects."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .defects import DrawnDefect, draw_defects, is_what_it_says, window_around
from .layout import copper_layout
from .look import (
    MARGIN_PX,
    MOST_MISREGISTRATION_PX,
    Scan,
    add_specks,
    copper_seen,
    exposures,
    grey_picture,
    grown_or_shrunk,
    misregistration,
    scan,
    view_of_layout,
)
from .truth import STYLES, Scene, SceneDefect, Style, defect_from_changes

MM_PER_PX = 1.0 / 48.0
SMALLEST_PX = 128


def pcb_scene(seed: int, *, size_px: int = 640, style: Style = "binary", defects: int | None = None,
              misregistration_px: float = 4.0, mm_per_px: float = MM_PER_PX) -> Scene:
    """Board number `seed`: dark copper on light, part and template uint8 [size_px, size_px].

    `defects` asks for a number of them; None draws 3..12 for a 640 px board, fewer for a smaller one. A board
    without room carries fewer than asked. The part's geometry is the truth; the template is shifted and
    warped against it by at most `misregistration_px` an axis. The same arguments give the same bits.
    Raises ValueError for a size under 128, an unknown style or a negative number.
    """
    if size_px < SMALLEST_PX:
        raise ValueError(f"size_px is {size_px}: a scene is at least {SMALLEST_PX} pixels")
    if style not in STYLES:
        raise ValueError(f"style is {style!r}: one of {', '.join(STYLES)}")
    if (defects is not None and defects < 0) or not 0.0 <= misregistration_px <= MOST_MISREGISTRATION_PX:
        raise ValueError(f"defects is {defects} and misregistration_px {misregistration_px}: "
                         f"give a number from 0, and 0 to {MOST_MISREGISTRATION_PX} pixels")
    # Streams of their own: the same seed has the same copper in every style.
    layout_rng, defect_rng, look_rng = (np.random.default_rng([seed, stream]) for stream in range(3))
    layout = copper_layout(layout_rng, size_px + 2 * MARGIN_PX)
    clean = view_of_layout(layout, size_px, None)
    count = _defect_count(defect_rng, size_px) if defects is None else defects
    damaged, drawn = draw_defects(clean, count, defect_rng)
    misfit = misregistration(look_rng, misregistration_px)
    golden = grown_or_shrunk(view_of_layout(layout, size_px, misfit), look_rng)
    eye = scan(look_rng, size_px) if style == "binary" else _even_eye(size_px)
    seen, kept = _prove_again(clean, damaged, drawn, eye, mm_per_px)
    if style == "binary":
        part = np.where(seen, np.uint8(0), np.uint8(255))
        template = np.where(copper_seen(golden, scan(look_rng, size_px)), np.uint8(0), np.uint8(255))
        near = _near_defects(kept, size_px)
        add_specks(part, look_rng, near)
        add_specks(template, look_rng, near)
    else:
        of_part, of_template = exposures(look_rng, size_px)
        part, template = grey_picture(damaged, of_part), grey_picture(golden, of_template)
    return Scene(part, template, tuple(kept), mm_per_px, style, seed, misfit.shift_xy, misregistration_px)


def _defect_count(rng: np.random.Generator, size_px: int) -> int:
    """3..12 on a 640 px board; on smaller ones in proportion to the area, and at least none or one."""
    area = (size_px / 640.0) ** 2
    count = float(rng.integers(3, 13)) * area
    return int(count) + int(rng.random() < count - int(count))


def _even_eye(size_px: int) -> Scan:
    """A scan without any irregularity: where copper is, for a picture that is not thresholded."""
    return Scan(0.8, 0.5, np.zeros((size_px, size_px), np.float32))


def _prove_again(clean: npt.NDArray[np.uint8], damaged: npt.NDArray[np.uint8], drawn: list[DrawnDefect],
                 eye: Scan, mm_per_px: float) -> tuple[npt.NDArray[np.bool_], list[SceneDefect]]:
    """What the eye sees of the part (bool [H, W], True = copper), and the defects that are true as seen.

    A defect that edge noise has undone (a hairline cut closed again) is taken off the part, in `damaged` too.
    """
    without, seen = copper_seen(clean, eye), copper_seen(damaged, eye)
    nets = np.asarray(cv2.connectedComponents(without.astype(np.uint8), connectivity=8)[1], np.int32)
    kept = []
    for defect in drawn:
        x1, y1, x2, y2 = window_around(defect.box_xyxy, clean.shape)
        before, after = without[y1:y2, x1:x2], seen[y1:y2, x1:x2]
        true = is_what_it_says(defect.kind, before, after)
        if true and defect.kind == "short":
            true = _touched(nets[y1:y2, x1:x2], before ^ after) >= 2
        if true:
            kept.append(defect_from_changes(defect.kind, before ^ after, mm_per_px, (x1, y1)))
        else:
            seen[y1:y2, x1:x2] = before
            damaged[y1:y2, x1:x2] = clean[y1:y2, x1:x2]
    return seen, kept


def _touched(nets: npt.NDArray[np.int32], changed: npt.NDArray[np.bool_]) -> int:
    """How many conductors of the whole board lie against the changed pixels; both arrays are one window."""
    rim = cv2.dilate(changed.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return int(np.unique(nets[rim & (nets > 0)]).size)


def _near_defects(defects: list[SceneDefect], size_px: int) -> npt.NDArray[np.bool_]:
    """Where dust would be taken for part of a defect: their boxes and 14 pixels around, bool [H, W]."""
    near: npt.NDArray[np.uint8] = np.zeros((size_px, size_px), np.uint8)
    for defect in defects:
        x1, y1, x2, y2 = defect.bbox_xyxy
        cv2.rectangle(near, (x1 - 14, y1 - 14), (x2 + 13, y2 + 13), (1,), -1)
    return near > 0
