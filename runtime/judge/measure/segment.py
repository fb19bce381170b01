"""Which pixels of a window are the defect: pieces that stand out, and half of their height place by place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from .signal import Signal, quantile
from .window import Field, Mask, Window

FAINT = "no_contrast_in_box"
"""Why nothing was measured: nothing in the box stands out from its surroundings."""

LEVEL = 0.5
"""The share of the defect's own height at which its outline runs."""

_SEEN = 3.5  # noise sigmas that a pixel of a defect rises above its surroundings
_LEAST_OF_BOX = (
    0.35  # of a side of the box: less is a speck, and the defect was not told from its surroundings
)
_BOX_KEEPS = 0.94  # of a side: a detector misses a large side by more than a small one
_LOW, _FAINT_SHARE = 0.33, 0.2
_LEAST_SHARE = (
    0.06  # a piece with less of the strongest piece's signal is not the defect's, if it may be texture
)
_ABOVE_TEXTURE = 1.5  # times the strongest piece that the surroundings show: more is no texture
_NEVER_QUITE = 0.04  # no template is laid quite right: as if so much of the outline lay on its edges
_GAP_PX, _MOST_GAP_PX = 3.0, 12.0  # from the outline to where the heights in and around are read
_KERNEL = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Segment:
    """The defect's pixels bool [h, w], and the field in which its outline is a level.

    `own` float32 [h, w] is the share of the defect's own height there: 1 inside, 0 around, half on the
    outline; everything that is not the defect's is pressed under it. `height` is the defect's in the signal;
    `noise` and `unevenness` are the signal's as shares of it.
    `left_out` is the signal of pieces in the box that were not joined, as a share of the defect's.
    `short_of_box` is by how much the defect is shorter than its box allows to believe, px: on the side where
    more is missing, and on the other. `share`: as `own`, nothing pressed. `gap_px`: how far from the outline
    heights are read; `softness_px`: sigma of the edge. `faint`: as `own`, with the faint parts of the defect
    (a fifth of its height and more) counted in. `patchiness`: how much the defect's own height varies along
    its ridge, a share of it, noise taken off. `on_template`: share of the outline that lies on edges of the
    template. `ends_px`: what is unsure about both ends of a line together (k = 1).
    """

    mask: Mask
    height: float
    own: Field
    noise: float
    unevenness: float
    left_out: float
    short_of_box: tuple[float, float]
    share: Field
    gap_px: float
    softness_px: float
    faint: Field
    faint_level: float
    patchiness: float
    on_template: float
    ends_px: float = 0.0


def mask_of_signal(
    signal: Signal, window: Window, drawn: Mask | None, *, rough: bool = False
) -> tuple[Mask, float] | None:
    """The defect's pixels, generously, and how much signal was left out; None when nothing stands out.

    `rough`: the part above half of the height will do.
    """
    field, reach = signal.field, window.reach
    inside = field[reach]
    x1, y1, x2, y2 = window.tight
    most = int(min(max(0.5 * max(x2 - x1, y2 - y1), 4), max(0.03 * inside.size, 4)))
    height = quantile(inside, 1.0 - min(most, inside.size) / inside.size)
    least = _SEEN * signal.noise
    if float(inside.max()) < least:
        return None
    mask, left_out = _joined(field > max(least, 0.45 * height), field, window)
    if not mask.any():
        return None
    for share in (0.5,) if rough else (0.5, _LOW):
        above = field > max(share * plateau_of(field, mask), (0.6 if share == 0.5 else 0.5) * least)
        if drawn is not None:
            above = _without_slivers(above & reach, drawn)
        grown, left_out = _joined(above, field, window)
        if not grown.any():
            break
        mask = grown
    return mask, left_out


