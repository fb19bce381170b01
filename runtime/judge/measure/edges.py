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
from .segment import LEVEL, Segment
from .signal import Signal, quantile
from .window import Field, Mask

PIXEL_VARIANCE = 1.0 / 12.0  # of a pixel's own aperture, px2
_SLOPE_TAPS = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12.0  # a derivative true to the fourth order: no blur
_BAND = 0.18  # share of the plateau around half height in which the slope is read
_BAND_LOSS = 0.975  # mean slope within the band over the slope at half height (Gaussian edge)
_PRODUCT_SPREAD = 0.05  # relative, of thickness times slope for shapes that are no straight line
# What is known of a lens before looking: in focus its blur is about a pixel, half or double as a rule (one
# and two sigmas). It decides only where the slope does not, on defects about as narrow as the blur.
_USUAL_BLUR_PX, _USUAL_BLUR_SPREAD = 1.1, 0.45
# Of optics: sharper ones do not exist, more blurred pictures are outside every certified range.
_LENSES_PX = np.geomspace(0.25, 2.5, 33)


_MOST_RIM_PX = 0.8  # that a rim may move half of the height
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
    noise = segment.noise
    unsure = math.hypot(
        _PRODUCT_SPREAD, noise / max(slope * thickness, 0.5) / math.sqrt(max(samples / 6.0, 1.0))
    )
    # A long defect is a line, a compact one a disc, what is between is between.
    long = min(max((length_px / max(thickness, 0.5) - 1.0) / 2.0, 0.0), 1.0)
    half_widths, products = (
        long * of_strip + (1 - long) * of_disc for of_strip, of_disc in zip(*_tables(), strict=True)
    )
    # How likely every blur is: by what is known of lenses, by the slope, by the width that blur alone has.
    blurs = np.sqrt(known + _LENSES_PX**2)
    shares = thickness / blurs
    ratios = np.interp(shares, half_widths, _RATIO, left=0.0)
    widths = np.where(shares < half_widths[-1], blurs * ratios, thickness)
    off = slope * thickness / np.interp(shares, half_widths, products) - 1.0
    short = np.maximum(half_widths[0] / shares - 1.0, 0.0)
    weights = (
        np.exp(
            -((off / unsure) ** 2) / 2
            - (np.log(_LENSES_PX / _USUAL_BLUR_PX) / _USUAL_BLUR_SPREAD) ** 2 / 2
            - (short / _PRODUCT_SPREAD) ** 2 / 2
        )
        + 1e-12
    )
    weights /= weights.sum()
    width, blur, optics = float(weights @ widths), float(weights @ blurs), float(weights @ _LENSES_PX)
    u_width, u_blur = (
        math.sqrt(max(float(weights @ values**2) - mean**2, 0.0))
        for values, mean in ((widths, width), (blurs, blur))
    )
    inset = max(float(thickness - width) / 2, 0.0)
    return Edge(blur, optics, thickness, inset, slope, u_blur, u_width / 2)


def _thickness(outline: Outline) -> float:
    """Mean width of a strip with round ends of this area and perimeter: A = P t / 2 - pi t^2 / 4."""
    perimeter = outline.perimeter_px
    return (perimeter - math.sqrt(max(perimeter**2 - 4 * math.pi * outline.area_px, 0.0))) / math.pi


def _slope(segment: Segment, signal: Signal) -> tuple[float, int]:
    """Slope at half height as a share of the plateau a pixel, noise taken off, and from how many pixels."""
    own = segment.own
    across, down = slopes_of_field(own)
    near = cv2.dilate(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    band = near & (np.abs(own - LEVEL) < _BAND)
    if int(np.count_nonzero(band)) < 4:
        band = near & ~cv2.erode(segment.mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    if not band.any():
        band = segment.mask
    squared = across[band] ** 2 + down[band] ** 2
    lag = np.subtract.outer(np.arange(5), np.arange(5))
    alike = np.exp(-(lag**2) / (4 * max(signal.smoothing_px, 0.3) ** 2))  # correlation of smoothed noise
    # The median of a squared length with noise in both parts is the square plus one part's variance.
    noise = segment.noise**2 * float(_SLOPE_TAPS @ alike @ _SLOPE_TAPS)
    steepness = math.sqrt(max(quantile(squared, 0.5) - noise, 1e-4))
    return steepness / _BAND_LOSS, int(np.count_nonzero(band))


def steepest_px(share: Field, mask: Mask) -> float:
    """How far outside the outline at half height the edge is steepest on the average, px; inside is negative.

    A blurred edge is steepest where it is, whatever rim stands beside it; a rim moves half of the height. The
    mean over the whole outline, by distance from it in steps of half a pixel.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return 0.0
    top, left = max(int(rows[0]) - 5, 0), max(int(columns[0]) - 5, 0)
    window = np.s_[top : int(rows[-1]) + 6, left : int(columns[-1]) + 6]
    part = share[window]
    times = 4 if part.size < 4000 else 2
    fine = cv2.resize(part, None, fx=times, fy=times, interpolation=cv2.INTER_LINEAR)
    own = cv2.resize(
        cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8))[window],
        None,
        fx=times,
        fy=times,
        interpolation=cv2.INTER_NEAREST,
    )
    above = ((fine > LEVEL) & (own > 0)).astype(np.uint8)
    away = cv2.distanceTransform(1 - above, cv2.DIST_L2, 5) - cv2.distanceTransform(above, cv2.DIST_L2, 5)
    steps = np.round(away / times * 2).astype(np.int64) + 6  # 0 is 3 px inside, 12 is 3 px outside
    near = (steps >= 0) & (steps <= 12)
    counts = np.bincount(steps[near], minlength=13)
    means = np.bincount(steps[near], fine[near], 13) / np.maximum(counts, 1)
    falls = np.where((counts[2:] > 8 * times) & (counts[:-2] > 8 * times), means[:-2] - means[2:], 0.0)
    at = int(np.argmax(falls[2:9])) + 2  # within 1.5 px
    before, here, after = falls[at - 1 : at + 2]
    bend = before - 2 * here + after
    place = at + (min(max(0.5 * (before - after) / bend, -0.5), 0.5) if bend < 0 else 0.0)
    return min(max((place + 1 - 6) / 2, -_MOST_RIM_PX), _MOST_RIM_PX)


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
