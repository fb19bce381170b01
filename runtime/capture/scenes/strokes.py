"""Where a defect can go on a board, and the hand-drawn marks that make it: strokes, blots, cuts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]  # x1, y1, x2, y2, exclusive

# Longest side in pixels: median and spread (sigma of the logarithm), from the published boxes of real boards.
_SIZE_PX = {"open": (20.0, 0.75), "short": (26.0, 0.6), "mousebite": (15.0, 0.45), "spur": (16.0, 0.33),
            "copper": (18.0, 0.45), "pin-hole": (18.0, 0.45)}


@dataclass(frozen=True)
class Ground:
    """Where defects can go on one layout; all coordinates are x, y."""

    copper: Mask  # [H, W] 0 or 255, free of defects
    nets: npt.NDArray[np.int32]  # [H, W] number of the connected conductor, 0 on background
    net_area: npt.NDArray[np.int64]  # [nets] pixels of every conductor
    depth: npt.NDArray[np.float32]  # [H, W] pixels to the nearest background inside copper
    room: npt.NDArray[np.float32]  # [H, W] pixels to the nearest copper on background
    copper_chords: npt.NDArray[np.int32]  # [n, 4] straight across a conductor, background to background
    gap_chords: npt.NDArray[np.int32]  # [n, 4] straight across a gap, copper to copper
    edges: npt.NDArray[np.int32]  # [n, 2] copper pixels on an edge


@dataclass(frozen=True)
class Pen:
    """A hand-drawn mark: points [n, 2] float, one radius a point, in layout pixels."""

    points: npt.NDArray[np.float64]
    radii: npt.NDArray[np.float64]
    flat: bool = False  # square ends, as a knife or a rectangle tool leaves them


def random_size(kind: str, rng: np.random.Generator) -> float:
    """A longest side in pixels for a defect of this type, as large as real ones."""
    median, sigma = _SIZE_PX[kind]
    return float(np.clip(median * math.exp(rng.normal(0.0, sigma)), 7.0, 110.0))


def ground_of_layout(copper: Mask, rng: np.random.Generator) -> Ground:
    """Distances, conductors and chords of a layout uint8 [H, W]; the chords are a random sample."""
    _, nets = cv2.connectedComponents(copper, connectivity=8)
    background: Mask = np.asarray(cv2.bitwise_not(copper), np.uint8)
    depth, copper_chords = _chords(copper, rng)
    room, gap_chords = _chords(background, rng)
    inner = cv2.erode(copper, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero(cv2.subtract(copper, inner))
    if gap_chords.size:
        first = nets[gap_chords[:, 1], gap_chords[:, 0]]
        second = nets[gap_chords[:, 3], gap_chords[:, 2]]
        gap_chords = gap_chords[first != second]
    return Ground(copper=copper, nets=np.asarray(nets, np.int32), net_area=np.bincount(nets.ravel()),
                  depth=depth, room=room, copper_chords=copper_chords, gap_chords=gap_chords,
                  edges=np.stack([columns, rows], axis=1).astype(np.int32))


def _chords(mask: Mask, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Distance of every pixel of `mask` to its outside, and chords across it [n, 4] from outside to outside.

    A pixel on the middle line has a neighbour whose nearest outside pixel lies on the opposite side.
    """
    if not (mask == 0).any():
        return np.full(mask.shape, float(max(mask.shape)), np.float32), np.zeros((0, 4), np.int32)
    distance, labels = cv2.distanceTransformWithLabels(mask, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    # Only the rim of the outside can be nearest to anything; OpenCV's distances look two pixels far.
    rim = cv2.bitwise_and(cv2.dilate(mask, np.ones((5, 5), np.uint8)), cv2.bitwise_not(mask))
    rows, columns = np.nonzero(rim)
    nearest = np.zeros((int(labels.max()) + 1, 2), np.int32)
    nearest[labels[rows, columns]] = np.stack([columns, rows], axis=1)
    height, width = mask.shape
    samples = min(height * width // 4, 50_000)  # the middle lines are 1-3 % of a board: hundreds of chords
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


def _stroke_pen(start: npt.NDArray[np.float64], end: npt.NDArray[np.float64], width: float,
                rng: np.random.Generator, bend: float) -> Pen:
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
    return Pen(points, radii, flat)


def _blob_pen(centre: npt.NDArray[np.float64], size: float, rng: np.random.Generator) -> Pen:
    """A blot of about `size` pixels: one disc, or a short fat stroke of any direction."""
    if rng.random() < 0.15:
        return Pen(centre[None], np.array([size / 2]))
    width = size * rng.uniform(0.3, 0.8)
    angle = rng.uniform(0.0, math.pi)
    half = (size - width) / 2 * np.array([math.cos(angle), math.sin(angle)])
    return _stroke_pen(centre - half, centre + half, width, rng, bend=0.5)


def _across(chords: npt.NDArray[np.int32], size: float, rng: np.random.Generator,
            overshoot: float) -> Pen | None:
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
    outwards = unit * overshoot + slant / 2
    return _stroke_pen(start - outwards, end + outwards, width, rng, bend=0.12)


def _open_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _across(ground.copper_chords, size, rng, overshoot=2.5)


def _short_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _across(ground.gap_chords, size, rng, overshoot=1.5)


def _edge_pen(ground: Ground, size: float, rng: np.random.Generator, inwards: bool) -> Pen | None:
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


def _mousebite_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _edge_pen(ground, size, rng, inwards=True)


def _spur_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _edge_pen(ground, size, rng, inwards=False)


def _inside(distance: npt.NDArray[np.float32], size: float, rng: np.random.Generator) -> Pen | None:
    """A blot at a random pixel that is far enough from the outside."""
    height, width = distance.shape
    x, y = rng.integers(0, width, 200), rng.integers(0, height, 200)
    wide = np.flatnonzero(distance[y, x] > min(size * 0.45 + 2.0, 14.0))
    if wide.size == 0:
        return None
    pick = int(wide[0])
    return _blob_pen(np.array([x[pick], y[pick]], np.float64), size, rng)


def _copper_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _inside(ground.room, size, rng)


def _pin_hole_pen(ground: Ground, size: float, rng: np.random.Generator) -> Pen | None:
    return _inside(ground.depth, size, rng)


PENS: dict[str, Callable[[Ground, float, np.random.Generator], Pen | None]] = {
    "open": _open_pen, "short": _short_pen, "mousebite": _mousebite_pen,
    "spur": _spur_pen, "copper": _copper_pen, "pin-hole": _pin_hole_pen,
}


def mark_of_pen(pen: Pen, window: Window) -> Mask:
    """The pen's mark, uint8 [h, w] 0 or 255, in the pixels of `window`."""
    x1, y1, x2, y2 = window
    canvas: Mask = np.zeros((y2 - y1, x2 - x1), np.uint8)
    points = np.round((pen.points - (x1, y1)) * 8).astype(np.int32)
    if pen.flat and len(points) == 2:
        along = pen.points[1] - pen.points[0]
        side = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6) * pen.radii[0]
        first, last = pen.points[0] - (x1, y1), pen.points[1] - (x1, y1)
        corners = np.stack([first - side, first + side, last + side, last - side])
        cv2.fillPoly(canvas, [np.round(corners * 8).astype(np.int32)], (255,), cv2.LINE_8, 3)
        return canvas
    for index, radius in enumerate(pen.radii):
        centre = (int(points[index, 0]), int(points[index, 1]))
        cv2.circle(canvas, centre, int(radius * 8), (255,), -1, cv2.LINE_8, 3)
        if index:
            before = (int(points[index - 1, 0]), int(points[index - 1, 1]))
            pen_px = max(round(float(pen.radii[index - 1] + radius)), 1)
            cv2.line(canvas, before, centre, (255,), pen_px, cv2.LINE_8, 3)
    return canvas
