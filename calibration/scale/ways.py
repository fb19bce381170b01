"""The ways to a pixel scale: what was measured in the pictures becomes mm per pixel with its budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...runtime.errors import ScaleError
from .boards import Board, board_corners
from .budget import Contribution, Dimension, Distribution, widened
from .lengths import PixelLength, between_edges, between_marks, between_points
from .planes import LEAST_LENS_PICTURES, PlaneFit, check_cover, plane_from_view, plane_from_views
from .rounds import Grey, fitted_round, round_outlines

_LEAST_FLATNESS = 0.99  # a camera 8 degrees off the plane's normal
_LEAST_DIAMETER_PX = 60.0
_MOST_RESIDUAL_PX = 0.5
_PLAIN = [
    "lens distortion and perspective: one known dimension does not show them; a board takes both out",
    "the height of the inspected surface above the measured one: off by that height over the distance",
]


@dataclass(frozen=True)
class NamedPicture:
    """One picture in grey, uint8 [H, W], with its file name."""

    name: str
    grey: Grey


@dataclass(frozen=True)
class Finding:
    """What one way found: mm_per_px at the picture's centre, its budget (relative, k = 1), the residual of
    the fit (None: nothing was fitted), a row for each picture, and what the budget leaves out."""

    method: str
    mm_per_px: float
    budget: tuple[Contribution, ...]
    residual_px: float | None
    rows: tuple[dict[str, Any], ...]
    not_in_budget: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())
    plane: PlaneFit | None = None


def scale_from_diameter(pictures: Sequence[NamedPicture], dimension: Dimension) -> Finding:
    """A round part of known diameter, whole in each picture; the largest round outline is it."""
    values, rows, budgets, notes = [], [], [], []
    for picture in pictures:
        outlines = round_outlines(picture.grey, _LEAST_DIAMETER_PX)
        if not outlines:
            raise ScaleError(
                f"{picture.name}: no round part of at least {_LEAST_DIAMETER_PX:g} px lies whole in it;"
                " show it on an even ground, darker or brighter than it, and look at it straight down"
            )
        fit = fitted_round(picture.grey, outlines[0], picture.name)
        _check_round(fit.flatness, fit.residual_px, picture.name)
        swing = (1 - fit.flatness) / 2
        fitted = 2 * float(np.sqrt(fit.covariance[0, 0])) * widened(fit.freedom - 5) / fit.diameter_px
        values.append(dimension.actual_mm / fit.diameter_px)
        tone, at_blur = 2 * fit.tone_px / fit.diameter_px, f"at a blur of {fit.blur_px:.2f} px"
        budgets.append(
            [
                Contribution("fit", fitted, "normal", f"scatter of {fit.freedom} groups of edge points"),
                Contribution("edge", tone, "rectangular", f"tone curve and step model {at_blur}"),
                Contribution("tilt", swing / np.sqrt(2), "U-shaped", f"outline flat by {2 * swing:.2%}"),
            ]
        )
        if fit.is_cut:
            notes.append(f"{picture.name}: the grey levels are cut beside the edge; expose less")
        rows.append(
            {
                "name": picture.name,
                "diameter_px": fit.diameter_px,
                "centre_xy": list(fit.centre_xy),
                "flatness": fit.flatness,
                "residual_px": fit.residual_px,
                "blur_px": fit.blur_px,
                "kept_share": fit.kept,
            }
        )
    return _plain_finding("diameter", values, budgets, rows, dimension, notes)


def scale_from_length(
    method: str,
    pictures: Sequence[NamedPicture],
    dimension: Dimension,
    measured: Callable[[NamedPicture], PixelLength],
) -> Finding:
    """A known length that `measured` finds in each picture."""
    values, rows, budgets = [], [], []
    for picture in pictures:
        length = measured(picture)
        _check_round(1.0, length.residual_px or 0.0, picture.name)
        values.append(dimension.actual_mm / length.value_px)
        share = length.uncertainty_px / length.value_px
        kind: Distribution = "normal" if length.residual_px is not None else "rectangular"
        budgets.append([Contribution("length in px", share, kind, length.source)])
        rows.append(
            {"name": picture.name, "length_px": length.value_px, "residual_px": length.residual_px}
        )
    return _plain_finding(method, values, budgets, rows, dimension, [])


def length_measurer(
    *,
    points: Sequence[float] | None = None,
    tolerance_px: float = 0.5,
    edges: Sequence[float] | None = None,
    marks: Sequence[Sequence[float]] = (),
) -> Callable[[NamedPicture], PixelLength]:
    """What `scale_from_length` calls on each picture: between points, edges, or else round marks."""
    if points is not None:
        return lambda picture: between_points(points, tolerance_px)
    if edges is not None:
        return lambda picture: between_edges(picture.grey, edges, picture.name)
    return lambda picture: between_marks(picture.grey, marks, picture.name)


def scale_from_board(pictures: Sequence[NamedPicture], board: Board, dimension: Dimension) -> Finding:
    """A board in the measuring plane (the first picture); with enough pictures the lens is taken out, too."""
    height, width = pictures[0].grey.shape
    wh = (width, height)
    notes = []
    if 1 < len(pictures) < LEAST_LENS_PICTURES:
        notes.append(
            f"{len(pictures)} pictures are too few for the lens (at least {LEAST_LENS_PICTURES}): only"
            f" {pictures[0].name} is used, distortion stays in"
        )
        pictures = pictures[:1]
    board = Board(board.columns_rows, dimension.actual_mm, board.marker_mm, board.dictionary)
    views = [board_corners(picture.grey, board, picture.name) for picture in pictures]
    check_cover(views[0], wh, pictures[0].name)
    names = [picture.name for picture in pictures]
    has_lens = len(views) >= LEAST_LENS_PICTURES
    fit = plane_from_views(views, wh, names) if has_lens else plane_from_view(views[0], wh, names[0])
    value, relative = fit.centre_scale(wh)
    seen = sum(len(view.plane_mm) for view in views)
    budget = [
        Contribution("corners", relative, "normal", f"scatter of {seen} corners, carried to the centre"),
        Contribution("wave", fit.wave, "normal", "residuals that neighbouring corners share"),
        *dimension.contributions(),
    ]
    if fit.lens:
        budget.insert(2, Contribution("lens", fit.lens, "normal", "distortion that one picture shows"))
        notes.append(
            f"{names[0]}: the lens bends straight lines and makes lengths wrong by {fit.lens:.2%}, which is"
            f" in the budget; {LEAST_LENS_PICTURES} pictures or more take it out"
        )
    rows = [
        {"name": name, "corners": len(view.plane_mm), "residual_px": residual}
        for name, view, residual in zip(names, views, fit.picture_residuals_px, strict=True)
    ]
    left_out = [*dimension.unknown(), _PLAIN[1]]
    if not has_lens:
        left_out.append("lens distortion beyond the board's corners; more pictures show it")
    method = ("checkerboard" if board.marker_mm is None else "charuco") + (" with lens" if has_lens else "")
    return Finding(
        method, value, tuple(budget), fit.residual_px, tuple(rows), tuple(left_out), tuple(notes), fit
    )


def _plain_finding(
    method: str,
    values: Sequence[float],
    budgets: Sequence[Sequence[Contribution]],
    rows: Sequence[dict[str, Any]],
    dimension: Dimension,
    notes: Sequence[str],
) -> Finding:
    """The mean of the pictures; their spread is what the scale changes by over the picture."""
    budget = [
        dataclasses.replace(same[0], relative=float(np.mean([one.relative for one in same])))
        for same in zip(*budgets, strict=True)
    ]
    mean, count = float(np.mean(values)), len(values)
    if count > 1:
        spread = float(np.std(values, ddof=1)) / mean * np.sqrt(1 + 1 / count) * widened(count - 1)
        budget.append(Contribution("place", float(spread), "normal", f"spread of {count} pictures"))
    residuals = [row["residual_px"] for row in rows if row["residual_px"] is not None]
    return Finding(
        method,
        mean,
        (*budget, *dimension.contributions()),
        float(np.sqrt(np.mean(np.square(residuals)))) if residuals else None,
        tuple(rows),
        (*dimension.unknown(), *_PLAIN),
        tuple(notes),
    )


def _check_round(flatness: float, residual_px: float, what: str) -> None:
    """ScaleError for an outline that one factor cannot describe."""
    if flatness < _LEAST_FLATNESS:
        raise ScaleError(
            f"{what}: the outline is {1 - flatness:.1%} flatter one way than the other (at most"
            f" {1 - _LEAST_FLATNESS:.0%}): the camera is about {np.degrees(np.arccos(flatness)):.0f}"
            " degrees off the vertical, or the part is not round; level the camera, or use a board"
            " (--charuco, --checkerboard), which takes perspective out"
        )
    if residual_px > _MOST_RESIDUAL_PX:
        raise ScaleError(
            f"{what}: the edge misses its shape by {residual_px:.2f} px, at most {_MOST_RESIDUAL_PX:g}:"
            " burrs, a part that is not round or straight, or lens distortion; use a clean part, or a board"
        )
