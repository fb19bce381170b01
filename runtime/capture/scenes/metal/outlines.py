"""The exact shape of a defect as polygons: its coverage of every pixel, its sides to a fraction of a pixel.

Coordinates are pixels, x to the right, y down; pixel (i, j) covers i..i+1, j..j+1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Field = npt.NDArray[np.float32]
Window = tuple[int, int, int, int]  # x1, y1, x2, y2, exclusive

_LINES = 8  # cuts through every line of a picture

SIZES_PX: dict[str, tuple[float, float]] = {
    "scratch": (20.0, 300.0), "dent": (12.0, 90.0), "pit": (4.0, 30.0),
    "rust": (12.0, 160.0), "stain": (20.0, 200.0), "crack": (20.0, 300.0),
}
"""Shortest and longest side in pixels for every type."""


@dataclass(frozen=True)
class Outline:
    """A defect's shape: the union of `polygons`, each [n, 2]."""

    polygons: tuple[Points, ...]

    def moved(self, x: float, y: float) -> Outline:
        """The same shape `x` to the right and `y` down."""
        return Outline(tuple(polygon + np.array([x, y]) for polygon in self.polygons))

    def bounds(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom."""
        points = np.concatenate(self.polygons)
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        return float(left), float(top), float(right), float(bottom)

    def sides_px(self) -> tuple[float, float]:
        """Longer and shorter side of the smallest rotated rectangle around the shape."""
        points = np.concatenate(self.polygons)
        # OpenCV counts in float32: near the origin it has the digits.
        _, (first, second), _ = cv2.minAreaRect((points - points.mean(axis=0)).astype(np.float32))
        return float(max(first, second)), float(min(first, second))

    def coverage(self, window: Window) -> Field:
        """Covered share of every pixel of `window`, float32 [h, w] 0..1, exact along x for one polygon."""
        covers = [_covered_by(polygon - window[:2], window[2] - window[0], window[3] - window[1])
                  for polygon in self.polygons]
        # Where two polygons share a pixel, between one hiding the other and both side by side.
        return np.asarray(1.0 - np.multiply.reduce([1.0 - cover for cover in covers]), np.float32)


def _covered_by(ring: Points, width: int, height: int) -> Field:
    """Covered share of the pixels of a [height, width] picture by the closed polygon `ring` [n, 2].

    Every line of the picture is cut at `_LINES` heights. Where an edge crosses a cut, all that lies to its
    right is inside from there on, or outside again: adding up along x gives the share.
    """
    start, end = ring * (1, _LINES), np.roll(ring, -1, axis=0) * (1, _LINES)
    first = np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5).astype(np.int64)
    count = np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5).astype(np.int64) - first
    edge = np.repeat(np.arange(len(ring)), count)
    cut = first[edge] + np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count)
    keep = (cut >= 0) & (cut < height * _LINES)
    edge, cut = edge[keep], cut[keep]
    way = end[edge] - start[edge]
    x = np.clip(start[edge, 0] + (cut + 0.5 - start[edge, 1]) * way[:, 0] / way[:, 1], 0.0, float(width))
    column = x.astype(np.int64)
    sign = np.sign(way[:, 1]) / _LINES
    place = cut // _LINES * (width + 2) + column
    right = sign * (x - column)
    steps = np.bincount(np.concatenate([place, place + 1]), np.concatenate([sign - right, right]),
                        height * (width + 2))
    share = np.abs(np.cumsum(steps.reshape(height, width + 2), axis=1)[:, :width])
    return np.asarray(np.minimum(share, 1.0), np.float32)


def random_outline(kind: str, longest_px: float, rng: np.random.Generator) -> Outline:
    """A shape of type `kind` around the origin, turned at random, with sides within `SIZES_PX`.

    `longest_px` bounds the longer side from above, for pictures smaller than the largest defects.
    """
    low, high = SIZES_PX[kind]
    high = max(min(high, longest_px), low)
    size = low * (high / low) ** float(rng.random())
    shape = {"scratch": _scratch, "dent": _dent, "pit": _pit, "rust": _rust, "stain": _stain,
             "crack": _crack}[kind](size, rng)
    angle = rng.uniform(0.0, 2 * math.pi)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = [polygon @ turn for polygon in shape]
    middle = np.concatenate(turned).mean(axis=0)
    return Outline(tuple(polygon - middle for polygon in turned))


def _stroke(path: Points, widths: npt.NDArray[np.float64]) -> Points:
    """The outline [2n + caps, 2] of a pen of changing width led along `path` [n, 2]; round ends."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * widths[:, None] / 2
    caps = []
    for end, forward in ((-1, along[-1]), (0, -along[0])):
        left = np.array([-forward[1], forward[0]])
        turns = np.linspace(0.25, 0.75, 3) * math.pi
        caps.append(path[end] + widths[end] / 2
                    * (np.cos(turns)[:, None] * left + np.sin(turns)[:, None] * forward))
    return np.concatenate([path + side, caps[0], (path - side)[::-1], caps[1]])


def _scratch(size: float, rng: np.random.Generator) -> list[Points]:
    """A gently curved stroke, thinner at its ends."""
    width = float(np.clip(1.3 * math.exp(abs(rng.normal(0.0, 0.65))), 1.2, min(8.0, size / 5)))
    t = np.linspace(0.0, 1.0, 25)
    bow = rng.normal(0.0, 0.05) * size
    sway = rng.normal(0.0, 0.015) * size
    path = np.stack([(t - 0.5) * (size - width),
                     bow * 4 * t * (1 - t) + sway * np.sin(2 * math.pi * t)], axis=1)
    taper = np.minimum(1.0, 0.45 + np.minimum(t, 1 - t) * rng.uniform(2.0, 8.0))
    swell = 1.0 + 0.15 * np.sin(2 * math.pi * (t * rng.uniform(0.5, 2.0) + rng.random()))
    return [_stroke(path, np.clip(width * taper * swell, 1.2, 8.0))]


def _ring(size: float, aspect: float, wobble: npt.NDArray[np.float64], rng: np.random.Generator,
          points: int) -> Points:
    """A closed curve: an ellipse whose radius swings by `wobble[k]` with k + 2 waves around."""
    turns = np.arange(points) * (2 * math.pi / points)
    waves = np.arange(wobble.size)[:, None] + 2
    phases = rng.uniform(0.0, 2 * math.pi, (wobble.size, 1))
    radius = np.maximum(1.0 + (wobble[:, None] * np.sin(waves * turns + phases)).sum(axis=0), 0.3)
    ring = np.stack([np.cos(turns) * radius, np.sin(turns) * radius * aspect], axis=1)
    span = ring.max(axis=0) - ring.min(axis=0)
    return np.asarray(ring * (size / float(span.max())), np.float64)


def _dent(size: float, rng: np.random.Generator) -> list[Points]:
    return [_ring(size, rng.uniform(0.6, 1.0), np.zeros(1), rng, 72)]


def _pit(size: float, rng: np.random.Generator) -> list[Points]:
    return [_ring(size, rng.uniform(0.65, 1.0), rng.uniform(0.01, 0.11, 4), rng, 48)]


def _rust(size: float, rng: np.random.Generator) -> list[Points]:
    """A ragged blot, often with smaller ones at its side."""
    count = int(rng.integers(0, 5)) if size > 24 else 0
    main = size * (1.0 if count == 0 else rng.uniform(0.65, 0.85))
    waves = int(np.clip(main / 4, 6, 26))
    rough = rng.uniform(0.1, 0.26) / np.arange(1, waves + 1) ** rng.uniform(0.75, 1.1)
    blots = [_ring(main, rng.uniform(0.5, 0.95), rough * rng.uniform(0.5, 1.5, waves), rng, 160)]
    for _ in range(count):
        small = max(size * rng.uniform(0.05, 0.18), 4.0)
        far = size / 2 - small / 2
        turn = rng.uniform(0.0, 2 * math.pi)
        place = np.array([math.cos(turn), math.sin(turn)]) * far * rng.uniform(0.75, 1.0)
        spot = _ring(small, rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.12, 5), rng, 40)
        blots.append(spot + place)
    return blots


