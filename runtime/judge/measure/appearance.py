"""Colour, contrast, texture and edge sharpness of a segmented defect."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from .colour import ciede2000, lab_from_rgb
from .measurement import Measure
from .segment import depth_of
from .signal import Signal
from .sizes import Sizes
from .window import Field, Mask, Window

_RISE = 2.5631  # sigmas between 10 % and 90 % of a Gaussian edge


def appearance_of_mask(mask: Mask, signal: Signal, sizes: Sizes, window: Window) -> dict[str, Measure]:
    """The measures colour_rgb, colour_lab, delta_e, contrast, texture and edge_sharpness.

    Colours are means over the defect's core, a pixel and more inside its outline, against the surroundings
    carried on under the very same pixels.
    """
    core = _core(mask)
    here, there = window.pixels[core], signal.background[core]
    colour, around = _rgb(here.mean(axis=0)), _rgb(there.mean(axis=0))
    u_grey = math.hypot(signal.raw_noise / math.sqrt(max(len(here), 1)), 12**-0.5)
    lab, lab_around = lab_from_rgb(colour), lab_from_rgb(around)
    moved = lab_from_rgb(colour + u_grey)
    u_lab = max(abs(a - b) for a, b in zip(lab, moved, strict=True))
    grey, grey_around = float(here.mean()), float(there.mean())
    total = max(grey + grey_around, 1.0)
    texture, u_texture = _texture(here, there, signal, window)
    blur = sizes.edge.optics_px * window.step
    return {
        "colour_rgb": Measure(tuple(round(float(value), 2) for value in colour), "1", 2 * u_grey),
        "colour_lab": Measure(tuple(round(value, 3) for value in lab), "1", 2 * u_lab),
        "delta_e": Measure(ciede2000(lab, lab_around), "1", 2 * u_lab * math.sqrt(2)),
        "contrast": Measure((grey - grey_around) / total, "1", 4 * u_grey / total),
        "texture": Measure(texture, "1", u_texture),
        "edge_sharpness": Measure(
            _RISE * blur, "px", 2 * _RISE * sizes.edge.blur_uncertainty_px * window.step
        ),
    }


def _core(mask: Mask) -> Mask:
    """The inner pixels of the defect: eroded by one where something is left, else its ridge, else all."""
    depth = depth_of(mask)
    deepest = float(depth.max())
    return mask & (depth >= min(2.0 if deepest >= 2.0 else deepest, deepest))


def _rgb(channels: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """A mean colour as R, G, B; grey is repeated."""
    values = np.asarray(channels, np.float64)[::-1]
    return np.repeat(values, 3) if values.size == 1 else values[-3:]


def _texture(here: Field, there: Field, signal: Signal, window: Window) -> tuple[float, float]:
    """Standard deviation of the grey in the core, sensor noise taken off in quadrature; grey levels."""
    grey = here.mean(axis=1) - there.mean(axis=1)
    if grey.size < 8:
        return 0.0, 2 * signal.raw_noise
    seen = float(grey.std())
    noise = min(signal.raw_noise, seen)
    return math.sqrt(max(seen**2 - noise**2, 0.0)), 2 * seen / math.sqrt(grey.size)
