"""Pictures made worse on purpose, in the order in which a camera makes them so.

Light on the part, blur of lens and motion, glare from a gloss, shot and read noise of the sensor, and last
the clipping to 8 bits. Each picture draws its own place and direction from a generator that the caller seeds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

ELECTRONS_A_LEVEL = 40.0
"""A machine-vision sensor of 10,000 electrons full well behind 8 bits (Sony IMX pixels of 3.4 um); noise at
mid grey is then 1.8 grey levels."""

READ_ELECTRONS = 3.0
"""Read noise of such a sensor, electrons."""

GLARE_LEVELS = 600.0
"""What the middle of a gloss adds: far beyond white, as a lamp seen in a mirror is."""


@dataclass(frozen=True)
class Disturbance:
    """What is done to one picture; the defaults do nothing.

    light: factor on the light of the part; blur_px: sigma of a Gaussian; motion_px: length of a straight
    motion during the exposure; glare_share: area that a gloss makes white; noise: grey levels at mid grey,
    half of its variance shot noise, half read noise (a high gain).
    """

    light: float = 1.0
    blur_px: float = 0.0
    motion_px: float = 0.0
    glare_share: float = 0.0
    noise: float = 0.0


KINDS: dict[str, tuple[str, tuple[float, ...]]] = {
    # kind -> the field that it changes, and its strengths, from the weakest
    "low_light": ("light", (0.8, 0.65, 0.5, 0.4, 0.3, 0.2)),
    "bright_light": ("light", (1.1, 1.2, 1.35, 1.5, 1.75, 2.0)),
    "blur": ("blur_px", (0.7, 1.0, 1.5, 2.0, 2.5, 3.0)),
    "motion": ("motion_px", (2.0, 3.0, 5.0, 7.0, 9.0, 12.0)),
    "glare": ("glare_share", (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)),
    "noise": ("noise", (3.0, 6.0, 9.0, 12.0, 18.0, 25.0)),
}


def disturbance_of(kind: str, strength: float) -> Disturbance:
    """One of KINDS at a strength in its own unit; KeyError for another kind."""
    return Disturbance(**{KINDS[kind][0]: strength})


def disturbed(picture: ByteArray, how: Disturbance, rng: np.random.Generator) -> ByteArray:
    """A picture uint8 [H, W] or [H, W, 3] BGR made worse; the same picture when nothing is asked for."""
    if how == Disturbance():
        return picture
    levels = picture.astype(np.float32) * np.float32(how.light)
    if how.blur_px > 0:
        levels = np.asarray(cv2.GaussianBlur(levels, (0, 0), how.blur_px), np.float32)
    if how.motion_px > 0:
        kernel = motion_kernel(how.motion_px, float(rng.uniform(0.0, math.pi)))
        levels = np.asarray(cv2.filter2D(levels, cv2.CV_32F, kernel), np.float32)
    if how.glare_share > 0:
        gloss = glare(picture.shape[0], picture.shape[1], how.glare_share, rng)
        levels += gloss if levels.ndim == 2 else gloss[:, :, None]
    levels = np.minimum(levels, np.float32(255.0))  # a pixel that is full has no noise
    levels += _noise(levels, how, rng)
    return np.asarray(np.clip(np.round(levels), 0, 255), np.uint8)


def motion_kernel(length_px: float, angle: float) -> FloatArray:
    """[n, n] float32 of sum 1: a straight line through the middle, drawn eight times finer; radians."""
    fine = 8
    side = 2 * math.ceil(length_px / 2.0) + 1
    line = np.zeros((side * fine, side * fine), np.float32)
    middle = (side * fine - 1) / 2.0
    for step in np.linspace(-0.5, 0.5, 4 * fine * side):
        x = middle + step * length_px * fine * math.cos(angle)
        y = middle + step * length_px * fine * math.sin(angle)
        line[round(y), round(x)] += 1.0
    kernel = line.reshape(side, fine, side, fine).sum(axis=(1, 3))
    return np.asarray(kernel / kernel.sum(), np.float32)


def glare(height: int, width: int, share: float, rng: np.random.Generator) -> FloatArray:
    """[height, width] grey levels that one elongated gloss adds; about `share` of the area becomes white."""
    place_x, place_y = rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.9) * height
    aspect, angle = float(rng.uniform(1.0, 3.0)), float(rng.uniform(0.0, math.pi))
    # Half way from mid grey to white where exp(-d^4) is a fifth, that is at 1.13 radii.
    radius = math.sqrt(share * height * width / math.pi) / 1.13
    x = np.arange(width, dtype=np.float32)[None, :] - np.float32(place_x)
    y = np.arange(height, dtype=np.float32)[:, None] - np.float32(place_y)
    cos, sin = math.cos(angle), math.sin(angle)
    along = (x * cos + y * sin) / (radius * math.sqrt(aspect))
    across = (y * cos - x * sin) / (radius / math.sqrt(aspect))
    return np.asarray(GLARE_LEVELS * np.exp(-np.square(along * along + across * across)), np.float32)


def _noise(levels: FloatArray, how: Disturbance, rng: np.random.Generator) -> FloatArray:
    """Noise of the sensor in grey levels, for the light that reached it."""
    if how.noise > 0:  # half shot, half read at mid grey
        variance = 0.5 * how.noise**2 * (1.0 + np.maximum(levels, 0.0) / 128.0)
    elif how.light < 1.0:  # what the picture had of its own noise went down with the light
        variance = (1.0 - how.light) * np.maximum(levels, 0.0) / ELECTRONS_A_LEVEL
        variance += (1.0 - how.light**2) * (READ_ELECTRONS / ELECTRONS_A_LEVEL) ** 2
    else:
        return np.zeros_like(levels)
    full = levels >= 255.0
    sigma = np.where(full, np.float32(0.0), np.sqrt(variance)).astype(np.float32)
    return np.asarray(sigma * rng.standard_normal(levels.shape, dtype=np.float32), np.float32)
