"""How a camera sees a surface: lamp, vignette, white balance, focus and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .outlines import Window
from .surfaces import Surface

Field = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """One exposure of a picture of `light.shape[:2]` pixels."""

    light: Field  # [H, W, 3] levels BGR for a reflectance of 1
    blur_px: float  # sigma
    noise: Field  # [H, W, 3] levels added
    noise_sigma: float

    def lit(self, reflectance: Field, window: Window) -> Field:
        """Levels before blur and noise of a part of the surface, float32 [h, w, 3] BGR; not clipped."""
        x1, y1, x2, y2 = window
        return np.asarray(reflectance * self.light[y1:y2, x1:x2], np.float32)

    def blurred(self, levels: Field) -> Field:
        """`levels` [h, w, 3] out of focus."""
        return np.asarray(cv2.GaussianBlur(levels, (0, 0), self.blur_px), np.float32)

    def picture(self, reflectance: Field) -> npt.NDArray[np.uint8]:
        """The camera's picture uint8 [H, W, 3] BGR of the whole surface."""
        height, width, _ = self.light.shape
        levels = self.blurred(self.lit(reflectance, (0, 0, width, height)))
        levels += self.noise
        np.rint(levels, out=levels)
        return np.asarray(np.clip(levels, 0, 255, out=levels), np.float32).astype(np.uint8)


def random_look(surface: Surface, reflectance: Field, rng: np.random.Generator) -> Look:
    """An exposure that suits the sound surface [size, size, 3]."""
    size_px = reflectance.shape[0]
    mean = float(reflectance.mean())
    # A painted part keeps its own lightness; bare metal is exposed for.
    level = 235.0 * rng.uniform(0.6, 1.0) if surface == "painted" else rng.uniform(80.0, 170.0) / mean
    axis = np.linspace(-1.0, 1.0, size_px, dtype=np.float32)
    way, slope = rng.uniform(0.0, 2 * math.pi), rng.uniform(0.0, 0.22)
    light = 1.0 + np.float32(slope * math.cos(way)) * axis[None, :] + np.float32(
        slope * math.sin(way)) * axis[:, None]
    light = light * (1.0 - np.float32(rng.uniform(0.0, 0.13)) * (axis[None, :] ** 2 + axis[:, None] ** 2))
    if rng.random() < 0.5:  # a lamp that stands near: a broad pool of light
        x, y = rng.uniform(-1.0, 1.0, 2)
        wide = rng.uniform(0.5, 1.2)
        pool = np.exp(-(axis[None, :] - np.float32(x)) ** 2 / np.float32(wide)) * np.exp(
            -(axis[:, None] - np.float32(y)) ** 2 / np.float32(wide))
        light = light * (1.0 + np.float32(rng.uniform(0.05, 0.35)) * pool)
    warm, tint = rng.normal(0.0, 0.035), rng.normal(0.0, 0.012)
    balance = np.array([1.0 - warm, 1.0 + tint, 1.0 + warm], np.float32)
    sigma = float(rng.uniform(1.0, 4.0))
    # Most noise is common to the three colours, as after demosaicking; a channel deviates by sigma.
    common = np.full((3, 3), 0.3033, np.float32) + np.eye(3, dtype=np.float32) * np.float32(0.6)
    grain = rng.standard_normal(reflectance.shape, dtype=np.float32)
    noise = cv2.transform(grain, common * np.float32(sigma))
    lamp = np.asarray(light, np.float32)[..., None] * (balance * np.float32(level))
    return Look(np.asarray(lamp, np.float32), float(rng.uniform(0.5, 1.1)), np.asarray(noise, np.float32),
                sigma)