def _stain(size: float, rng: np.random.Generator) -> list[Points]:
    wobble = rng.normal(0.0, 0.13, 5) / np.arange(1, 6)
    return [_ring(size, rng.uniform(0.4, 0.95), wobble, rng, 120)]


def _crack(size: float, rng: np.random.Generator) -> list[Points]:
    """A jagged path and its branches, thickest in the middle of the main one."""
    width = float(np.clip(1.5 * math.exp(abs(rng.normal(0.0, 0.35))), 1.3, min(4.0, size / 12)))
    width = max(width, 1.3)
    main = _jagged(size - width, rng)
    t = np.linspace(0.0, 1.0, len(main))
    widths = np.maximum(width * (0.55 + 0.45 * np.sin(math.pi * t)) * rng.uniform(0.8, 1.25, len(main)), 1.2)
    parts = [_stroke(main, widths)]
    for _ in range(int(rng.integers(0, 4)) if size > 40 else 0):
        root = int(rng.integers(1, len(main) - 1))
        length = size * rng.uniform(0.12, 0.35)
        forward = main[min(root + 1, len(main) - 1)] - main[root - 1]
        fork = math.atan2(forward[1], forward[0]) + rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.1)
        path = _jagged(length, rng)
        path = path - path[0]
        turn = np.array([[math.cos(fork), math.sin(fork)], [-math.sin(fork), math.cos(fork)]])
        thin = np.linspace(max(widths[root] * 0.8, 1.2), 1.2, len(path))
        parts.append(_stroke(path @ turn + main[root], thin))
    return parts


def _jagged(length: float, rng: np.random.Generator) -> Points:
    """A path [n, 2] of about `length` along x with kinks every few pixels and a slower wander."""
    step = rng.uniform(4.0, 9.0)
    count = int(max(length / step, 6)) + 1
    step = length / (count - 1)
    x = np.linspace(-length / 2, length / 2, count)
    x[1:-1] += rng.uniform(-0.3, 0.3, count - 2) * step
    wander = np.cumsum(rng.normal(0.0, 0.35, count)) * step
    wander -= np.linspace(wander[0], wander[-1], count)
    # Up and down by turns: without its kinks a short crack is a dark scratch.
    side = np.where(np.arange(count) % 2 == 0, 1.0, -1.0) * np.where(rng.random(count) < 0.2, -1.0, 1.0)
    kinks = side * rng.uniform(0.15, 0.42, count) * max(step, 4.0)
    return np.stack([x, wander * 0.8 + kinks], axis=1)
