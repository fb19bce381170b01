"""What a sound surface reflects: turned, brushed, cast or painted; float32 [H, W, 3] BGR, about 0..1."""

from __future__ import annotations

import math
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

Surface = Literal["turned", "brushed", "cast", "painted"]
"""How the part was made; it decides the texture and the colours."""

SURFACES: tuple[Surface, ...] = ("turned", "brushed", "cast", "painted")

# Reflectance, red green blue: steel, stainless, aluminium, titanium, browned steel, brass.
_METALS = ((0.56, 0.57, 0.59), (0.55, 0.55, 0.54), (0.64, 0.64, 0.63), (0.51, 0.49, 0.47),
           (0.30, 0.30, 0.32), (0.68, 0.58, 0.36))
_METAL_SHARES = (0.32, 0.22, 0.22, 0.1, 0.06, 0.08)


def reflectance(surface: Surface, size_px: int, rng: np.random.Generator) -> Field:
    """A sound surface, float32 [size_px, size_px, 3] BGR; drawn from `rng`."""
    if surface == "painted":
        return _painted(size_px, rng)
    metal = np.array(_METALS[int(rng.choice(len(_METALS), p=_METAL_SHARES))][::-1], np.float32)
    metal *= rng.uniform(0.97, 1.03, 3).astype(np.float32)
    if surface == "turned":
        tone = _turned(size_px, rng)
    elif surface == "brushed":
        tone = _brushed(size_px, rng)
    else:
        tone = _cast(size_px, rng)
        metal = metal.mean() + np.float32(0.4) * (metal - metal.mean())  # the skin of a casting is dull
        metal *= np.float32(rng.uniform(0.55, 0.95))
    return np.asarray(np.maximum(tone, 0.08)[..., None] * metal, np.float32)


def clouds(rng: np.random.Generator, shape: tuple[int, int], cell_px: float) -> Field:
    """Smooth random waves, float32 `shape`, standard deviation about 1, features of about `cell_px`."""
    rows, columns = (max(math.ceil(side / cell_px) + 1, 2) for side in shape)
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    if cell_px <= 1.0:
        return coarse[:shape[0], :shape[1]]
    fine = cv2.resize(coarse, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine * np.float32(1.25), np.float32)


def relief(rng: np.random.Generator, size_px: int, octaves: tuple[tuple[float, float], ...]) -> Field:
    """Light and shade of a rough skin lit from one side; `octaves` are (feature size px, share)."""
    light = rng.uniform(0.0, 2 * math.pi)
    shade: Field = np.zeros((size_px, size_px), np.float32)
    for cell, share in octaves:
        if cell < 6.0:  # the grid of `clouds` would show
            sigma = 0.42 * cell
            height = rng.standard_normal((size_px + 2, size_px + 2), dtype=np.float32)
            height = np.asarray(cv2.GaussianBlur(height, (0, 0), sigma), np.float32)
            height *= np.float32(3.5 * sigma)  # back to a deviation of about 1
        else:
            height = clouds(rng, (size_px + 2, size_px + 2), cell)
        along_x = height[1:-1, 2:] - height[1:-1, :-2]
        along_y = height[2:, 1:-1] - height[:-2, 1:-1]
        slope = along_x * np.float32(math.cos(light)) + along_y * np.float32(math.sin(light))
        shade += slope * np.float32(share * max(cell, 1.0) / 2.0)
    return shade


