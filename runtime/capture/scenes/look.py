"""How a layout looks in a picture: a thresholded scan or a grey camera picture, and the innocent differences.

Everything here changes edges by about a pixel and grey levels a little; nothing here makes a defect.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]

MARGIN_PX = 16  # a layout is larger than its picture by this on every side: a shifted view has content
MOST_MISREGISTRATION_PX = MARGIN_PX - 4  # the blur needs the rest


@dataclass(frozen=True)
class Misregistration:
    """How the template lies on the part: shift and smooth local warp, together within `bound_px` an axis."""

    shift_xy: tuple[float, float]
    warp_xy: npt.NDArray[np.float32]  # [n, n, 2] coarse grid of displacements in pixels
    bound_px: float


def misregistration(rng: np.random.Generator, bound_px: float) -> Misregistration:
    """A random misregistration; as in real pairs most shifts are within a pixel, many are warped by more."""
    shift_bound = min(1.0, 0.7 * bound_px) if rng.random() < 0.55 else 0.7 * bound_px
    shift = rng.uniform(-shift_bound, shift_bound, 2)
    amplitude = (bound_px - shift_bound) * rng.uniform(0.0, 1.0) if rng.random() < 0.65 else 0.0
    cells = int(rng.integers(2, 8))
    warp = np.asarray(rng.uniform(-amplitude, amplitude, (cells, cells, 2)), np.float32)
    return Misregistration((float(shift[0]), float(shift[1])), warp, bound_px)


def view_of_layout(layout: Grey, size_px: int, misfit: Misregistration | None) -> Grey:
    """The picture's part of a layout [size + 2 margins]^2: cut out, or shifted and warped to subpixels."""
    if misfit is None:
        return np.ascontiguousarray(layout[MARGIN_PX:MARGIN_PX + size_px, MARGIN_PX:MARGIN_PX + size_px])
    # Linear interpolation of the grid stays within its extremes; cubic would overshoot the bound.
    warp = cv2.resize(misfit.warp_xy, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    warp = cv2.blur(warp, (31, 31), borderType=cv2.BORDER_REPLICATE)
    steps = np.arange(size_px, dtype=np.float32) + MARGIN_PX
    map_x = steps[None, :] - np.float32(misfit.shift_xy[0]) - warp[..., 0]
    map_y = steps[:, None] - np.float32(misfit.shift_xy[1]) - warp[..., 1]
    moved = cv2.remap(layout, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, np.uint8)


@dataclass(frozen=True)
class Scan:
    """One pass of the scanner and its threshold; `ripple` [H, W] moves the threshold from pixel to pixel."""

    blur_px: float
    threshold: float
    ripple: Field


def scan(rng: np.random.Generator, size_px: int) -> Scan:
    """A random scan: blur, threshold, slow waves and fine raggedness of the edges."""
    coarse = rng.normal(0.0, rng.uniform(0.0, 0.12), (max(size_px // 24, 2),) * 2).astype(np.float32)
    ripple = cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    fine = 0.12 * rng.uniform(0.0, 1.0) ** 1.7
    ripple = ripple + rng.standard_normal((size_px, size_px), dtype=np.float32) * np.float32(fine)
    # Clipped: in flat copper or background the field is 1 or 0, and no ripple may reach it.
    return Scan(float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.4, 0.6)), np.clip(ripple, -0.34, 0.34))


def copper_seen(view: Grey, seen: Scan) -> npt.NDArray[np.bool_]:
    """Which pixels of a view uint8 [H, W] the scan takes for copper."""
    field = cv2.GaussianBlur(view, (0, 0), seen.blur_px)
    level = (seen.ripple + np.float32(seen.threshold)) * np.float32(255.0)
    return np.asarray(field > level, np.bool_)


def grown_or_shrunk(view: Grey, rng: np.random.Generator) -> Grey:
    """The view as it is (3 of 4), or its copper grown or shrunk by up to a pixel: another exposure."""
    draw = rng.random()
    if draw > 0.25:
        return view
    kernel = np.ones((3, 3), np.uint8) if rng.random() < 0.4 else np.ones((2, 2), np.uint8)
    return np.asarray(cv2.erode(view, kernel) if draw < 0.125 else cv2.dilate(view, kernel), np.uint8)


def add_specks(picture: Grey, rng: np.random.Generator, keep_clear: npt.NDArray[np.bool_]) -> None:
    """Dust: a few marks of 1 to 5 pixels in a picture uint8 [H, W], in place, none where `keep_clear`."""
    if rng.random() < 0.5:
        return
    height, width = picture.shape
    for _ in range(int(rng.poisson(2.5))):
        y, x = int(rng.integers(2, height - 2)), int(rng.integers(2, width - 2))
        if keep_clear[y, x]:
            continue
        value = 255 - int(picture[y, x])
        for _ in range(int(rng.integers(1, 6))):
            picture[y, x] = value
            y = min(max(y + int(rng.integers(-1, 2)), 0), height - 1)
            x = min(max(x + int(rng.integers(-1, 2)), 0), width - 1)


@dataclass(frozen=True)
class Exposure:
    """Light, levels and noise of one grey picture."""

    copper_level: float
    background_level: float
    blur_px: float
    light: Field  # [H, W] factor around 1
    grain: Field  # [H, W] grey levels added


def exposures(rng: np.random.Generator, size_px: int) -> tuple[Exposure, Exposure]:
    """Two exposures (part, template) of one kind of board: same paint, slightly different light and focus."""
    copper_level, background_level = rng.uniform(25, 95), rng.uniform(140, 225)
    both = []
    for _ in range(2):
        gain, lift = rng.uniform(0.88, 1.1), rng.uniform(-8, 8)
        both.append(Exposure(
            copper_level=float(copper_level * gain + lift),
            background_level=float(background_level * gain + lift),
            blur_px=float(rng.uniform(0.7, 1.6)),
            light=_light(rng, size_px),
            grain=_grain(rng, size_px),
        ))
    return both[0], both[1]


def grey_picture(view: Grey, exposure: Exposure) -> Grey:
    """The camera's picture of a view uint8 [H, W]: dark copper on a light board."""
    field = cv2.GaussianBlur(view, (0, 0), exposure.blur_px).astype(np.float32)
    field *= np.float32((exposure.copper_level - exposure.background_level) / 255.0)
    field += np.float32(exposure.background_level)
    field *= exposure.light
    field += exposure.grain
    return np.clip(np.round(field), 0, 255).astype(np.uint8)


def _light(rng: np.random.Generator, size_px: int) -> Field:
    """A gradient in any direction and a vignette; between about 0.75 and 1.15."""
    axis = np.linspace(-1.0, 1.0, size_px, dtype=np.float32)
    slope_x, slope_y = (np.float32(value) for value in rng.uniform(-0.1, 0.1, 2))
    vignette = np.float32(rng.uniform(0.0, 0.08))
    return np.asarray(1.0 + slope_x * axis[None, :] + slope_y * axis[:, None]
                      - vignette * (axis[None, :] ** 2 + axis[:, None] ** 2), np.float32)


def _grain(rng: np.random.Generator, size_px: int) -> Field:
    """Sensor noise and the board's own mottling, in grey levels."""
    coarse = rng.normal(0.0, rng.uniform(0.0, 4.0), (max(size_px // 20, 2),) * 2).astype(np.float32)
    mottling = cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal((size_px, size_px), dtype=np.float32) * np.float32(rng.uniform(1.0, 6.0))
    return np.asarray(mottling + noise, np.float32)