def segment_of_mask(
    signal: Signal, window: Window, mask: Mask, left_out: float, drawn: Mask | None
) -> Segment | None:
    """The defect around the pixels of `mask`: half of its height there, whatever that is in other places.

    Rust is light and dark, a scratch fades to its ends: one level for all of it would cut them off. None when
    nothing is left, or only a speck in the box.
    """
    field = signal.field
    height = plateau_of(field, mask)
    if height <= 0:
        return None
    gap = next_gap = _GAP_PX
    for _ in range(2):
        gap = next_gap
        share = share_of_height(field, mask, height, gap)
        softness = _softness(share)
        next_gap = min(max(_GAP_PX, 2.0 * softness), _MOST_GAP_PX)
        near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        above = (share > LEVEL) & near & window.reach
        if drawn is not None:
            above = _without_slivers(above, drawn)
        if not above.any():
            return None
        mask = _touching(above, mask)
        if not mask.any():
            return None
    short = _short_of_box(mask, window)
    if short is None:
        return None
    height = max(plateau_of(field, mask), 0.1 * height)
    low = max(_FAINT_SHARE, 3.0 * signal.noise / height)
    above = (share > low) & window.reach
    if drawn is not None:
        above = _without_slivers(above, drawn)
    with_faint = _touching(above | mask, mask)
    return Segment(
        mask,
        height,
        own_field(share, mask, LEVEL),
        signal.noise / height,
        signal.unevenness / height,
        left_out,
        short,
        share,
        gap,
        softness,
        own_field(share, with_faint, low),
        low,
        _patchiness(field, mask, height, signal.noise),
        0.0 if drawn is None else max(float(drawn[_rim_of(mask)].mean()), _NEVER_QUITE),
    )


def _touching(above: Mask, mask: Mask) -> Mask:
    """The pieces of `above` that share a pixel with `mask`."""
    count, labels = cv2.connectedComponents(above.astype(np.uint8), connectivity=8)
    if count <= 2:
        return above
    kept = np.zeros(count, np.bool_)
    kept[np.unique(labels[mask & above])] = True
    kept[0] = False
    return np.asarray(kept[labels])


