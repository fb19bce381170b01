"""Defects drawn into a copper layout, each proved to be what its name says before it is kept.

The proof is topological, in a window around the changed pixels (`TOPOLOGY`): an open adds a piece of copper
by taking copper away, a short removes one by adding copper, a pin-hole adds a piece of background, and so on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .truth import DEFECT_TYPES

Mask = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]  # x1, y1, x2, y2, exclusive

TOPOLOGY: dict[str, tuple[bool, int, int]] = {
    # type: (adds copper, change in pieces of copper, change in pieces of background)
    "open": (False, +1, -1),
    "short": (True, -1, +1),
    "mousebite": (False, 0, 0),
    "spur": (True, 0, 0),
    "copper": (True, +1, 0),
    "pin-hole": (False, 0, +1),
}
# Longest side in pixels: median and spread (sigma of the logarithm), from the published boxes of real boards.
_SIZE_PX = {"open": (20.0, 0.75), "short": (26.0, 0.6), "mousebite": (15.0, 0.45), "spur": (16.0, 0.33),
            "copper": (18.0, 0.45), "pin-hole": (18.0, 0.45)}
_WINDOW_PX = 10  # context around the changed pixels in which the proof is made
GAP_PX = 13  # between the tight boxes of two defects
_TRIES = 12  # strokes drawn for one defect before another is begun
_EDGE_PX = 5  # a defect keeps this far from the picture's edge
_CRUMB_PX = 8  # smaller pieces are edge noise, not conductors or islands


@dataclass(frozen=True)
class DrawnDefect:
    """A defect as drawn: its type and the tight box of its changed pixels in the layout."""

    kind: str
    box_xyxy: Window


@dataclass(frozen=True)
class _Ground:
    """Where defects can go on one layout; all coordinates are x, y."""

    copper: Mask  # [H, W] 0 or 255, free of defects
    nets: npt.NDArray[np.int32]  # [H, W] number of the connected conductor, 0 on background
    net_area: npt.NDArray[np.int64]  # [nets] pixels of every conductor
    depth: npt.NDArray[np.float32]  # [H, W] pixels to the nearest background inside copper
    room: npt.NDArray[np.float32]  # [H, W] pixels to the nearest copper on background
    copper_chords: npt.NDArray[np.int32]  # [n, 4] straight across a conductor, background to background
    gap_chords: npt.NDArray[np.int32]  # [n, 4] straight across a gap, copper to copper
    edges: npt.NDArray[np.int32]  # [n, 2] copper pixels on an edge


def draw_defects(copper: Mask, count: int, rng: np.random.Generator) -> tuple[Mask, list[DrawnDefect]]:
    """A copy of the layout uint8 [H, W] with up to `count` defects, and their list.

    Fewer than `count` come back when the layout has no room for more.
    """
    ground = _ground_of_layout(copper, rng)
    damaged = copper.copy()
    drawn: list[DrawnDefect] = []
    for _ in range(4 * count):
        if len(drawn) == count:
            break
        kind = DEFECT_TYPES[int(rng.integers(len(DEFECT_TYPES)))]
        size = _size(kind, rng)
        for _ in range(_TRIES):  # the type stays, so that a type that is hard to place is not rare
            pen = _PENS[kind](ground, size, rng)
            found = None if pen is None else _apply(kind, ground, damaged, pen, drawn, rng)
            if found is not None:
                drawn.append(found)
                break
            size = max(size * 0.93, 7.0)
    return damaged, drawn


def is_what_it_says(kind: str, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> bool:
    """Whether the change from `before` to `after` (bool [h, w], True = copper) is a defect of this type.

    Pieces smaller than 8 pixels do not count. Conductors are 8-connected where they must be parted and
    4-connected where they must be joined, so that a diagonal contact never decides.
    """
    adds, copper_change, background_change = TOPOLOGY[kind]
    gained, lost = np.count_nonzero(after & ~before), np.count_nonzero(before & ~after)
    if (gained if adds else lost) == 0 or (lost if adds else gained):
        return False
    connectivity = 4 if kind == "short" else 8
    change = _pieces(after, connectivity) - _pieces(before, connectivity)
    if kind == "open":
        return change >= 1 and _reaching(after) > _reaching(before)
    if kind == "short":
        return change <= -1
    opposite = _pieces(~after, 4) - _pieces(~before, 4)
    return change == copper_change and opposite == background_change


def window_around(box_xyxy: Window, shape: tuple[int, ...]) -> Window:
    """The box with the context in which its proof is made, cut at the picture's edge."""
    x1, y1, x2, y2 = box_xyxy
    return (max(x1 - _WINDOW_PX, 0), max(y1 - _WINDOW_PX, 0),
            min(x2 + _WINDOW_PX, shape[1]), min(y2 + _WINDOW_PX, shape[0]))


