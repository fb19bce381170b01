"""The blur of a defect's edge, and what it does to a line: true width from the width at half height."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .contour import Outline
from .segment import Segment
from .signal import Signal

PIXEL_VARIANCE = 1.0 / 12.0  # of a pixel's own aperture, px2
_GRADIENT_VARIANCE = 1.0 / 3.0  # of a central difference, which is a slope averaged over two pixels
_BAND = 0.18  # share of the plateau around half height in which the slope is read
_BAND_LOSS = 0.975  # mean slope within the band over the slope at half height (Gaussian edge)
_LEAST_BLUR_PX = 0.25  # of optics; sharper ones do not exist


def _line_table() -> tuple[npt.NDArray[np.float64], ...]:
    """Of a line of width w under a Gaussian blur s: w / s, width at half height / s, that times the slope.

    Profile: Phi((x + w/2) / s) - Phi((x - w/2) / s), height at the middle 1. The product of width and slope
    grows from 1.386 (a line of no width, a Gaussian) with w / s, so that it tells w / s.
    """
    ratios = np.concatenate([np.linspace(0.02, 6.0, 150), np.linspace(6.2, 40.0, 60)])
    erf = np.vectorize(math.erf)

    def profile(x: npt.NDArray[np.float64], ratio: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        peak = erf(ratio / 2 / math.sqrt(2))
        return np.asarray(
            (erf((x + ratio / 2) / math.sqrt(2)) - erf((x - ratio / 2) / math.sqrt(2))) / 2 / peak
        )

    low, high = np.zeros_like(ratios), ratios / 2 + 4.0
    for _ in range(40):  # bisection: the profile falls from 1 to 0
        middle = (low + high) / 2
        above = profile(middle, ratios) > 0.5
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    half = (low + high) / 2
    slope = -(profile(half + 1e-4, ratios) - profile(half - 1e-4, ratios)) / 2e-4
    return ratios, 2 * half, 2 * half * slope


_RATIO, _HALF_WIDTH, _PRODUCT = _line_table()


@dataclass(frozen=True)
class Edge:
    """The defect's edge, in the window's pixels.

    `blur_px`: sigma of the whole blur in the signal (optics, pixel, smoothing); `optics_px`: the optics'
    part. `thickness_px`: mean width at half height; `inset_px`: how far the true outline lies inside the one
    at half height (0 for a defect much wider than its blur). `slope`: of the signal at the outline, a share
    of the plateau a pixel. `blur_uncertainty_px`: of `blur_px`, k = 1.
    """

    blur_px: float
    optics_px: float
    thickness_px: float
    inset_px: float
    slope: float
    blur_uncertainty_px: float


def edge_of_segment(segment: Segment, signal: Signal, outline: Outline) -> Edge:
    """Blur and inset from the slope at half height and the mean thickness."""
    thickness = _thickness(outline)
    slope, samples = _slope(segment, signal)
    seen_variance = _GRADIENT_VARIANCE  # the central difference blurs the slope beyond the signal's own blur
    product = max(thickness * slope, float(_PRODUCT[0]) + 1e-3)
    ratio = float(np.interp(product, _PRODUCT, _RATIO))
    blur = thickness / float(np.interp(ratio, _RATIO, _HALF_WIDTH))
    least = math.sqrt(signal.smoothing_px**2 + PIXEL_VARIANCE + _LEAST_BLUR_PX**2)
    blur = max(math.sqrt(max(blur**2 - seen_variance, 0.0)), least)
    # With the blur known, the width at half height gives the width itself.
    widths = _HALF_WIDTH * blur
    width = float(np.interp(thickness, widths, _RATIO * blur)) if thickness > widths[0] else 0.0
    optics = math.sqrt(max(blur**2 - signal.smoothing_px**2 - PIXEL_VARIANCE, _LEAST_BLUR_PX**2))
    scatter = (
        signal.noise / max(segment.plateau, 1e-6) / max(slope, 1e-3) / math.sqrt(max(samples / 4.0, 1.0))
    )
    return Edge(
        blur, optics, thickness, max((thickness - width) / 2, 0.0), slope, math.hypot(0.1 * blur, scatter)
    )


def line_width(thickness_px: float, blur_px: float) -> float:
    """True width of a line from its width at half height under a blur; 0 when the blur is all of it."""
    widths = _HALF_WIDTH * blur_px
    return float(np.interp(thickness_px, widths, _RATIO * blur_px)) if thickness_px > widths[0] else 0.0


def _thickness(outline: Outline) -> float:
    """Mean width of a strip of this area and perimeter: A = l t, P = 2 (l + t)."""
    half = outline.perimeter_px / 2
    return (half - math.sqrt(max(half**2 - 4 * outline.area_px, 0.0))) / 2


def _slope(segment: Segment, signal: Signal) -> tuple[float, int]:
    """Slope at half height as a share of the plateau a pixel, noise taken off, and from how many pixels."""
    own = segment.own
    across = cv2.Sobel(own, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    down = cv2.Sobel(own, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    near = cv2.dilate(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    band = near & (np.abs(own - segment.level) < _BAND * segment.plateau)
    if int(np.count_nonzero(band)) < 4:
        band = near & ~cv2.erode(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    squared = across[band] ** 2 + down[band] ** 2
    smooth = max(signal.smoothing_px, 0.3)
    noise = signal.noise**2 * (1 - math.exp(-1 / smooth**2))  # of two central differences of smoothed noise
    steepness = math.sqrt(max(float(np.median(squared)) - noise, 1e-4 * segment.plateau**2))
    return steepness / _BAND_LOSS / segment.plateau, int(np.count_nonzero(band))
