"""Round parts and round marks: found by their outline, fitted by their edge, glints left out.

The edge is fitted sector by sector; a circle whose radius may swing twice a turn (an ellipse of small
flattening) goes through the sectors, and the scatter of neighbouring sectors gives the uncertainty.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ...runtime.errors import ScaleError
from ...runtime.judge.scale import Floats
from .edges import Step, agreeing, fitted_step, tone_uncertainty

Grey = npt.NDArray[np.uint8]

_SECTORS = (16, 120)
_SECTOR_PX = 2.5  # least length along the outline, for small marks
_CLUSTERS = (10, 30)  # groups of neighbouring sectors, whose errors may belong together
_CLUSTER_PX = 5.0  # least length of one along the outline: errors of neighbouring pixels belong together
_MOST_BLUR_PX = 6.0
_LEAST_ROUND = 0.93  # area of an outline over that of its ellipse
_LEAST_KEPT = 0.6  # share of the outline with a clean edge
_WIDEST_GAP = np.pi / 2
_ROUNDS = 25


@dataclass(frozen=True)
class Outline:
    """A region's outline as it was found: an ellipse, centre and half axes in px, and its area in px2."""

    centre_xy: tuple[float, float]
    half_axes: tuple[float, float]
    area_px: float


@dataclass(frozen=True)
class RoundFit:
    """A fitted round thing; px, picture coordinates with pixel centres at integer + 0.5.

    diameter_px: of the circle of the same area; flatness: minor over major axis. covariance [3, 3] is of
    radius and centre x, y; freedom: how many independent groups it rests on. tone_px: standard uncertainty of
    the edge's place, alike all around. residual_px: root mean square of the kept sectors.
    """

    diameter_px: float
    centre_xy: tuple[float, float]
    flatness: float
    residual_px: float
    blur_px: float
    tone_px: float
    covariance: Floats
    freedom: int
    kept: float
    is_cut: bool


def round_outlines(grey: Grey, least_px: float) -> list[Outline]:
    """Round dark or bright regions of at least `least_px` diameter, the largest first.

    Regions that touch the picture's border are left out: they are cut, or the ground.
    """
    height, width = grey.shape
    smooth = cv2.GaussianBlur(grey, (5, 5), 0)
    found: list[Outline] = []
    for flag in (cv2.THRESH_BINARY_INV, cv2.THRESH_BINARY):
        _, mask = cv2.threshold(smooth, 0, 255, flag | cv2.THRESH_OTSU)
        contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
        for contour in contours:
            x, y, w, h = cv2.boundingRect(contour)
            if x <= 0 or y <= 0 or x + w >= width or y + h >= height or min(w, h) < least_px:
                continue
            if (outline := _outline(contour)) is not None:
                found.append(outline)
    return sorted(found, key=lambda outline: -outline.area_px)


def _outline(contour: npt.NDArray[Any]) -> Outline | None:
    """The ellipse of a contour's hull; None when the region is not round."""
    hull = cv2.convexHull(contour)
    if len(hull) < 5:
        return None
    # CHAIN_APPROX_NONE gives pixel centres; the region reaches half a pixel beyond them
    area = float(cv2.contourArea(hull)) + float(cv2.arcLength(hull, True)) / 2 + 1
    (x, y), axes, _ = cv2.fitEllipse(contour)
    half = sorted((float(axis) + 1) / 2 for axis in axes)
    ellipse = np.pi * half[0] * half[1]
    is_round = half[0] > 0.5 * half[1] and _LEAST_ROUND < area / ellipse < 1 / _LEAST_ROUND
    return Outline((x + 0.5, y + 0.5), (half[0], half[1]), area) if is_round else None


def fitted_round(grey: Grey, outline: Outline, what: str) -> RoundFit:
    """Fit the edge of one outline; ScaleError names `what` and why its edge cannot be trusted."""
    centre, radius = np.asarray(outline.centre_xy, np.float64), float(np.sqrt(outline.area_px / np.pi))
    swing = np.zeros(2)
    blur = 1.0
    for reach_px in (max(4.0, 0.06 * radius), 0.0):  # once to find blur and place, once with both known
        reach = min(reach_px or 3.5 * blur + 1.5, 0.6 * radius)
        angles, steps = _sector_steps(grey, centre, radius, swing, reach, blur)
        kept = agreeing(steps)
        _check_kept(angles, kept, what)
        clean = [step for step, is_kept in zip(steps, kept, strict=True) if is_kept and step is not None]
        blur = float(np.median([step.blur for step in clean]))
        if blur > min(_MOST_BLUR_PX, 0.4 * radius):
            raise ScaleError(
                f"{what}: its edge is blurred over {blur:.1f} px (at most {_MOST_BLUR_PX:g}); focus, stop the"
                " lens down, or shorten the exposure"
            )
        at = angles[kept]
        edge = radius + swing @ np.stack([np.cos(2 * at), np.sin(2 * at)])
        edge = edge + np.array([step.position for step in clean])
        design = np.stack([np.ones_like(at), np.cos(at), np.sin(at), np.cos(2 * at), np.sin(2 * at)], axis=1)
        solution, weights = _robust_line(design, edge)
        radius, centre, swing = float(solution[0]), centre + solution[1:3], solution[3:5]
    return _round_fit(solution, weights, design, edge, centre, clean, len(steps))


