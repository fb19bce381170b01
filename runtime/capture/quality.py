"""How good a picture is, in numbers that one product shares with the next: light, blur, glare, noise.

Everything is measured on a sample of the picture (single pixels for levels and areas, a few whole windows for
blur and noise), so that twelve megapixels cost little more than half a one. Beside a template the picture is
also compared with it: a light board on a dark ground says little by its brightness, and much by how far that
left the golden picture's.

Blur is the sigma of a Gaussian: the slope of an edge of sigma s, smoothed by s1 and by s2, falls from
1/sqrt(s^2 + s1^2) to 1/sqrt(s^2 + s2^2), whatever its contrast, so their ratio gives s (Zhuo and Sim,
"Defocus map estimation from a single image", Pattern Recognition 44, 2011). Noise is the mean of |a Laplacian
that cancels planes| on smooth ground (Immerkaer, "Fast noise variance estimation", CVIU 64, 1996).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..errors import PictureError

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]

SAMPLE_PX = 60_000
"""Single pixels that levels and areas are counted on, at most about."""

WINDOW_PX = 80
WINDOWS = 9
"""Windows in full resolution for blur and noise, where the picture has most edges."""

MOST_BLUR_PX = 8.0
"""Blur that far beyond the two scales cannot be told from more; a motion of 15 pixels already gives it."""

LIGHT_LEVEL, DARK_LEVEL = 250, 5
"""Grey levels from which on a pixel has lost what it showed."""

_MARGIN_PX = 8  # of a window, where its neighbour in the stack reaches in
_SIGMA_1, _SIGMA_2 = 1.0, 2.5
_DERIVATIVE_VARIANCE = 1.0 / 3.0  # of the central difference: a box two pixels wide
_FEWEST_EDGES = 24  # edge pixels that a direction needs to be heard
_EDGE_SHARE = 0.35  # of the strongest slope of a direction: below it an edge is not clear enough to measure
_DIRECTION_SHARE = 0.08  # of the stronger direction's slopes: below it a direction has no edges of its own
_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
_SCAN_SHARE = 0.02  # of a binarised picture that is white, and that is black, at least
_REACH_PX = 8  # the template's light may lie so far beside the part's


@dataclass(frozen=True)
class Quality:
    """One picture in numbers; grey levels are 0 to 255, shares 0 to 1.

    brightness: mean grey level; contrast: 2nd to 98th percentile; blur_px: sigma of the edges in pixels, of
    the blurrier direction, None where nothing has an edge; noise_sigma: grey levels; glare_share,
    dark_share: area that is white or black, and is not in the template where there is one. A picture of
    black and white only (a binarised scan) has neither without a template.
    Beside a template, else None: light_ratio and contrast_ratio to it, blur_added_px (what a Gaussian would
    have to add to the template, 0 where the part is sharper) and noise_added, likewise.
    """

    brightness: float
    contrast: float
    blur_px: float | None
    noise_sigma: float
    glare_share: float
    dark_share: float
    light_ratio: float | None = None
    contrast_ratio: float | None = None
    blur_added_px: float | None = None
    noise_added: float | None = None


def picture_quality(image: ByteArray, template: ByteArray | None = None) -> Quality:
    """Measure a picture uint8 [H, W] or [H, W, 3] BGR, beside its template of the same size or alone.

    PictureError when template and picture differ in size. Deterministic.
    """
    if template is not None and template.shape[:2] != image.shape[:2]:
        raise PictureError(
            f"the part is {image.shape[:2]} and its template {template.shape[:2]}; take both at one scale"
        )
    height, width = image.shape[:2]
    step = max(1, math.ceil(math.sqrt(height * width / SAMPLE_PX)))
    sample = _grey(image[::step, ::step])
    golden = None if template is None else _grey(template[::step, ::step])
    corners = _corners(sample if golden is None else golden, step, (height, width))
    blur, noise = _blur_and_noise(image, corners)
    white, black = _lost(sample, golden, step)  # [h, w] bool
    brightness, contrast = _levels(sample, ~(white | black))
    quality = Quality(brightness, contrast, blur, noise, float(white.mean()), float(black.mean()))
    if template is None or golden is None:
        return quality
    golden_blur, golden_noise = _blur_and_noise(template, corners)
    kept = ~(white | black)
    return replace(
        quality,
        light_ratio=_light_ratio(sample, golden, kept),
        contrast_ratio=contrast / max(_levels(golden, kept)[1], 1.0),
        blur_added_px=_blur_added(blur, golden_blur),
        noise_added=_added(noise, golden_noise),
    )


def within(quality: Quality, section: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What leaves the certified range, one text each: `blur_added_px 3.42 > 2.1`; empty when nothing does.

    `section`: the bundle's judgement.json, section "quality" of the recipe, with `limits` {quantity: {"min":
    or "max": number}}; None certifies nothing and refuses nothing. A quantity that cannot be measured on
    this picture (no edge, no template) is not held against it.
    """
    wrong = []
    limits = {} if section is None else section.get("limits", {})
    for name, limit in limits.items():
        value = getattr(quality, name, None)
        if value is None:
            continue
        least, most = limit.get("min"), limit.get("max")
        if least is not None and value < least:
            wrong.append(f"{name} {value:.4g} < {least:.4g}")
        if most is not None and value > most:
            wrong.append(f"{name} {value:.4g} > {most:.4g}")
    return tuple(wrong)