def share_of_height(field: Field, mask: Mask, height: float, gap_px: float) -> Field:
    """The field as a share of the defect's height there, 0 its surroundings there: [h, w]."""
    depth = depth_of(mask)
    away = cv2.distanceTransform(1 - mask.astype(np.uint8), cv2.DIST_L2, 3)
    core = depth >= min(gap_px, max(0.7 * float(depth.max()), _GAP_PX))
    ridge = mask & (depth >= cv2.dilate(depth, _KERNEL) - 1e-3) & (depth > 0.3 * float(depth.max()))
    if core.any():
        ridge &= ~(cv2.dilate(core.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0)
    inner = (core | ridge).astype(np.float32)
    sigma = min(max(0.35 * float(depth.max()), 3.0), 8.0)
    outer = ((away >= gap_px) & (away <= gap_px + 6.0)).astype(np.float32)
    inside, outside = _mean_around(field, inner, sigma, height), _mean_around(field, outer, 5.0, 0.0)
    return np.asarray((field - outside) / np.maximum(inside - outside, 0.25 * height), np.float32)


def _softness(share: Field) -> float:
    """Sigma of the edge, px: from the slope where the share is about half."""
    across = cv2.Sobel(share, cv2.CV_32F, 1, 0, ksize=1) / 2
    down = cv2.Sobel(share, cv2.CV_32F, 0, 1, ksize=1) / 2
    band = np.abs(share - LEVEL) < 0.15
    if int(np.count_nonzero(band)) < 6:
        return 1.0
    return 0.4 / max(quantile(np.hypot(across[band], down[band]), 0.5), 0.02)


def _mean_around(field: Field, weights: Field, sigma: float, otherwise: float) -> Field:
    """The weighted mean of a field around every pixel, `otherwise` where no weight is near.

    It changes slowly: half the resolution is enough.
    """
    both = np.stack([field * weights, weights], axis=2)
    small = (
        cv2.resize(both, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(field.shape) > 8 else both
    )
    small = cv2.GaussianBlur(
        small, (0, 0), sigma * small.shape[1] / field.shape[1], borderType=cv2.BORDER_CONSTANT
    )
    mean = (small[..., 0] + 0.02 * otherwise) / (small[..., 1] + 0.02)
    return np.asarray(cv2.resize(mean, field.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _short_of_box(mask: Mask, window: Window) -> tuple[float, float] | None:
    """What is missing between defect and box; None when the defect is a speck in it."""
    x1, y1, x2, y2 = window.tight
    sides = float(np.count_nonzero(mask.any(axis=0))), float(np.count_nonzero(mask.any(axis=1)))
    room = window.room_px
    if max(sides[0] / max(x2 - x1 - room / 2, 1.0), sides[1] / max(y2 - y1 - room / 2, 1.0)) < _LEAST_OF_BOX:
        return None
    missing = (
        max((x2 - x1) * _BOX_KEEPS - room - sides[0], 0.0),
        max((y2 - y1) * _BOX_KEEPS - room - sides[1], 0.0),
    )
    return max(missing), min(missing)


def own_field(field: Field, mask: Mask, level: float) -> Field:
    """The field with pixels under the level wherever another piece than `mask` rises above it."""
    near = cv2.dilate(mask.astype(np.uint8), _KERNEL) > 0
    return np.where(mask | (near & (field <= level)), field, np.minimum(field, 0.0)).astype(np.float32)


def depth_of(mask: Mask) -> Field:
    """How far inside a mask a pixel is, px; beyond the edge of the field nothing is inside."""
    framed = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    return np.asarray(cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1], np.float32)


def plateau_of(field: Field, mask: Mask) -> float:
    """The height of the defect: the median along its ridge, the pixels farthest from its outline.

    On a wide defect that is its flat middle; on a line narrower than the blur, the line's own blurred height.
    """
    ridge = _ridge_of(mask)
    return quantile(field[ridge], 0.5) if ridge.any() else float(field[mask].max())


def _ridge_of(mask: Mask) -> Mask:
    """The pixels of a mask that are farthest from its outline."""
    depth = depth_of(mask)
    ridge = mask & (depth >= cv2.dilate(depth, np.ones((3, 3), np.uint8)) - 1e-3)
    deepest = float(depth.max())
    return ridge & (depth >= (0.6 if deepest > 4 else 0.3) * deepest)


def _rim_of(mask: Mask) -> Mask:
    return mask & (depth_of(mask) < 1.5)


def _patchiness(field: Field, mask: Mask, plateau: float, noise: float) -> float:
    heights = field[_ridge_of(mask)]
    spread = (quantile(heights, 0.84) - quantile(heights, 0.16)) / 2 if heights.size > 8 else noise
    return math.sqrt(max(spread**2 - noise**2, 0.0)) / max(plateau, 1e-6)


def _joined(above: Mask, field: Field, window: Window) -> tuple[Mask, float]:
    """The pieces that make up the defect, and how much signal of other pieces the box holds.

    What texture does, the surroundings show: a piece that carries clearly more signal than any out there
    belongs to the defect, however small it is beside the largest.
    """
    usable = (above & (window.reach | window.ring)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(usable, connectivity=8)
    if count <= 1:
        return np.zeros_like(above), 0.0
    x1, y1, x2, y2 = window.tight
    ys, xs = np.nonzero(labels)  # the few pixels above
    which = labels[ys, xs]
    values = np.maximum(field[ys, xs], 0.0)
    within = values * window.reach[ys, xs]
    whole, weight = (np.bincount(which, one, count) for one in (values, within))
    texture = float(np.max(np.where(weight < 0.2 * whole, whole, 0.0)))
    # A detector centres its box on the defect: of two pieces alike, the more central one is it.
    off = np.hypot((xs - (x1 + x2) / 2) / max(x2 - x1, 1), (ys - (y1 + y2) / 2) / max(y2 - y1, 1))
    centre = np.bincount(which, off * within, count) / np.maximum(weight, 1e-6)
    best = int(np.argmax(weight * np.clip(1.2 - centre, 0.1, None)))
    if weight[best] <= 0:
        return np.zeros_like(above), 0.0
    clear = (weight >= max(_ABOVE_TEXTURE * texture, 0.004 * weight[best])) & (weight > 0.6 * whole)
    large = weight >= _LEAST_SHARE * weight[best]
    kept = (clear | (large & (weight > 0.6 * whole))) & (stats[:, cv2.CC_STAT_AREA] >= 2)
    kept[best], kept[0] = True, False
    left_out = float(weight[~kept].sum() / weight[kept].sum())
    return np.asarray(kept[labels] & window.reach), left_out


def drawn_edges(template: Field, noise: float) -> Mask:
    """Where the template itself has edges: there a fraction of a pixel of misfit looks like a defect."""
    calm = cv2.GaussianBlur(template.mean(axis=2), (0, 0), 0.8)
    steep = cv2.magnitude(
        cv2.Sobel(calm, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(calm, cv2.CV_32F, 0, 1, ksize=1)
    )
    return np.asarray(cv2.dilate((steep > 8 * noise).astype(np.uint8), _KERNEL) > 0)


def _without_slivers(above: Mask, drawn: Mask) -> Mask:
    """Without what lies on the template's edges and is thinner than three pixels: part and template apart.

    A defect that is nothing but thin stays as it is.
    """
    solid = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_OPEN, _KERNEL)
    kept = above & ((cv2.dilate(solid, _KERNEL) > 0) | ~drawn)
    return kept if int(np.count_nonzero(kept)) >= 9 else above
