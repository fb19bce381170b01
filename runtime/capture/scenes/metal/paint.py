"""How each type of defect changes the surface under it: colour, shade, lips and rims."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .outlines import Outline, Window
from .surfaces import Surface, clouds

Field = npt.NDArray[np.float32]

SOFT_PX = 16
"""How far outside its outline a defect may change the surface: lips, rims and soft edges."""

_RUST_DARK, _RUST_LIGHT = np.array([0.05, 0.11, 0.23], np.float32), np.array([0.10, 0.28, 0.57], np.float32)
# What a stain takes from blue, green and red, relative to its depth: grey twice, blue, violet, green, teal.
_STAINS = ((1.0, 1.0, 1.0), (1.05, 1.0, 0.95), (0.55, 0.9, 1.2), (0.75, 1.2, 0.95), (1.1, 0.75, 1.15),
           (0.7, 0.8, 1.3))


@dataclass(frozen=True)
class Mark:
    """A defect in its place: `cover` [h, w] is the outline's coverage of the pixels of `window`."""

    kind: str
    outline: Outline
    window: Window
    cover: Field
    surface: Surface
    seed: int  # of everything that is drawn at random inside

    @classmethod
    def of(cls, kind: str, outline: Outline, size_px: int, surface: Surface, seed: int) -> Mark:
        """The mark of `outline` in a picture of `size_px`, its window wide enough for its soft edges."""
        left, top, right, bottom = outline.bounds()
        window = (max(math.floor(left) - SOFT_PX, 0), max(math.floor(top) - SOFT_PX, 0),
                  min(math.ceil(right) + SOFT_PX, size_px), min(math.ceil(bottom) + SOFT_PX, size_px))
        return cls(kind, outline, window, outline.coverage(window), surface, seed)

    def painted(self, patch: Field, strength: float) -> Field:
        """`patch` [h, w, 3] BGR reflectance of the window with the defect; more `strength`, more contrast."""
        paint = {"scratch": _scratch, "dent": _dent, "pit": _pit, "rust": _rust, "stain": _stain,
                 "crack": _crack}[self.kind]
        return np.asarray(np.maximum(paint(self, patch, strength, np.random.default_rng(self.seed)), 0.0),
                          np.float32)

    def _places(self) -> tuple[Field, Field]:
        """x and y [h, w] of the pixels from the middle of the outline, in units of its half axes."""
        ring = self.outline.polygons[0]
        centre = ring.mean(axis=0)
        into = np.linalg.cholesky(np.linalg.inv(2.0 * np.cov((ring - centre).T))).T
        x = np.arange(self.window[0], self.window[2], dtype=np.float32) + np.float32(0.5 - centre[0])
        y = np.arange(self.window[1], self.window[3], dtype=np.float32) + np.float32(0.5 - centre[1])
        into = into.astype(np.float32)
        return (np.asarray(into[0, 0] * x[None, :] + into[0, 1] * y[:, None], np.float32),
                np.asarray(into[1, 0] * x[None, :] + into[1, 1] * y[:, None], np.float32))


def _shifted(cover: Field, x: float, y: float) -> Field:
    into = np.array([[1.0, 0.0, x], [0.0, 1.0, y]])
    return np.asarray(cv2.warpAffine(cover, into, (cover.shape[1], cover.shape[0])), np.float32)


def _lip(cover: Field, far_px: float, rng: np.random.Generator) -> Field:
    """The edge of a cut that catches the light: a line along one side of `cover`, 0..1."""
    turn = rng.uniform(0.0, 2 * math.pi)
    moved = _shifted(cover, far_px * math.cos(turn), far_px * math.sin(turn))
    return np.asarray(np.maximum(moved - cover, 0.0), np.float32)


def _uneven(cover: Field, rng: np.random.Generator, cell_px: float, least: float) -> Field:
    """`cover` that lets the surface through in places, nowhere below `least` of itself."""
    waves = clouds(rng, (cover.shape[0], cover.shape[1]), cell_px)
    return np.asarray(cover * np.clip(0.9 + 0.16 * waves, least, 1.0), np.float32)