def _pieces(mask: npt.NDArray[np.bool_], connectivity: int) -> int:
    """Connected pieces of at least `_CRUMB_PX` pixels."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    return int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] >= _CRUMB_PX))


def _reaching(mask: npt.NDArray[np.bool_]) -> int:
    """8-connected pieces that leave the window: ends of a conductor, not scraps cut off it."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    ring = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.unique(ring[ring > 0]).size)


def _size(kind: str, rng: np.random.Generator) -> float:
    median, sigma = _SIZE_PX[kind]
    return float(np.clip(median * math.exp(rng.normal(0.0, sigma)), 7.0, 110.0))


def _ground_of_layout(copper: Mask, rng: np.random.Generator) -> _Ground:
    _, nets = cv2.connectedComponents(copper, connectivity=8)
    background = cv2.bitwise_not(copper)
    depth, copper_chords = _chords(copper, rng)
    room, gap_chords = _chords(background, rng)
    inner = cv2.erode(copper, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(cv2.subtract(copper, inner))
    if gap_chords.size:
        first = nets[gap_chords[:, 1], gap_chords[:, 0]]
        second = nets[gap_chords[:, 3], gap_chords[:, 2]]
        gap_chords = gap_chords[first != second]
    return _Ground(copper, np.asarray(nets, np.int32), np.bincount(nets.ravel()), depth, room, copper_chords, gap_chords,
                   np.stack([columns, rows], axis=1).astype(np.int32))


def _chords(mask: Mask, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Distance of every pixel of `mask` to its outside, and chords across it [n, 4] from outside to outside.

    A pixel on the middle line has a neighbour whose nearest outside pixel lies on the opposite side.
    """
    if not (mask == 0).any():
        return np.full(mask.shape, float(max(mask.shape)), np.float32), np.zeros((0, 4), np.int32)
    distance, labels = cv2.distanceTransformWithLabels(mask, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    rows, columns = np.nonzero(mask == 0)
    nearest = np.zeros((int(labels.max()) + 1, 2), np.int32)
    nearest[labels[rows, columns]] = np.stack([columns, rows], axis=1)
    height, width = mask.shape
    samples = min(height * width, 60_000)  # the middle lines are 1-3 % of a board: hundreds of chords
    y = rng.integers(0, height - 1, samples)
    x = rng.integers(0, width - 1, samples)
    chords = []
    for dx, dy in ((1, 0), (0, 1)):
        here, there = nearest[labels[y, x]], nearest[labels[y + dy, x + dx]]
        reach = distance[y, x]
        apart = np.hypot(*(here - there).T.astype(np.float32))
        # 90 degree corners give 1.41, parallel sides 2; the sampled pixel is not exactly in the middle.
        keep = (reach >= 1.5) & (reach <= 55.0) & (apart >= 1.7 * reach) & (mask[y + dy, x + dx] > 0)
        chords.append(np.concatenate([here[keep], there[keep]], axis=1))
    return np.asarray(distance, np.float32), np.concatenate(chords).astype(np.int32)


@dataclass(frozen=True)
class _Pen:
    """A hand-drawn mark: points [n, 2] float, one radius a point, in layout pixels."""

    points: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    flat: bool = False  # square ends, as a knife or a rectangle tool leaves them


def _stroke_pen(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], width: float,
                rng: np.random.Generator, bend: float) -> _Pen:
    """A stroke from start to end that bends and swells a little."""
    flat = bool(rng.random() < 0.25)
    steps = 2 if flat else int(rng.integers(2, 6))
    along = np.linspace(0.0, 1.0, steps)[:, None]
    direction = end - start
    normal = np.array([-direction[1], direction[0]])
    sway = np.cumsum(rng.normal(0.0, bend / max(steps - 1, 1), steps))[:, None]
    points = start + along * direction + (sway - along * sway[-1]) * normal
    swell = 0.0 if flat or rng.random() < 0.4 else 0.22
    radii = np.maximum(width / 2 * np.exp(rng.normal(0.0, swell, steps)), 1.5)
    return _Pen(points, radii, flat)


def _blob_pen(centre: npt.NDArray[np.float64], size: float, rng: np.random.Generator) -> _Pen:
    """A blot of about `size` pixels: one disc, or a short fat stroke of any direction."""
    if rng.random() < 0.15:
        return _Pen(centre[None], np.array([size / 2]))
    width = size * rng.uniform(0.3, 0.8)
    angle = rng.uniform(0.0, math.pi)
    half = (size - width) / 2 * np.array([math.cos(angle), math.sin(angle)])
    return _stroke_pen(centre - half, centre + half, width, rng, bend=0.5)


def _across(chords: npt.NDArray[np.int32], size: float, rng: np.random.Generator, overshoot: float) -> _Pen | None:
    """A stroke along the one of a few random chords whose length comes nearest to `size`."""
    if len(chords) == 0:
        return None
    few = chords[rng.integers(len(chords), size=10)].astype(np.float64)
    lengths = np.hypot(few[:, 2] - few[:, 0], few[:, 3] - few[:, 1])
    # Of the near fits the one along a picture axis: most gaps and traces run so, and hands draw so.
    slope = np.minimum(np.abs(few[:, 2] - few[:, 0]), np.abs(few[:, 3] - few[:, 1])) / lengths
    chord = few[int(np.argmin(np.abs(np.log(lengths / size)) + 0.6 * slope))]
    start, end = chord[:2], chord[2:]
    length = float(np.hypot(*(end - start)))
    unit = (end - start) / length
    slant = rng.normal(0.0, 0.2) * np.array([-unit[1], unit[0]]) * min(length, 20.0)
    width = float(np.clip(rng.lognormal(math.log(7.0), 0.42), 3.5, 26.0))
    return _stroke_pen(start - unit * overshoot - slant / 2, end + unit * overshoot + slant / 2, width, rng, 0.12)


def _open_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _across(ground.copper_chords, size, rng, overshoot=2.5)


def _short_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _across(ground.gap_chords, size, rng, overshoot=1.5)


def _edge_pen(ground: _Ground, size: float, rng: np.random.Generator, inwards: bool) -> _Pen | None:
    """A stroke from an edge of copper into it, or out of it."""
    if len(ground.edges) == 0:
        return None
    edge = ground.edges[int(rng.integers(len(ground.edges)))]
    x, y = int(edge[0]), int(edge[1])
    near = ground.copper[max(y - 3, 0):y + 4, max(x - 3, 0):x + 4]
    if near.shape != (7, 7):
        return None
    # The centre of the copper in a 7 x 7 neighbourhood lies on the inner side of the edge.
    rows, columns = np.nonzero(near)
    towards = np.array([columns.mean() - 3.0, rows.mean() - 3.0])
    norm = float(np.hypot(*towards))
    if norm < 0.3:
        return None
    angle = math.atan2(towards[1], towards[0]) + float(rng.normal(0.0, 0.45)) + (0.0 if inwards else math.pi)
    unit = np.array([math.cos(angle), math.sin(angle)])
    start = np.array([x, y], np.float64)
    if rng.random() < 0.35:  # a round bite or bump with its centre near the edge
        return _blob_pen(start + unit * size * rng.uniform(0.0, 0.3), size, rng)
    width = size * rng.uniform(0.3, 0.7)
    root = start - unit * width * 0.4
    return _stroke_pen(root, start + unit * max(size - width / 2, 2.0), width, rng, bend=0.15)


def _mousebite_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _edge_pen(ground, size, rng, inwards=True)


def _spur_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _edge_pen(ground, size, rng, inwards=False)


def _inside(distance: npt.NDArray[np.float32], size: float, rng: np.random.Generator) -> _Pen | None:
    """A blot at a random pixel that is far enough from the outside."""
    height, width = distance.shape
    x, y = rng.integers(0, width, 200), rng.integers(0, height, 200)
    wide = np.flatnonzero(distance[y, x] > min(size * 0.45 + 2.0, 14.0))
    if wide.size == 0:
        return None
    pick = int(wide[0])
    return _blob_pen(np.array([x[pick], y[pick]], np.float64), size, rng)


def _copper_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _inside(ground.room, size, rng)


def _pin_hole_pen(ground: _Ground, size: float, rng: np.random.Generator) -> _Pen | None:
    return _inside(ground.depth, size, rng)


_PENS: dict[str, Callable[[_Ground, float, np.random.Generator], _Pen | None]] = {
    "open": _open_pen, "short": _short_pen, "mousebite": _mousebite_pen,
    "spur": _spur_pen, "copper": _copper_pen, "pin-hole": _pin_hole_pen,
}


def _draw_pen(pen: _Pen, window: Window) -> Mask:
    """The pen's mark, uint8 [h, w] 0 or 255, in the pixels of `window`."""
    x1, y1, x2, y2 = window
    canvas: Mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    points = np.round((pen.points - (x1, y1)) * 8).astype(np.int32)
    if pen.flat and len(points) == 2:
        along = pen.points[1] - pen.points[0]
        side = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6) * pen.radii[0]
        corners = np.stack([pen.points[0] - side, pen.points[0] + side, pen.points[1] + side, pen.points[1] - side])
        cv2.fillPoly(canvas, [np.round((corners - (x1, y1)) * 8).astype(np.int32)], (255,), cv2.LINE_8, 3)
        return canvas
    for index, radius in enumerate(pen.radii):
        centre = (int(points[index, 0]), int(points[index, 1]))
        cv2.circle(canvas, centre, int(radius * 8), (255,), -1, cv2.LINE_8, 3)
        if index:
            before = (int(points[index - 1, 0]), int(points[index - 1, 1]))
            pen_px = max(int(round(float(pen.radii[index - 1] + radius))), 1)
            cv2.line(canvas, before, centre, (255,), pen_px, cv2.LINE_8, 3)
    return canvas


def _apply(kind: str, ground: _Ground, damaged: Mask, pen: _Pen, drawn: Sequence[DrawnDefect],
           rng: np.random.Generator) -> DrawnDefect | None:
    """Draw the pen's mark into `damaged` when it is a true defect of this type and has room; else nothing."""
    height, width = damaged.shape
    reach = float(pen.radii.max()) + _WINDOW_PX + 3
    low, high = pen.points.min(axis=0) - reach, pen.points.max(axis=0) + reach
    frame = (max(int(low[0]), 0), max(int(low[1]), 0), min(int(high[0]) + 1, width), min(int(high[1]) + 1, height))
    if frame[2] - frame[0] < 8 or frame[3] - frame[1] < 8:
        return None
    adds = TOPOLOGY[kind][0]
    before = damaged[frame[1]:frame[3], frame[0]:frame[2]] > 0
    mark = _draw_pen(pen, frame)
    changed = (mark > 0) & (~before if adds else before)
    if kind == "mousebite" and not _leaves_most(ground, frame, changed):
        return None
    if not adds and rng.random() < 0.2:
        changed &= ~_residue(changed, rng)
    rows, columns = np.nonzero(changed)
    if rows.size < 20:
        return None
    tight = (int(columns.min()) + frame[0], int(rows.min()) + frame[1],
             int(columns.max()) + 1 + frame[0], int(rows.max()) + 1 + frame[1])
    if not _has_room(tight, (width, height), drawn):
        return None
    if not _proved(kind, before, changed):
        return None
    damaged[frame[1]:frame[3], frame[0]:frame[2]][changed] = 255 if adds else 0
    return DrawnDefect(kind, tight)


def _leaves_most(ground: _Ground, frame: Window, changed: npt.NDArray[np.bool_]) -> bool:
    """Whether the bitten conductors keep seven tenths of their copper: a bite does not eat a pad."""
    bitten = np.unique(ground.nets[frame[1]:frame[3], frame[0]:frame[2]][changed])
    return np.count_nonzero(changed) < 0.3 * float(ground.net_area[bitten].sum())


def _residue(changed: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Dabs of 2 x 3 pixels that a scan leaves standing inside a cut, bool like `changed`."""
    dabs = rng.random(changed.shape) < 0.03
    return cv2.dilate(dabs.astype(np.uint8), np.ones((2, 3), np.uint8)) > 0


def _has_room(tight: Window, size_wh: tuple[int, int], drawn: Sequence[DrawnDefect]) -> bool:
    """Whether the box keeps its distance to the picture's edge and to the other defects, and has a fair size."""
    x1, y1, x2, y2 = tight
    if max(x2 - x1, y2 - y1) < 6:
        return False
    if x1 < _EDGE_PX or y1 < _EDGE_PX or x2 > size_wh[0] - _EDGE_PX or y2 > size_wh[1] - _EDGE_PX:
        return False
    return all(x1 - other.box_xyxy[2] > GAP_PX or other.box_xyxy[0] - x2 > GAP_PX
               or y1 - other.box_xyxy[3] > GAP_PX or other.box_xyxy[1] - y2 > GAP_PX for other in drawn)


def _proved(kind: str, before: npt.NDArray[np.bool_], changed: npt.NDArray[np.bool_]) -> bool:
    """The topology of the change, and again with the change grown by the edge noise to come.

    An open and a short must hold when the change is SMALLER by a pixel a side, the others when it is larger.
    """
    def holds(pixels: npt.NDArray[np.bool_]) -> bool:
        after = before | pixels if TOPOLOGY[kind][0] else before & ~pixels
        return is_what_it_says(kind, before, after)

    if not holds(changed):
        return False
    if kind in ("open", "short"):
        return True
    grown = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return holds(grown & (~before if TOPOLOGY[kind][0] else before))
