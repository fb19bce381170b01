"""A template as another capture would show it: moved, bent, blurred, under other light, with noise.

The limits below are what a fixture and a lamp leave, stated once and tuned on nothing. A binarised scan is
thresholded again at the end, so that edges move by what light, blur and noise did to them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..warp import bend_field, is_binarised

Picture = npt.NDArray[np.uint8]

# What is drawn, uniformly, a picture; lengths in px, the rest in grey levels of 0..255.
MOST_SHIFT_PX = 4.0
MOST_BEND_PX = 1.5
BLUR_SIGMA_PX = (0.3, 1.0)
GAIN = (0.85, 1.15)
MOST_OFFSET = 10.0
MOST_GRADIENT = 15.0  # from one side of the picture to the other
MOST_NOISE_SIGMA = 6.0
THRESHOLD = (100.0, 156.0)

# Cut off all around, from template and copy alike: what a moved part shows at its edge must be board, not a
# repeated edge, because a detector may take what the template does not show for a defect.
EDGE_PX = 8

NEUTRAL: dict[str, dict[str, Any]] = {
    "shift": {"shift_xy": (0.0, 0.0)},
    "bend": {"bend_px": 0.0},
    "blur": {"blur_sigma_px": 0.0},
    "light": {"gain": 1.0, "offset": 0.0, "gradient_xy": (0.0, 0.0)},
    "noise": {"noise_sigma": 0.0},
    "threshold": {"threshold": 128.0},
}
"""What each disturbance is when it does nothing."""


@dataclass(frozen=True)
class Recapture:
    """One capture's disturbances; `seed` draws the bend's shape and the noise. `threshold`: scans only."""

    shift_xy: tuple[float, float]
    bend_px: float
    blur_sigma_px: float
    gain: float
    offset: float
    gradient_xy: tuple[float, float]
    noise_sigma: float
    threshold: float
    seed: tuple[int, ...]

    def without(self, disturbance: str) -> Recapture:
        """The same capture with one disturbance less; the others are drawn alike."""
        return replace(self, **NEUTRAL[disturbance])


def draw_recapture(*seed: int) -> Recapture:
    """The capture that belongs to these whole numbers (0 and up)."""
    rng = np.random.default_rng([*seed, 1])
    x, y = rng.uniform(-MOST_SHIFT_PX, MOST_SHIFT_PX, 2)
    angle, strength = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.0, MOST_GRADIENT)
    return Recapture(
        shift_xy=(float(x), float(y)),
        bend_px=float(rng.uniform(0.0, MOST_BEND_PX)),
        blur_sigma_px=float(rng.uniform(*BLUR_SIGMA_PX)),
        gain=float(rng.uniform(*GAIN)),
        offset=float(rng.uniform(-MOST_OFFSET, MOST_OFFSET)),
        gradient_xy=(float(strength * np.cos(angle)), float(strength * np.sin(angle))),
        noise_sigma=float(rng.uniform(0.0, MOST_NOISE_SIGMA)),
        threshold=float(rng.uniform(*THRESHOLD)),
        seed=seed,
    )


def captured_pair(template: Picture, capture: Recapture) -> tuple[Picture, Picture]:
    """(template, its copy), both less EDGE_PX on every side. ValueError when nothing is left."""
    if min(template.shape[:2]) <= 2 * EDGE_PX:
        raise ValueError(f"a template of {template.shape[1]}x{template.shape[0]} px is too small: "
                         f"{EDGE_PX} px are cut off on every side")
    inner = np.s_[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]
    copy = recaptured(template, capture)
    return np.ascontiguousarray(template[inner]), np.ascontiguousarray(copy[inner])


def recaptured(template: Picture, capture: Recapture) -> Picture:
    """`template` (uint8 [H, W] or [H, W, 3]) as `capture` shows it; the edge is repeated outside."""
    height, width = template.shape[:2]
    bend_rng, noise_rng = (np.random.default_rng([*capture.seed, stream]) for stream in (2, 3))
    bend = bend_field(height, width, bend_rng, capture.bend_px)  # [2, H, W] float32
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    map_x = columns + bend[0] - np.float32(capture.shift_xy[0])
    map_y = rows + bend[1] - np.float32(capture.shift_xy[1])
    seen = cv2.remap(template.astype(np.float32), map_x, map_y, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)
    if capture.blur_sigma_px > 0:
        seen = cv2.GaussianBlur(seen, (0, 0), capture.blur_sigma_px)
    slope = capture.gradient_xy[0] * (columns / width - 0.5) + capture.gradient_xy[1] * (rows / height - 0.5)
    light = slope + np.float32(capture.offset)
    noise = noise_rng.normal(0.0, 1.0, template.shape).astype(np.float32) * np.float32(capture.noise_sigma)
    seen = np.float32(capture.gain) * seen + (light if seen.ndim == 2 else light[:, :, None]) + noise
    if is_binarised(template):
        return np.where(seen > capture.threshold, np.uint8(255), np.uint8(0)).astype(np.uint8)
    return np.asarray(np.clip(np.rint(seen), 0, 255), np.uint8)
