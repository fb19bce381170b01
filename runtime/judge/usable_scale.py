"""Which pixel scale a picture is measured with: the site's, the recipe's or the frame's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..recipe import Recipe
from ..report import ReportScale
from .scale import COVERAGE_FACTOR, PixelScale, plain_scale, scale_problem

if TYPE_CHECKING:
    from ..capture.frame import Frame


@dataclass(frozen=True)
class UsableScale:
    """The scale of one picture, or why it has none.

    is_refused: there is one and it must not be used; is_spread_known: how far it can be trusted is known.
    """

    scale: PixelScale | None
    why_not: str = "not_calibrated"
    is_refused: bool = False
    is_spread_known: bool = False


def scale_of(frame: Frame, site: PixelScale | None, recipe: Recipe, camera_id: str) -> UsableScale:
    """The site's scale, else the recipe's, else the frame's own; an expired or foreign one replaces none."""
    if site is not None:
        height, width = frame.image.shape[:2]
        problem = scale_problem(
            site, unix_s=frame.captured_at, camera_id=camera_id, picture_wh=(width, height)
        )
        if problem is not None:
            return UsableScale(None, problem, is_refused=True)
        return UsableScale(site, is_spread_known=True)
    given = recipe.scale
    if given.mm_per_px is not None:
        spread = given.standard_uncertainty_mm_per_px
        return UsableScale(plain_scale(given.mm_per_px, spread or 0.0), is_spread_known=spread is not None)
    if frame.mm_per_px is not None:  # a scene, drawn to scale
        return UsableScale(plain_scale(frame.mm_per_px), is_spread_known=True)
    return UsableScale(None)


def scale_in_report(usable: UsableScale) -> ReportScale:
    """The scale as the report carries it; its uncertainty is null where nobody stated one."""
    scale = usable.scale
    if scale is None:
        return ReportScale(None)
    is_stated = scale.standard_uncertainty > 0 or scale.calibration_id is not None
    return ReportScale(
        mm_per_px=scale.mm_per_px,
        expanded_uncertainty=scale.expanded_uncertainty if is_stated else None,
        k=COVERAGE_FACTOR if is_stated else None,
        calibration_id=scale.calibration_id,
        calibrated_at=scale.calibrated_at,
        expires_at=scale.expires_at,
    )
