"""Which pixels of a window are the defect: a level at half its height, pieces that belong together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .signal import Signal
from .window import Field, Mask, Window

FAINT = "no_contrast_in_box"
"""Why nothing was measured: nothing in the box stands out from its surroundings."""

_SEEN = 3.5  # noise sigmas that a pixel of a defect rises above its surroundings
_LEAST_OF_BOX = (
    0.35  # of a side of the box: less is a speck, and the defect was not told from its surroundings
)
_BOX_KEEPS = 0.94  # of a side: a detector misses a large side by more than a small one
_FAINT_SHARE = 0.2
_LEAST_SHARE = 0.06  # a piece with less of the strongest piece's signal is not the defect's


@dataclass(frozen=True)
class Segment:
    """The defect's pixels bool [h, w], its height `plateau` and the `level` at half of it, as in the signal.

    `own` float32 [h, w] is the signal with everything that is not the defect's pressed under the level.
    `left_out` is the signal of pieces in the box that were not joined, as a share of the defect's.
    `short_of_box` is by how much the defect is shorter than its box allows to believe, px: on the side where
    more is missing, and on the other. `faint` and `faint_level`: as `own` and `level`, with the faint parts
    of the defect (a fifth of its height and more) counted in. `patchiness`: how much the defect's own height
    varies along its ridge, a share of the plateau, noise taken off. `on_template`: share of the outline that
    lies on edges of the template.
    """

    mask: Mask
    plateau: float
    level: float
    own: Field
    left_out: float
    short_of_box: tuple[float, float]
    faint: Field
    faint_level: float
    patchiness: float
    on_template: float


def segment_of_signal(signal: Signal, window: Window, template: Field | None = None) -> Segment | None:
    """The defect in the window, None when nothing stands out; `template` [h, w, channels] lies on it."""
    field, reach = signal.field, window.reach
    height = float(np.percentile(field[reach], 97))
    least = _SEEN * signal.noise
    if float(field[reach].max()) < least:
        return None
    drawn = None if template is None else _drawn_edges(template, signal.noise)
    mask, _ = _joined(field > max(least, 0.45 * height), field, window)
    if not mask.any():
        return None
    plateau, left_out = plateau_of(field, mask), 0.0
    for _ in range(2):
        above = (field > max(0.5 * plateau, 0.6 * least)) & reach
        if drawn is not None:
            above = _without_slivers(above, drawn)
        grown, left_out = _joined(above, field, window)
        if not grown.any():
            break
        mask, plateau = grown, plateau_of(field, grown)
    level = max(0.5 * plateau, 0.6 * least)
    short = _short_of_box(mask, window)
    if short is None:
        return None
    low = max(_FAINT_SHARE * plateau, 0.86 * least)
    above = (field > low) & reach
    if drawn is not None:
        above = _without_slivers(above, drawn)
    with_faint, _ = _joined(above | mask, field, window)
    return Segment(
        mask,
        plateau,
        level,
        own_field(field, mask, level),
        left_out,
        short,
        own_field(field, with_faint | mask, low),
        low,
        _patchiness(field, mask, plateau, signal.noise),
        0.0 if drawn is None else float(drawn[_rim_of(mask)].mean()),
    )


def _short_of_box(mask: Mask, window: Window) -> tuple[float, float] | None:
    """What is missing between defect and box; None when the defect is a speck in it."""
    x1, y1, x2, y2 = window.box
    sides = float(np.count_nonzero(mask.any(axis=0))), float(np.count_nonzero(mask.any(axis=1)))
    room = window.room_px
    if max(sides[0] / (x2 - x1 - room / 2), sides[1] / (y2 - y1 - room / 2)) < _LEAST_OF_BOX:
        return None
    missing = (
        max((x2 - x1) * _BOX_KEEPS - room - sides[0], 0.0),
        max((y2 - y1) * _BOX_KEEPS - room - sides[1], 0.0),
    )
    return max(missing), min(missing)


def own_field(field: Field, mask: Mask, level: float) -> Field:
    """The field with pixels under the level wherever another piece than `mask` rises above it."""
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.where(mask | (near & (field <= level)), field, np.minimum(field, 0.0)).astype(np.float32)


def plateau_of(field: Field, mask: Mask) -> float:
    """The height of the defect: the median along its ridge, the pixels farthest from its outline.

    On a wide defect that is its flat middle; on a line narrower than the blur, the line's own blurred height.
    """
    ridge = _ridge_of(mask)
    return float(np.median(field[ridge])) if ridge.any() else float(field[mask].max())


def _ridge_of(mask: Mask) -> Mask:
    """The pixels of a mask that are farthest from its outline."""
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    ridge = mask & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-3)
    deepest = float(depth.max())
    return ridge & (depth >= (0.6 if deepest > 4 else 0.3) * deepest)


def _rim_of(mask: Mask) -> Mask:
    return mask & ~(cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1] > 0)


def _patchiness(field: Field, mask: Mask, plateau: float, noise: float) -> float:
    heights = field[_ridge_of(mask)]
    spread = float(np.percentile(heights, 84) - np.percentile(heights, 16)) / 2 if heights.size > 8 else noise
    return math.sqrt(max(spread**2 - noise**2, 0.0)) / max(plateau, 1e-6)


def _joined(above: Mask, field: Field, window: Window) -> tuple[Mask, float]:
    """The pieces that make up the defect, and how much signal of other pieces the box holds."""
    usable = (above & window.reach).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(usable, connectivity=8)
    if count <= 1:
        return np.zeros_like(above), 0.0
    if count == 2:
        return labels > 0, 0.0
    x1, y1, x2, y2 = window.box
    inner = np.zeros(field.shape, np.float32)
    inner[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = 1.0
    flat = labels.ravel()
    weight = np.bincount(flat, (field * inner).ravel(), count)
    weight[0] = 0.0
    # A detector centres its box on the defect: of two pieces alike, the more central one is it.
    ys, xs = np.indices(field.shape, np.float32)
    off = np.hypot((xs - (x1 + x2) / 2) / max(x2 - x1, 1), (ys - (y1 + y2) / 2) / max(y2 - y1, 1))
    centre = np.bincount(flat, (off * inner * field).ravel(), count) / np.maximum(weight, 1e-6)
    best = int(np.argmax(weight * np.clip(1.2 - centre, 0.1, None)))
    if weight[best] <= 0:
        return np.zeros_like(above), 0.0
    kept = (weight >= _LEAST_SHARE * weight[best]) & (stats[:, cv2.CC_STAT_AREA] >= 2)
    kept[best], kept[0] = True, False
    left_out = float(weight[~kept].sum() / weight[kept].sum())
    return kept[labels], left_out


def _drawn_edges(template: Field, noise: float) -> Mask:
    """Where the template itself has edges: there a fraction of a pixel of misfit looks like a defect."""
    calm = cv2.GaussianBlur(template.mean(axis=2), (0, 0), 0.8)
    steep = cv2.magnitude(
        cv2.Sobel(calm, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(calm, cv2.CV_32F, 0, 1, ksize=1)
    )
    return np.asarray(cv2.dilate((steep > 8 * noise).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)


def _without_slivers(above: Mask, drawn: Mask) -> Mask:
    """Without what lies on the template's edges and is thinner than three pixels: part and template apart.

    A defect that is nothing but thin stays as it is.
    """
    kernel = np.ones((3, 3), np.uint8)
    solid = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, kernel)
    kept = above & ((cv2.dilate(solid, kernel) > 0) | ~drawn)
    return kept if int(np.count_nonzero(kept)) >= 9 else above
