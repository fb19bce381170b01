"""A known length in one picture: between two points, two edges, or two round marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...runtime.errors import ScaleError
from ...runtime.judge.scale import Floats
from .budget import widened
from .edges import Step, agreeing, fitted_step, tone_uncertainty
from .rounds import Grey, Outline, fitted_round, round_outlines

_STRIP_PX = 5.0
_STRIPS = (5, 24)
_SEARCH_PX = 14.0
_MOST_ANGLE = 0.02  # radians between the two edges: beyond it they have no one distance
_LEAST_MARK_PX = 8.0
_MOST_MARK_SHARE = 0.3  # of the picture's shorter side
_ALIKE = 0.75  # diameters of two fiducials


@dataclass(frozen=True)
class PixelLength:
    """A length in px with its standard uncertainty, the residual of the fits behind it (None: nothing was
    fitted), and what happened, in a few words."""

    value_px: float
    uncertainty_px: float
    residual_px: float | None
    source: str


def between_points(points: Sequence[float], tolerance_px: float) -> PixelLength:
    """The distance of two given points, each within +-tolerance_px along the line (rectangular)."""
    x1, y1, x2, y2 = points
    length = float(np.hypot(x2 - x1, y2 - y1))
    _check_length(length)
    uncertainty = tolerance_px / np.sqrt(3) * np.sqrt(2)
    return PixelLength(length, float(uncertainty), None, f"two points, each within +-{tolerance_px:g} px")


def between_edges(grey: Grey, points: Sequence[float], what: str) -> PixelLength:
    """The distance of the two parallel edges near two given points, across the edges."""
    start, end = np.array(points[:2], np.float64), np.array(points[2:], np.float64)
    length = float(np.hypot(*(end - start)))
    _check_length(length)
    along = (end - start) / length
    near, far = (_edge_line(grey, point, along, length, what) for point in (start, end))
    if abs(near.angle - far.angle) > _MOST_ANGLE:
        raise ScaleError(
            f"{what}: the two edges are not parallel ({np.degrees(abs(near.angle - far.angle)):.1f} degrees,"
            f" at most {np.degrees(_MOST_ANGLE):.1f}); they have no one distance: choose others"
        )
    tilt = float(np.cos((near.angle + far.angle) / 2))
    # an unknown tone curve moves both edges of a bar outwards or inwards together
    tone = near.tone_px + far.tone_px if near.contrast * far.contrast < 0 else abs(near.tone_px - far.tone_px)
    fit = float(np.hypot(near.uncertainty_px, far.uncertainty_px))
    return PixelLength(
        (length + far.offset - near.offset) * tilt,
        float(np.hypot(fit, tone)),
        float(np.sqrt((near.residual_px**2 + far.residual_px**2) / 2)),
        f"two edges, {near.strips} and {far.strips} places along them",
    )


@dataclass(frozen=True)
class _EdgeLine:
    """One edge: its offset along the measuring line at the given point, and its angle to the normal."""

    offset: float
    angle: float
    uncertainty_px: float
    tone_px: float
    residual_px: float
    contrast: float
    strips: int


def _edge_line(grey: Grey, point: Floats, along: Floats, length: float, what: str) -> _EdgeLine:
    """The edge near `point`, fitted strip by strip beside the measuring line."""
    beside = np.array([-along[1], along[0]])
    half = float(np.clip(0.1 * length, 15.0, 60.0))
    reach = min(_SEARCH_PX, 0.4 * length)
    height, width = grey.shape
    far = int(np.ceil(half + reach)) + 2
    x1, y1 = (max(int(c) - far, 0) for c in point)
    x2, y2 = min(int(point[0]) + far, width), min(int(point[1]) + far, height)
    where = f"{what}: the edge near {point[0]:g},{point[1]:g}"
    if x2 <= x1 or y2 <= y1:
        raise ScaleError(f"{where} lies outside the picture of {width}x{height}; give points inside it")
    y, x = np.mgrid[y1:y2, x1:x2]
    offset = np.stack([x.ravel() + 0.5 - point[0], y.ravel() + 0.5 - point[1]], axis=1)
    across, side = offset @ along, offset @ beside
    levels = grey[y1:y2, x1:x2].ravel().astype(np.float64)
    coarse, slope = _coarse_edge(across, side, levels, half, reach), 0.0
    blur = 1.0
    count = int(np.clip(2 * half / _STRIP_PX, *_STRIPS))
    for window in (6.0, 0.0):
        window = window or 3.5 * blur + 1.5
        place = across - coarse - slope * side
        near = (np.abs(place) < window) & (np.abs(side) < half)
        strip = np.floor((side[near] + half) / (2 * half) * count).astype(int)
        t, grey_at = place[near], levels[near]
        steps = [fitted_step(t[strip == one], grey_at[strip == one], blur) for one in range(count)]
        kept = agreeing(steps)
        if kept.sum() < max(4, 0.6 * count):
            raise ScaleError(
                f"{where} is clean in {kept.sum()} of {count} places only; point at a straight, sharp edge"
                " without glints, within 14 px of it"
            )
        clean = [step for step, is_kept in zip(steps, kept, strict=True) if is_kept and step is not None]
        blur = float(np.median([step.blur for step in clean]))
        middles = ((np.arange(count) + 0.5) / count * 2 - 1)[kept] * half
        positions = np.array([step.position for step in clean])
        design = np.stack([np.ones_like(middles), middles], axis=1)
        line = np.linalg.lstsq(design, positions, rcond=None)[0]
        coarse, slope = coarse + float(line[0]), slope + float(line[1])
    return _line_fit(coarse, slope, design, positions - design @ line, clean)


def _line_fit(coarse: float, slope: float, design: Floats, left: Floats, clean: list[Step]) -> _EdgeLine:
    freedom = len(left) - 2
    variance = float(np.sum(left**2)) / max(freedom, 1)
    uncertainty = np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0]) * widened(freedom)
    return _EdgeLine(
        coarse,
        float(np.arctan(slope)),
        float(uncertainty),
        tone_uncertainty(clean),
        float(np.sqrt(np.mean(left**2))),
        float(np.median([step.contrast for step in clean])),
        len(clean),
    )


def _coarse_edge(across: Floats, side: Floats, levels: Floats, half: float, reach: float) -> float:
    """Where the mean profile across the edge rises or falls most, to a pixel."""
    near = (np.abs(side) < half / 3) & (np.abs(across) < reach)
    bins = np.floor(across[near] + reach).astype(int)
    counts = np.bincount(bins)
    profile = np.bincount(bins, weights=levels[near]) / np.maximum(counts, 1)
    if len(profile) < 5:
        return 0.0
    rise = np.abs(profile[2:] - profile[:-2]) * (counts[2:] > 0) * (counts[:-2] > 0)
    return float(np.argmax(rise)) + 1.5 - reach


def between_marks(grey: Grey, seeds: Sequence[Sequence[float]], what: str) -> PixelLength:
    """The distance of the centres of two round marks: those at the two seeds, or the only two there are."""
    outlines = [
        outline
        for outline in round_outlines(grey, _LEAST_MARK_PX)
        if max(outline.half_axes) * 2 < _MOST_MARK_SHARE * min(grey.shape)
    ]
    chosen = [_mark_at(outlines, seed, what) for seed in seeds] if seeds else _only_two(outlines, what)
    fits = [
        fitted_round(grey, one, f"{what}, mark at {one.centre_xy[0]:.0f},{one.centre_xy[1]:.0f}")
        for one in chosen
    ]
    apart = np.subtract(fits[1].centre_xy, fits[0].centre_xy)
    length = float(np.hypot(*apart))
    _check_length(length)
    direction = apart / length
    variance = sum(
        float(direction @ fit.covariance[1:, 1:] @ direction) * widened(fit.freedom - 5) ** 2 for fit in fits
    )
    residual = float(np.sqrt(np.mean([fit.residual_px**2 for fit in fits])))
    source = f"centres of two round marks of {fits[0].diameter_px:.0f} and {fits[1].diameter_px:.0f} px"
    return PixelLength(length, float(np.sqrt(variance)), residual, source)


def _mark_at(outlines: Sequence[Outline], seed: Sequence[float], what: str) -> Outline:
    """The mark whose outline the seed lies in or beside."""
    near = [
        (float(np.hypot(one.centre_xy[0] - seed[0], one.centre_xy[1] - seed[1])), one)
        for one in outlines
    ]
    near = [(away, one) for away, one in near if away < 2 * max(one.half_axes)]
    if not near:
        raise ScaleError(
            f"{what}: no round mark at {seed[0]:g},{seed[1]:g}; {len(outlines)} are in the picture"
            f" ({_listed(outlines)}); give the centre of a dark or bright disc on an even ground"
        )
    return min(near, key=lambda pair: pair[0])[1]


def _only_two(outlines: Sequence[Outline], what: str) -> list[Outline]:
    """The two marks of a picture that has two of like size; ScaleError otherwise."""
    largest = outlines[0].area_px if outlines else 0.0
    alike = [one for one in outlines if one.area_px > _ALIKE**2 * largest]
    if len(alike) != 2:
        raise ScaleError(
            f"{what}: {len(alike)} round marks of like size were found ({_listed(alike)}), two are needed;"
            " name them: --fiducials X1,Y1 X2,Y2"
        )
    return alike


def _listed(outlines: Sequence[Outline]) -> str:
    places = [f"{one.centre_xy[0]:.0f},{one.centre_xy[1]:.0f}" for one in outlines[:6]]
    return " ".join(places) or "none"


def _check_length(length: float) -> None:
    if not length >= 20:
        raise ScaleError(f"the length spans {length:.1f} px; at least 20, and better most of the picture")