def _streaks(size_px: int, angle: float, long_px: float, wide_px: float, rng: np.random.Generator) -> Field:
    """Random lines of one direction, about `long_px` x `wide_px` each, float32 [size, size], deviation 1."""
    reach = size_px * 1.45
    coarse = rng.standard_normal((math.ceil(reach / wide_px) + 3, math.ceil(reach / long_px) + 3),
                                 dtype=np.float32)
    cos, sin = math.cos(angle), math.sin(angle)
    half, start = size_px / 2, reach / 2
    into = np.array([[cos / long_px, sin / long_px, (start - half * (cos + sin)) / long_px + 1],
                     [-sin / wide_px, cos / wide_px, (start - half * (cos - sin)) / wide_px + 1]])
    lines = cv2.warpAffine(coarse, into, (size_px, size_px), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                           borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(lines * np.float32(1.4), np.float32)


def _brushed(size_px: int, rng: np.random.Generator) -> Field:
    """Fine lines of one direction, a few of them deep, and bands where the tool pressed harder."""
    angle = rng.uniform(0.0, math.pi) if rng.random() < 0.5 else rng.choice([0.0, math.pi / 2])
    angle += rng.normal(0.0, 0.02)
    depth = rng.uniform(0.03, 0.085)
    tone: Field = np.ones((size_px, size_px), np.float32)
    for long_px, wide_px, share in (
        (rng.uniform(60, 200), rng.uniform(1.0, 1.6), depth * 0.7),
        (rng.uniform(25, 60), rng.uniform(1.0, 1.3), depth * 0.5),
        (size_px * 2.0, rng.uniform(2.0, 5.0), depth * 0.4),
        (size_px * 3.0, size_px / 10, rng.uniform(0.0, 0.06)),
    ):
        tone += _streaks(size_px, angle, long_px, wide_px, rng) * np.float32(share)
    return tone


def _turned(size_px: int, rng: np.random.Generator) -> Field:
    """Grooves around a centre in the picture or far outside it, and the fan of light that they throw."""
    inside = rng.random() < 0.35
    far = rng.uniform(0.0, 0.35) if inside else rng.uniform(0.9, 3.0)
    way = rng.uniform(0.0, 2 * math.pi)
    centre = size_px * (0.5 + far * math.cos(way)), size_px * (0.5 + far * math.sin(way))
    steps = np.arange(size_px, dtype=np.float32) + np.float32(0.5)
    x = np.broadcast_to(steps[None, :] - np.float32(centre[0]), (size_px, size_px))
    y = np.broadcast_to(steps[:, None] - np.float32(centre[1]), (size_px, size_px))
    radius, turn = cv2.cartToPolar(np.ascontiguousarray(x), np.ascontiguousarray(y))
    nearest, farthest = float(radius.min()), float(radius.max())
    columns = int(farthest - nearest) + 3
    depth, pitch = rng.uniform(0.03, 0.09), rng.uniform(2.8, 9.0)
    # Feed marks come at one pitch, and every one is cut a little differently.
    r = np.arange(columns, dtype=np.float32)
    feed = np.sin(2 * math.pi * r / pitch + rng.normal(0.0, 0.5) * clouds(rng, (1, columns), 40.0)[0])
    marks = feed * (0.8 + 0.4 * clouds(rng, (1, columns), pitch)[0])
    marks = marks * rng.uniform(0.2, 1.0) + 0.8 * rng.standard_normal(columns) + 0.5 * clouds(
        rng, (1, columns), 12.0)[0]
    cells = max(int(2 * math.pi * (nearest + farthest) / 2 / rng.uniform(50, 220)), 5)
    broken = rng.standard_normal((cells, columns), dtype=np.float32)
    table = np.float32(depth) * (0.8 * marks[None, :].astype(np.float32) + 0.7 * broken)
    table = np.concatenate([table, table[:1]])  # the last angle is the first again
    tone = cv2.remap(table, radius - np.float32(nearest), turn * np.float32(cells / (2 * math.pi)),
                     cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    fan = np.cos(2 * (turn - np.float32(rng.uniform(0.0, math.pi))))
    sharp = np.float32(rng.uniform(1.5, 9.0))
    glint = np.exp((fan - 1) * sharp)
    strong = rng.uniform(0.1, 0.55)
    # Near the centre the fan would be a point of infinite detail: a real tip is a flat spot.
    fade = np.minimum(radius * np.float32(1 / (0.08 * size_px)), np.float32(1.0))
    light = 1.0 + np.float32(strong) * fade * (glint - np.float32(0.3))
    return np.asarray(light * (1.0 + tone * (0.7 + glint * np.float32(0.6))), np.float32)


def _cast(size_px: int, rng: np.random.Generator) -> Field:
    """A rough skin of grains of several sizes, with darker and lighter areas."""
    depth = rng.uniform(0.05, 0.11)
    grain = rng.uniform(2.0, 4.5)
    shade = relief(rng, size_px, ((1.2, 0.55), (grain, 0.75), (grain * 3.2, 0.5)))
    shade *= np.float32(depth / max(float(shade.std()), 1e-6))
    shade += clouds(rng, (size_px, size_px), 45.0) * np.float32(rng.uniform(0.01, 0.04))
    return np.asarray(np.exp(shade), np.float32)


def _painted(size_px: int, rng: np.random.Generator) -> Field:
    """One flat colour with the waves of orange peel, glossy to matt; some with metal flakes."""
    draw = rng.random()
    if draw < 0.25:
        hsv = (0.0, rng.uniform(0.0, 0.06), rng.uniform(0.18, 0.95))
    else:
        hsv = (rng.uniform(0.0, 360.0), rng.uniform(0.3, 0.92), rng.uniform(0.3, 0.95))
    paint = cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2BGR)[0, 0]
    cell = rng.uniform(4.0, 10.0)
    peel = relief(rng, size_px, ((cell, 0.8), (cell * 2.3, 0.6)))
    peel *= np.float32(rng.uniform(0.006, 0.03) / max(float(peel.std()), 1e-6))
    tone = 1.0 + peel + clouds(rng, (size_px, size_px), size_px / 4) * np.float32(rng.uniform(0.0, 0.02))
    if rng.random() < 0.25:
        flakes = rng.standard_normal((size_px, size_px), dtype=np.float32)
        tone += flakes * np.float32(rng.uniform(0.01, 0.04))
    gloss = np.maximum(peel, 0.0) * np.float32(rng.uniform(0.0, 1.2))
    return np.asarray(tone[..., None] * (paint * np.float32(0.85) + np.float32(0.04))
                      + gloss[..., None], np.float32)
