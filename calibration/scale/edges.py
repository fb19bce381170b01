"""Where an edge lies, to a few hundredths of a pixel: a blurred step fitted to the pixels beside it.

The step is level + contrast x Phi((t - position) / blur), t the distance across the edge: the pixels are used
as they are, nothing is resampled. The blur found is the optics' and the pixel's own together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...runtime.judge.scale import Floats

LEAST_CONTRAST = 12.0  # grey levels: below it noise and shading look like edges
LEAST_PIXELS = 12
_ROUNDS = 12
_TONE = 0.05
"""Blur widths: how far a tone curve of gamma 0.9 to 1.1 moves the middle of a step of usual contrast."""
_TONE_CUT = 0.3
"""Blur widths: the same where one side is cut at grey level 255 (or 0) and its true level is unknown."""
_MODEL_PX = 0.004
"""Largest mean error of rendered discs of 10 to 200 px radius at 0.5 to 3 px blur (docs/scale.md)."""


@dataclass(frozen=True)
class Step:
    """One fitted edge: position along t in px, blur (standard deviation, px), contrast and noise in grey
    levels; `is_cut`: one side is saturated."""

    position: float
    blur: float
    contrast: float
    noise: float
    is_cut: bool


def fitted_step(across: Floats, grey: Floats, blur: float) -> Step | None:
    """The step in [n] pixels at distances `across` (px) with grey levels `grey`; None when there is none.

    Starts at position 0 with the given blur; a position that leaves the pixels is no step.
    """
    if len(grey) < LEAST_PIXELS:
        return None
    low, high = float(across.min()), float(across.max())
    position, width = 0.0, blur
    for _ in range(_ROUNDS):
        u = (across - position) / width
        rise = _rise(u)
        slope = np.exp(-0.5 * u * u) / (np.sqrt(2 * np.pi) * width)
        level, contrast = _line(rise, grey)
        if abs(contrast) < LEAST_CONTRAST:
            return None
        design = np.stack([np.ones_like(rise), rise, -contrast * slope, -contrast * slope * u], axis=1)
        change = _solved(design, grey - level - contrast * rise)
        if change is None:
            return None
        position += float(np.clip(change[2], -width, width))
        width = float(np.clip(width + change[3], 0.6 * width, 1.6 * width))
        if not low < position < high or not 0.15 < width < high - low:
            return None
        if abs(change[2]) < 1e-4 and abs(change[3]) < 1e-3:
            break
    level, contrast = _line(_rise((across - position) / width), grey)
    left = grey - level - contrast * _rise((across - position) / width)
    levels = np.sort([level, level + contrast])
    is_cut = bool(levels[1] > 253.5 or levels[0] < 1.5)
    noise = float(np.sqrt(np.sum(left * left) / max(len(grey) - 4, 1)))
    return Step(position, width, contrast, noise, is_cut)


def agreeing(steps: list[Step | None]) -> npt.NDArray[np.bool_]:
    """Which of the steps along one edge look like most of them: side, contrast, blur and noise.

    A glint, a shadow or dirt on the edge changes at least one of these.
    """
    found = [step for step in steps if step is not None]
    if not found:
        return np.zeros(len(steps), bool)
    contrast, blur, noise = (
        float(np.median([getattr(step, name) for step in found])) for name in ("contrast", "blur", "noise")
    )
    return np.array(
        [
            step is not None
            and 0.5 < step.contrast / contrast < 2.0
            and 0.6 < step.blur / blur < 1.7
            and step.noise < 2.5 * noise + 1.0
            for step in steps
        ]
    )


def tone_uncertainty(steps: Iterable[Step]) -> float:
    """Standard uncertainty in px of an edge's position, alike along the edge: an unknown tone curve
    (rectangular), and what the model of the step leaves out."""
    found = list(steps)
    blur = float(np.median([step.blur for step in found]))
    is_cut = sum(step.is_cut for step in found) * 2 > len(found)
    return float(np.hypot((_TONE_CUT if is_cut else _TONE) * blur / np.sqrt(3), _MODEL_PX))


def _line(rise: Floats, grey: Floats) -> tuple[float, float]:
    """Level and contrast of the straight line grey = level + contrast * rise."""
    middle, mean = float(rise.mean()), float(grey.mean())
    spread = rise - middle
    contrast = float(spread @ (grey - mean)) / max(float(spread @ spread), 1e-9)
    return mean - contrast * middle, contrast


def _solved(design: Floats, left: Floats) -> Floats | None:
    """Least squares by the normal equations; None where they are singular."""
    try:
        return np.asarray(np.linalg.solve(design.T @ design, design.T @ left), np.float64)
    except np.linalg.LinAlgError:
        return None


def _rise(u: Floats) -> Floats:
    """Phi(u), the normal distribution function, by Abramowitz and Stegun 7.1.26 (error below 1e-7)."""
    z = np.abs(u) / np.sqrt(2)
    t = 1 / (1 + 0.3275911 * z)
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    tail = 0.5 * series * np.exp(-z * z)
    return np.asarray(np.where(u > 0, 1 - tail, tail), np.float64)