def _scratch(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """A cut that is bright bare metal, or dark; its lip shows the other way."""
    alpha = _uneven(mark.cover, rng, 12.0, 0.55) * np.float32(min(strength, 1.0))
    around = patch.reshape(-1, 3).mean(axis=0)
    bright = rng.random() < (0.6 if float(around.mean()) < 0.62 else 0.15)
    if bright:
        bare = rng.uniform(0.75, 1.05) * np.array([1.0, 1.0, 0.99], np.float32)
        # Bare metal under paint, a fresh cut of the same metal elsewhere.
        target = bare if mark.surface == "painted" else around * np.float32(rng.uniform(1.5, 1.9)) + 0.08
    else:
        target = around * np.float32(rng.uniform(0.2, 0.45))
    cut = patch + alpha[..., None] * (target.astype(np.float32) - patch)
    lip = _lip(mark.cover, 1.3, rng) * np.float32(rng.uniform(0.1, 0.4) * min(strength, 1.0))
    return np.asarray(cut * (1.0 + (-lip if bright else lip))[..., None], np.float32)


def _crack(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """A dark gap; only its lip may be a little brighter than the surface."""
    alpha = _uneven(mark.cover, rng, 9.0, 0.7) * np.float32(min(strength, 1.0))
    cut = patch * (1.0 - alpha * np.float32(1.0 - rng.uniform(0.04, 0.25)))[..., None]
    lip = _lip(mark.cover, 1.1, rng) * np.float32(rng.uniform(0.0, 0.18))
    return np.asarray(cut * (1.0 + lip)[..., None], np.float32)


def _dent(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """The shade of a bowl lit from one side: light on one flank, dark on the other, the same pigment."""
    x, y = mark._places()
    x, y = x * np.float32(0.92), y * np.float32(0.92)
    turn = rng.uniform(0.0, 2 * math.pi)
    inside = np.maximum(1.0 - (x * x + y * y), 0.0)
    slope = 2.6 * inside * (x * np.float32(math.cos(turn)) + y * np.float32(math.sin(turn)))
    if rng.random() < 0.3:  # a steeper wall
        slope = slope * (1.5 - inside)
    depth = min(0.42 * strength, 0.62)
    shade = 1.0 + np.float32(depth) * slope - np.float32(depth * rng.uniform(0.0, 0.2)) * inside * inside
    return np.asarray(patch * np.maximum(shade, 0.12)[..., None], np.float32)


def _pit(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """A dark hole, its far wall a little lighter, with a rim that catches the light."""
    x, y = mark._places()
    turn = rng.uniform(0.0, 2 * math.pi)
    facing = np.clip(x * np.float32(math.cos(turn)) + y * np.float32(math.sin(turn)), -1.3, 1.3)
    floor = rng.uniform(0.1, 0.3) + rng.uniform(0.05, 0.22) * np.maximum(facing, 0.0)
    alpha = mark.cover * np.float32(min(strength, 1.0))
    hole = patch * (1.0 - alpha * (1.0 - floor).astype(np.float32))[..., None]
    soft = float(np.clip(0.05 * mark.outline.sides_px()[0], 0.8, 1.7))
    rim = cv2.GaussianBlur(mark.cover, (0, 0), soft) * (1.0 - mark.cover)
    lit = np.clip(0.5 + 0.7 * facing, 0.0, 1.2) * np.float32(rng.uniform(0.6, 1.8) * min(strength, 1.0))
    return np.asarray(hole * (1.0 + rim * lit)[..., None], np.float32)


def _rust(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """Grains from dark brown to orange, thinner in places, with a faint bloom around."""
    shape = (patch.shape[0], patch.shape[1])
    size = mark.outline.sides_px()[0]
    grain = 0.6 * clouds(rng, shape, 1.0) + 0.7 * clouds(rng, shape, 2.6)
    areas = clouds(rng, shape, max(size / 4, 5.0))
    mix = 1.0 / (1.0 + np.exp(-(0.9 * areas + 0.8 * grain + rng.normal(0.0, 0.6))))
    rust = _RUST_DARK + mix[..., None].astype(np.float32) * (_RUST_LIGHT - _RUST_DARK)
    # No brighter than the metal it was: on a dark part that the camera exposes for, orange would glow.
    dull = np.float32(np.clip(float(patch.mean()) / 0.5, 0.6, 1.1))
    rust = rust * (dull * (1.0 + 0.14 * grain))[..., None].astype(np.float32)
    thick = np.clip(0.86 + 0.16 * grain + 0.1 * areas, 0.5, 1.0)
    alpha = mark.cover * thick * np.float32(min(0.55 + 0.5 * strength, 1.0))
    bloom = cv2.GaussianBlur(mark.cover, (0, 0), 3.0) * (1.0 - mark.cover)
    bloom = bloom * np.float32(rng.uniform(0.0, 0.35)) * np.clip(0.8 + 0.4 * grain, 0.2, 1.3)
    stained = patch * (1.0 - bloom[..., None] * np.array([0.7, 0.45, 0.1], np.float32))
    return np.asarray(stained + alpha[..., None] * (rust - stained), np.float32)


def _stain(mark: Mark, patch: Field, strength: float, rng: np.random.Generator) -> Field:
    """A film with soft edges that darkens and tints; the surface shows through."""
    soft_px = float(np.clip(rng.uniform(0.02, 0.07) * mark.outline.sides_px()[0], 1.2, 4.6))
    film = cv2.GaussianBlur(mark.cover, (0, 0), soft_px)
    edge = 4.0 * film * (1.0 - film) * np.float32(rng.uniform(0.1, 0.45) if rng.random() < 0.35 else 0.0)
    shape = (patch.shape[0], patch.shape[1])
    waves = clouds(rng, shape, max(mark.outline.sides_px()[0] / 3, 8.0))
    tint = np.float32(rng.uniform(0.15, 0.75))
    takes = 1.0 + tint * (np.array(_STAINS[int(rng.integers(len(_STAINS)))], np.float32) - 1.0)
    depth = np.float32(min(rng.uniform(0.3, 0.55) * strength, 0.68))
    amount = depth * np.clip(film * (1.0 + 0.1 * waves) + edge, 0.0, 1.1)
    return np.asarray(patch * (1.0 - amount[..., None] * takes), np.float32)
