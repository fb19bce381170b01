"""The blur of a defect's edge, and what it does to a line: true width from the width at half height."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from .contour import Outline
from .segment import Segment
from .signal import Signal
from .window import Field

PIXEL_VARIANCE = 1.0 / 12.0  # of a pixel's own aperture, px2
_SLOPE_TAPS = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12.0  # a derivative true to the fourth order: no blur
_BAND = 0.18  # share of the plateau around half height in which the slope is read
_BAND_LOSS = 0.975  # mean slope within the band over the slope at half height (Gaussian edge)
_PRODUCT_SPREAD = 0.05  # relative, of thickness times slope for shapes that are no straight line
_STEPS = np.linspace(-4.0, 4.0, 17)  # sigmas at which the slope is tried
# What is known of a lens before looking: in focus its blur is about a pixel, half or double as a rule (one
# and two sigmas). It decides only where the slope does not, on defects about as narrow as the blur.
_USUAL_BLUR_PX, _USUAL_BLUR_SPREAD = 1.1, 0.45
# Of optics: sharper ones do not exist, more blurred pictures are outside every certified range.
_LEAST_BLUR_PX, _MOST_BLUR_PX = 0.25, 2.5


_ERF = np.vectorize(math.erf)
Floats = npt.NDArray[np.float64]


def _strip_profile(x: Floats, ratio: Floats) -> Floats:
    """Across a line of width `ratio` sigmas under a Gaussian blur, x in sigmas from its middle."""
    root = math.sqrt(2)
    return np.asarray((_ERF((x + ratio / 2) / root) - _ERF((x - ratio / 2) / root)) / 2)


def _disc_profile(x: Floats, ratio: Floats) -> Floats:
    """Along a radius of a disc of diameter `ratio` sigmas under a Gaussian blur, x from its middle."""
    radius = np.linspace(0.0, 1.0, 65) * (ratio[..., None] / 2)
    argument = radius * x[..., None]
    # exp(-(r^2 + x^2)/2) I0(r x) r, the exponent taken together so that nothing overflows
    scaled = np.where(argument < 600, np.i0(np.minimum(argument, 600.0)) * np.exp(-argument), 0.0)
    ring = radius * scaled * np.exp(-((radius - x[..., None]) ** 2) / 2)
    return np.asarray(((ring[..., 1:] + ring[..., :-1]) / 2).sum(axis=-1) * (ratio / 2 / 64))


def _profile_table(profile: Callable[[Floats, Floats], Floats]) -> tuple[Floats, Floats]:
    """By width over blur (`_RATIO`): the width at half height over blur, and that times the slope there.

    The product grows from 1.386 (no width, a Gaussian) with width over blur, so that it tells the two apart.
    """
    peak = profile(np.zeros_like(_RATIO), _RATIO)
    low, high = np.zeros_like(_RATIO), _RATIO / 2 + 4.0
    for _ in range(20):  # bisection: the profile falls from 1 to 0
        middle = (low + high) / 2
        above = profile(middle, _RATIO) > 0.5 * peak
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    half = (low + high) / 2
    slope = -(profile(half + 1e-3, _RATIO) - profile(half - 1e-3, _RATIO)) / 2e-3 / peak
    return 2 * half, np.maximum.accumulate(2 * half * slope)


_RATIO: Floats = np.concatenate([np.linspace(0.02, 6.0, 44), np.linspace(6.4, 16.0, 16), [24.0, 40.0]])


@cache
def _tables() -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
    """The tables of a strip and of a disc, made when the first defect is measured."""
    return _profile_table(_strip_profile), _profile_table(_disc_profile)


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
    inset_uncertainty_px: float


def edge_of_segment(segment: Segment, signal: Signal, outline: Outline, length_px: float) -> Edge:
    """Blur and inset from slope at half height and mean thickness; `length_px` of the defect as seen."""
    thickness = _thickness(outline)
    slope, samples = _slope(segment, signal)
    known = signal.smoothing_px**2 + PIXEL_VARIANCE  # the blur that is not the optics'
    bounds = (math.sqrt(known + _LEAST_BLUR_PX**2), math.sqrt(known + _MOST_BLUR_PX**2))
    noise = signal.noise / max(segment.plateau, 1e-6)
    unsure = math.hypot(
        _PRODUCT_SPREAD, noise / max(slope * thickness, 0.5) / math.sqrt(max(samples / 6.0, 1.0))
    )
    # A long defect is a line, a compact one a disc, what is between is between.
    long = min(max((length_px / max(thickness, 0.5) - 1.0) / 2.0, 0.0), 1.0)
    half_widths, products = (
        long * of_strip + (1 - long) * of_disc for of_strip, of_disc in zip(*_tables(), strict=True)
    )
    draws = _widths_behind(thickness, slope * (1.0 + unsure * _STEPS), bounds, half_widths, products)
    optics = np.sqrt(np.maximum(draws[:, 1] ** 2 - known, _LEAST_BLUR_PX**2))
    weights = np.exp(-(_STEPS**2) / 2 - (np.log(optics / _USUAL_BLUR_PX) / _USUAL_BLUR_SPREAD) ** 2 / 2)
    weights /= weights.sum()
    (width, blur), squared = weights @ draws, weights @ draws**2
    u_width, u_blur = np.sqrt(np.maximum(squared - np.array([width, blur]) ** 2, 0.0))
    inset = max(float(thickness - width) / 2, 0.0)
    return Edge(
        float(blur), float(weights @ optics), thickness, inset, slope, float(u_blur), float(u_width) / 2
    )


def _widths_behind(
    thickness_px: float,
    slopes: Floats,
    bounds_px: tuple[float, float],
    half_widths: Floats,
    products: Floats,
) -> Floats:
    """Widths and blurs [n, 2] behind a width at half height and slopes there; a width may be 0."""
    ratios = np.interp(thickness_px * slopes, products, _RATIO)
    blurs = np.clip(thickness_px / np.interp(ratios, _RATIO, half_widths), *bounds_px)
    # With the blur known, the width at half height gives the width; over a wide range the two are the same.
    shares = thickness_px / blurs
    widths = blurs * np.interp(shares, half_widths, _RATIO, left=0.0)
    return np.stack([np.where(shares < half_widths[-1], widths, thickness_px), blurs], axis=1)


def _thickness(outline: Outline) -> float:
    """Mean width of a strip with round ends of this area and perimeter: A = P t / 2 - pi t^2 / 4."""
    perimeter = outline.perimeter_px
    return (perimeter - math.sqrt(max(perimeter**2 - 4 * math.pi * outline.area_px, 0.0))) / math.pi


def _slope(segment: Segment, signal: Signal) -> tuple[float, int]:
    """Slope at half height as a share of the plateau a pixel, noise taken off, and from how many pixels."""
    own = segment.own
    across, down = slopes_of_field(own)
    near = cv2.dilate(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    band = near & (np.abs(own - segment.level) < _BAND * segment.plateau)
    if int(np.count_nonzero(band)) < 4:
        band = near & ~cv2.erode(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    if not band.any():
        band = segment.mask
    squared = across[band] ** 2 + down[band] ** 2
    lag = np.subtract.outer(np.arange(5), np.arange(5))
    alike = np.exp(-(lag**2) / (4 * max(signal.smoothing_px, 0.3) ** 2))  # correlation of smoothed noise
    # The median of a squared length with noise in both parts is the square plus one part's variance.
    noise = signal.noise**2 * float(_SLOPE_TAPS @ alike @ _SLOPE_TAPS)
    steepness = math.sqrt(max(float(np.median(squared)) - noise, 1e-4 * segment.plateau**2))
    return steepness / _BAND_LOSS / segment.plateau, int(np.count_nonzero(band))


def slopes_of_field(field: Field) -> tuple[Field, Field]:
    """Derivatives across and down of a field [h, w], a pixel."""
    flat = np.ones(1)
    across = cv2.sepFilter2D(field, cv2.CV_32F, _SLOPE_TAPS, flat, borderType=cv2.BORDER_REPLICATE)
    down = cv2.sepFilter2D(field, cv2.CV_32F, flat, _SLOPE_TAPS, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def distance_to_outline(share: Field, edge: Edge) -> Field:
    """How far inside (+) or outside (-) the outline at half height a pixel is, from its plateau share.

    By the profile of a line of the defect's thickness under its blur: along one normal, noise bends it least.
    """
    half_widths, products = _tables()[0]
    ratio = min(float(np.interp(edge.thickness_px * edge.slope, products, _RATIO)), 8.0)
    half = float(np.interp(ratio, _RATIO, half_widths)) / 2
    x = np.linspace(half + 3.0, 0.0, 64)
    profile = _strip_profile(x, np.full(64, ratio))
    profile /= profile[-1]
    pixels = 1.0 / (edge.slope * half * 2) * float(np.interp(ratio, _RATIO, products))  # a sigma
    return np.asarray(np.interp(share, profile, (half - x) * pixels), np.float32)