def _sector_steps(
    grey: Grey, centre: Floats, radius: float, swing: Floats, reach: float, blur: float
) -> tuple[Floats, list[Step | None]]:
    """([n] mean angles, [n] steps): t is the distance beyond the outline along the ray from the centre."""
    height, width = grey.shape
    far = radius + float(np.abs(swing).sum()) + reach + 1
    x1, y1 = (max(int(c - far), 0) for c in centre)
    x2, y2 = min(int(centre[0] + far) + 2, width), min(int(centre[1] + far) + 2, height)
    y, x = np.mgrid[y1:y2, x1:x2]
    dx, dy = x.ravel() + 0.5 - centre[0], y.ravel() + 0.5 - centre[1]
    distance, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    across = distance - radius - swing[0] * np.cos(2 * angle) - swing[1] * np.sin(2 * angle)
    near = np.abs(across) < reach
    across, angle = across[near], angle[near]
    levels = grey[y1:y2, x1:x2].ravel()[near].astype(np.float64)
    count = int(np.clip(2 * np.pi * radius / _SECTOR_PX, *_SECTORS))
    sector = np.minimum(((angle + np.pi) / (2 * np.pi) * count).astype(int), count - 1)
    order = np.argsort(sector, kind="stable")
    bounds = np.searchsorted(sector[order], np.arange(count + 1))
    middles = (np.arange(count) + 0.5) / count * 2 * np.pi - np.pi
    members = [order[first:last] for first, last in pairwise(bounds)]
    return middles, [fitted_step(across[one], levels[one], blur) for one in members]


def _check_kept(angles: Floats, kept: npt.NDArray[np.bool_], what: str) -> None:
    """ScaleError when too little of the outline has a clean edge."""
    share = float(kept.mean())
    if share < _LEAST_KEPT:
        raise ScaleError(
            f"{what}: only {100 * share:.0f} % of its outline has a clean edge (at least"
            f" {100 * _LEAST_KEPT:.0f} %); remove glints, shadows and burrs: diffuse or back light"
            " shows the edge"
        )
    at = angles[kept]
    gap = float(np.max(np.diff(np.append(at, at[0] + 2 * np.pi))))
    if gap > _WIDEST_GAP:
        raise ScaleError(
            f"{what}: {np.degrees(gap):.0f} degrees of its outline in one piece have no clean edge; what is"
            " left lies at one side and does not fix a diameter"
        )


def _robust_line(design: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Least squares with Tukey's weights: ([k] solution, [n] weights)."""
    weights = np.ones(len(values))
    solution = np.linalg.lstsq(design, values, rcond=None)[0]
    for _ in range(_ROUNDS):
        left = values - design @ solution
        spread = 1.4826 * float(np.median(np.abs(left - np.median(left)))) + 1e-6
        u = np.clip(np.abs(left) / (4.685 * spread), 0, 1)
        weights = (1 - u * u) ** 2
        new = np.linalg.lstsq(design * np.sqrt(weights)[:, None], values * np.sqrt(weights), rcond=None)[0]
        done = float(np.max(np.abs(new - solution))) < 1e-6
        solution = new
        if done:
            break
    return np.asarray(solution, np.float64), weights


def _round_fit(
    solution: Floats,
    weights: Floats,
    design: Floats,
    edge: Floats,
    centre: Floats,
    clean: list[Step],
    sectors: int,
) -> RoundFit:
    """Diameter, flatness and covariance of the last fit."""
    left = edge - design @ solution
    covariance, freedom = _clustered(design, left, weights, float(solution[0]))
    radius, swing = float(solution[0]), float(np.hypot(*solution[3:5]))
    blur = float(np.median([step.blur for step in clean]))
    # a curved edge that is blurred moves towards its centre by blur^2 / (2 radius): the heat equation
    true_radius = np.sqrt(radius**2 + swing**2 / 2) + blur**2 / (2 * radius)
    used = weights > 0.1
    return RoundFit(
        diameter_px=2 * float(true_radius),
        centre_xy=(float(centre[0]), float(centre[1])),
        flatness=(radius - swing) / (radius + swing),
        residual_px=float(np.sqrt(np.mean(left[used] ** 2))),
        blur_px=blur,
        tone_px=tone_uncertainty(clean),
        covariance=covariance[:3, :3],
        freedom=freedom,
        kept=float(used.sum()) / sectors,
        is_cut=sum(step.is_cut for step in clean) * 2 > len(clean),
    )


def _clustered(
    design: Floats, left: Floats, weights: Floats, radius: float
) -> tuple[Floats, int]:
    """([k, k] covariance, independent groups): neighbours share their errors, so they count as one group.

    The jackknife: the fit without each group in turn, what it moves by, and the sum of that.
    """
    wanted = min(int(np.clip(2 * np.pi * radius / _CLUSTER_PX, *_CLUSTERS)), len(left))
    groups = np.arange(len(left)) * wanted // len(left)
    normal = (design * weights[:, None]).T @ design
    moves = []
    for group in np.unique(groups):
        rows = groups == group
        part = design[rows] * weights[rows, None]
        moves.append(np.linalg.solve(normal - part.T @ design[rows], -(part.T @ left[rows])))
    moved, count = np.stack(moves), len(moves)
    moved = moved - moved.mean(axis=0)
    return (count - 1) / count * (moved.T @ moved), count