def _grey(picture: ByteArray) -> ByteArray:
    if picture.ndim == 2:
        return np.ascontiguousarray(picture)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2GRAY), np.uint8)


def _levels(sample: ByteArray, kept: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and 2nd to 98th percentile of the pixels that are kept; of all where none is."""
    mask = kept.view(np.uint8) if kept.any() else None
    counts = cv2.calcHist([sample], [0], mask, [256], [0, 256]).reshape(-1).astype(np.float64)
    share = np.cumsum(counts) / counts.sum()
    low, high = (int(np.searchsorted(share, part)) for part in (0.02, 0.98))
    return float(counts @ np.arange(256.0) / counts.sum()), float(high - low)


def _lost(
    sample: ByteArray, golden: ByteArray | None, step: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """[h, w] bool twice: white and black pixels of the sample that are not so in the template around."""
    white, black = sample >= LIGHT_LEVEL, sample <= DARK_LEVEL
    if golden is None:
        light, dark = float(np.mean(sample >= 235)), float(np.mean(sample <= 20))
        # A scan, with nothing else to be; of one of the two alone, the lens is covered or the light too much.
        if light + dark > 0.97 and min(light, dark) > _SCAN_SHARE:
            return np.zeros_like(white), np.zeros_like(black)
        return white, black
    side = 2 * max(1, round(_REACH_PX / step)) + 1
    square = np.ones((side, side), np.uint8)
    return (
        white & (cv2.dilate(golden, square) < LIGHT_LEVEL),
        black & (cv2.erode(golden, square) > DARK_LEVEL),
    )


def _light_ratio(sample: ByteArray, golden: ByteArray, kept: npt.NDArray[np.bool_]) -> float:
    """How bright the part is beside its template: the median over places of their mean levels."""
    part, template = (cv2.blur(each, (15, 15))[::4, ::4].astype(np.float32) for each in (sample, golden))
    lit = (template > 2 * DARK_LEVEL) & kept[::4, ::4]
    if not lit.any():
        return float(max(sample.mean(), 1.0) / max(golden.mean(), 1.0))
    return float(np.median(part[lit] / template[lit]))


def _added(value: float, golden: float) -> float:
    """What adds to `golden` in squares to give `value`."""
    return math.sqrt(max(value * value - golden * golden, 0.0))


def _blur_added(blur: float | None, golden: float | None) -> float | None:
    """None where the template has no edge; where only the part has none, they are gone: the most there is."""
    if golden is None:
        return None
    return MOST_BLUR_PX if blur is None else _added(blur, golden)


def _corners(sample: ByteArray, step: int, size_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """(y, x) in the full picture of the windows that have most edges, one in each of WINDOWS fields."""
    height, width = size_hw
    edges = cv2.absdiff(cv2.blur(sample, (3, 3)), cv2.blur(sample, (9, 9)))
    cell = max(WINDOW_PX // (4 * step), 1)  # places are a quarter of a window apart
    cells_hw = max(sample.shape[0] // cell, 1), max(sample.shape[1] // cell, 1)
    places = cv2.resize(edges, cells_hw[::-1], interpolation=cv2.INTER_AREA).astype(np.float32)
    energy = cv2.blur(places, (5, 5))  # mean edge of the window around each place
    fields = round(math.sqrt(WINDOWS))
    corners = []
    for rows in np.array_split(np.arange(cells_hw[0]), fields):
        for columns in np.array_split(np.arange(cells_hw[1]), fields):
            if not rows.size or not columns.size:
                continue
            field = energy[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            y, x = np.unravel_index(int(field.argmax()), field.shape)
            top = round((float(y) + rows[0] + 0.5) * height / cells_hw[0]) - WINDOW_PX // 2
            left = round((float(x) + columns[0] + 0.5) * width / cells_hw[1]) - WINDOW_PX // 2
            corners.append(
                (min(max(top, 0), max(height - WINDOW_PX, 0)), min(max(left, 0), max(width - WINDOW_PX, 0)))
            )
    return corners


def _blur_and_noise(picture: ByteArray, corners: list[tuple[int, int]]) -> tuple[float | None, float]:
    """Blur in pixels (None without an edge) and noise in grey levels, in the windows at `corners`."""
    windows = [_grey(picture[y : y + WINDOW_PX, x : x + WINDOW_PX]) for y, x in corners]
    stack = np.concatenate(windows).astype(np.float32)  # [windows * h, w], one call of OpenCV for all
    margin = min(_MARGIN_PX, min(windows[0].shape) // 4)

    def inner(array: Any) -> FloatArray:
        """[windows, h, w] without the margins, where neighbours in the stack reach in; contiguous."""
        cut = np.asarray(array, np.float32).reshape(len(windows), -1, stack.shape[1])
        return np.ascontiguousarray(cut[:, margin : cut.shape[1] - margin, margin : cut.shape[2] - margin])

    smooth = [cv2.GaussianBlur(stack, (0, 0), sigma) for sigma in (_SIGMA_1, _SIGMA_2)]
    slopes = []  # of x, of y; each at both scales, and the steepest of three pixels across the edge
    for dx, around in ((1, (1, 3)), (0, (3, 1))):
        fine, coarse = (np.abs(cv2.Sobel(each, cv2.CV_32F, dx, 1 - dx, ksize=1)) for each in smooth)
        steepest = cv2.dilate(fine, np.ones(around, np.uint8))
        slopes.append((inner(fine), inner(coarse), inner(steepest)))
    bend = np.abs(cv2.filter2D(stack, cv2.CV_32F, _NOISE_MASK))
    noise = _noise(inner(stack), np.maximum(slopes[0][0], slopes[1][0]), inner(bend))
    strongest = [_strongest(fine) for fine, _, _ in slopes]
    sigmas = []
    for (fine, coarse, steepest), own in zip(slopes, strongest, strict=True):
        # Motion flattens the edges across it: each direction is measured by its own, unless it has none.
        if own >= _DIRECTION_SHARE * max(strongest):
            crest = (fine >= max(_EDGE_SHARE * own, 1.5 * noise, 1.0)) & (fine >= steepest)
            sigmas.append(_edge_sigma(fine[crest], coarse[crest]))
    return max((sigma for sigma in sigmas if sigma is not None), default=None), noise


def _strongest(slope: FloatArray) -> float:
    """The slope that one pixel in 200 exceeds."""
    place = slope.size - slope.size // 200 - 1
    return float(np.partition(slope.reshape(-1), place)[place])


def _edge_sigma(fine: FloatArray, coarse: FloatArray) -> float | None:
    """Sigma of edges, from the median ratio of their slopes at the two scales; None for too few edges."""
    if len(fine) < _FEWEST_EDGES:
        return None
    ratio = float(np.median(fine / np.maximum(coarse, 1e-3))) ** 2
    first, second = _SIGMA_1**2 + _DERIVATIVE_VARIANCE, _SIGMA_2**2 + _DERIVATIVE_VARIANCE
    if ratio * (MOST_BLUR_PX**2 + first) <= MOST_BLUR_PX**2 + second:
        return MOST_BLUR_PX
    return math.sqrt(max((second - ratio * first) / (ratio - 1.0), 0.0))


def _noise(levels: FloatArray, slope: FloatArray, bend: FloatArray) -> float:
    """Standard deviation of the noise in grey levels, on the smoother half of what is not black or white."""
    shown = (levels < LIGHT_LEVEL) & (levels > DARK_LEVEL)
    if np.count_nonzero(shown) * 10 < shown.size:
        shown = np.ones_like(shown)
    slope, bend = slope[shown], bend[shown]
    bend = bend[slope <= np.median(slope)]
    # The mean moves in finer steps than the median of whole grey levels; an edge among them must not move it.
    most = 3.0 * float(np.median(bend)) + 6.0
    return float(np.minimum(bend, most).mean()) * math.sqrt(math.pi / 2.0) / 6.0
