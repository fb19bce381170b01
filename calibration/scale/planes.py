"""From a board's corners to the measuring plane: perspective, and with enough pictures the lens, too.

Both fits give the flat parameters of `PixelScale` with their whole covariance: what the corners' scatter in
px makes of every length in mm follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from ...runtime.errors import ScaleError
from ...runtime.judge.scale import Floats, Matrix, mapped_points, slopes_of
from .boards import Corners
from .budget import widened
from .lens import lens_left_in

LEAST_LENS_PICTURES = 5
MOST_RESIDUAL_PX = 0.6  # root mean square over both coordinates' distance
_LEAST_COVER = 0.1  # of the picture's area, by the corners' hull
_MOST_FOCAL_SHARE = 0.01  # standard uncertainty of the focal length: beyond it the tilts did not differ


@dataclass(frozen=True)
class PlaneFit:
    """The map of the measuring plane. parameters and covariance as in `PixelScale`; residual_px: root mean
    square distance of the corners of the plane's picture; wave: relative standard uncertainty of lengths from
    residuals that are alike in neighbouring corners (lens distortion, a bent board); picture_residuals_px: of
    every picture that was used; distance_mm: of the camera from the plane, where the lens is known. lens:
    relative standard uncertainty of lengths from a lens that is seen and not taken out; 0 for none.
    """

    parameters: Floats
    covariance: Floats
    residual_px: float
    wave: float
    picture_residuals_px: tuple[float, ...]
    distance_mm: float | None = None
    lens: float = 0.0

    @property
    def homography(self) -> Matrix:
        """[3, 3] rows, the last entry 1."""
        rows = np.append(self.parameters[:8], 1.0).reshape(3, 3).tolist()
        return tuple(tuple(row) for row in rows)

    @property
    def camera_matrix(self) -> Matrix | None:
        """[3, 3] rows, or None without a lens."""
        if len(self.parameters) == 8:
            return None
        fx, fy, cx, cy = (float(value) for value in self.parameters[8:12])
        return ((fx, 0.0, cx), (0.0, fy, cy), (0.0, 0.0, 1.0))

    @property
    def distortion(self) -> tuple[float, ...]:
        """k1, k2, p1, p2, k3; empty without a lens."""
        return tuple(float(value) for value in self.parameters[12:])

    def centre_scale(self, picture_wh: tuple[int, int]) -> tuple[float, float]:
        """(mm per px at the picture's centre, its relative standard uncertainty by the covariance)."""

        def scale(parameters: Floats) -> Floats:
            centre = np.array(picture_wh) / 2
            around = centre + np.array([[-0.5, 0], [0.5, 0], [0, -0.5], [0, 0.5]])
            left, right, up, down = mapped_points(around, parameters, with_camera=len(parameters) > 8)
            (a, b), (c, d) = right - left, down - up
            return np.array([np.sqrt(abs(a * d - b * c))])

        value = float(scale(self.parameters)[0])
        slope = slopes_of(scale, self.parameters, np.sqrt(np.diag(self.covariance)) / 100)[0]
        return value, float(np.sqrt(max(slope @ self.covariance @ slope, 0.0))) / value


def check_cover(corners: Corners, picture_wh: tuple[int, int], what: str) -> None:
    """ScaleError when the corners lie at one side of the picture or cover too little of it."""
    hull = cv2.convexHull(corners.picture_xy.astype(np.float32))
    share = float(cv2.contourArea(hull)) / (picture_wh[0] * picture_wh[1])
    centre = (picture_wh[0] / 2, picture_wh[1] / 2)
    if share < _LEAST_COVER or cv2.pointPolygonTest(hull, centre, False) < 0:
        where = "lie at one side" if share >= _LEAST_COVER else "cover too little"
        raise ScaleError(
            f"{what}: the board's corners {where} of the picture ({100 * share:.0f} % of its area, at"
            f" least {100 * _LEAST_COVER:.0f} % and around its centre); put the board where the parts lie,"
            " and use one that fills most of the picture"
        )


def plane_from_view(corners: Corners, picture_wh: tuple[int, int], what: str) -> PlaneFit:
    """The homography of one picture; ScaleError when it does not fit a flat board."""
    size = float(max(picture_wh))
    middle = corners.plane_mm.mean(axis=0)
    extent = float(np.abs(corners.plane_mm - middle).max())
    plane = (corners.plane_mm - middle) / extent  # about -1 to 1, and so is the picture: well conditioned
    picture = (corners.picture_xy - np.array(picture_wh) / 2) / size
    start = cv2.findHomography(plane, picture, cv2.RANSAC, 5.0 / size)[0]
    if start is None:
        raise ScaleError(f"{what}: its corners do not lie on a plane; use a flat, stiff board")

    def seen(theta: Floats) -> Floats:
        return mapped_points(plane, theta, with_camera=False).ravel()

    theta = np.asarray(start, np.float64).ravel()[:8] / start[2, 2]
    for _ in range(10):
        slope = slopes_of(seen, theta, np.full(8, 1e-6))
        theta = theta + np.linalg.lstsq(slope, picture.ravel() - seen(theta), rcond=None)[0]
    left = (picture.ravel() - seen(theta)).reshape(-1, 2) * size
    slope = slopes_of(seen, theta, np.full(8, 1e-6)) * size
    freedom = left.size - 8
    covariance = np.linalg.inv(slope.T @ slope) * float(np.sum(left**2)) / freedom * widened(freedom) ** 2

    def to_scale(values: Floats) -> Floats:
        forward = np.append(values, 1.0).reshape(3, 3)
        x, y = middle / extent
        into = np.array([[1 / extent, 0, -x], [0, 1 / extent, -y], [0, 0, 1]])
        out = np.array([[size, 0, picture_wh[0] / 2], [0, size, picture_wh[1] / 2], [0, 0, 1]])
        return _aligned(np.linalg.inv(out @ forward @ into), picture_wh)

    carried = slopes_of(to_scale, theta, np.sqrt(np.diag(covariance)) / 100)
    residual = _checked_residual(left, what, is_lens_known=False)
    lens, shared = 0.0, left
    if (bent := lens_left_in(plane, picture, theta, np.array(picture_wh) / size)) is not None:
        lens, shared = bent[0], bent[1] * size
    return PlaneFit(
        to_scale(theta),
        carried @ covariance @ carried.T,
        residual,
        _wave(corners, shared),
        (residual,),
        lens=lens,
    )


def plane_from_views(
    views: Sequence[Corners], picture_wh: tuple[int, int], names: Sequence[str]
) -> PlaneFit:
    """Lens and plane from several pictures, the measuring plane in the first; ScaleError when they do not do.

    Distortion k1, k2, p1, p2; k3 stays 0, it needs corners nearer to the picture's edge than boards have.
    """
    solids = [np.column_stack([view.plane_mm, np.zeros(len(view.plane_mm))]) for view in views]
    try:
        _, matrix, bend, turns, shifts = cv2.calibrateCamera(
            [solid.astype(np.float32) for solid in solids],
            [(view.picture_xy - 0.5).astype(np.float32) for view in views],
            picture_wh,
            None,
            None,
            flags=cv2.CALIB_FIX_K3,
        )
    except cv2.error as error:
        raise ScaleError(
            f"the lens cannot be found from these {len(views)} pictures ({error.err}); tilt the board by 20"
            " to 40 degrees, differently in each but the first"
        ) from None
    bend = np.resize(np.append(np.ravel(bend), np.zeros(5)), 5)
    normal, fixed, errors = _normal_equations(views, solids, matrix, bend, turns, shifts)
    freedom = sum(left.size for left in errors) - 8 - 6 * len(views)
    variance = sum(float(np.sum(left**2)) for left in errors) / max(freedom, 1)
    try:
        covariance = np.linalg.inv(normal) * variance * widened(freedom) ** 2
    except np.linalg.LinAlgError:
        covariance = np.full(normal.shape, np.inf)
    share = float(np.sqrt(covariance[0, 0])) / matrix[0, 0]
    if not share < _MOST_FOCAL_SHARE:
        raise ScaleError(
            f"the focal length is known to {100 * share:.1f} % only (at most {100 * _MOST_FOCAL_SHARE:g} %):"
            f" the board lies almost alike in these {len(views)} pictures; tilt it by 20 to 40 degrees,"
            " differently in each but the first"
        )
    residuals = tuple(
        _checked_residual(left, name, is_lens_known=True) for left, name in zip(errors, names, strict=True)
    )
    to_scale = _scale_of_pose(picture_wh)
    carried = slopes_of(to_scale, fixed, np.sqrt(np.diag(covariance)) / 100)
    return PlaneFit(
        to_scale(fixed),
        carried @ covariance @ carried.T,
        residuals[0],
        _wave(views[0], errors[0]),
        residuals,
        distance_mm=float(np.linalg.norm(shifts[0])),
    )


def _normal_equations(
    views: Sequence[Corners],
    solids: Sequence[Floats],
    matrix: Any,
    bend: Any,
    turns: Sequence[Any],
    shifts: Sequence[Any],
) -> tuple[Floats, Floats, list[Floats]]:
    """([14, 14] for fx, fy, cx, cy, k1, k2, p1, p2 and the first pose, the others' poses eliminated; their
    [14] values, cx and cy for pixel centres at + 0.5; [n, 2] residuals of each picture)."""
    normal, errors = np.zeros((14, 14)), []
    for index, (view, solid) in enumerate(zip(views, solids, strict=True)):
        seen, slopes = cv2.projectPoints(solid, turns[index], shifts[index], matrix, bend)
        errors.append(view.picture_xy - 0.5 - np.asarray(seen, np.float64).reshape(-1, 2))
        pose, lens = slopes[:, :6], slopes[:, 6:14]
        if index == 0:
            whole = np.concatenate([lens, pose], axis=1)
            normal += whole.T @ whole
        else:
            cross = lens.T @ pose
            normal[:8, :8] += lens.T @ lens - cross @ np.linalg.solve(pose.T @ pose, cross.T)
    camera = [matrix[0, 0], matrix[1, 1], matrix[0, 2] + 0.5, matrix[1, 2] + 0.5]
    return normal, np.concatenate([camera, bend[:4], np.ravel(turns[0]), np.ravel(shifts[0])]), errors


def _scale_of_pose(picture_wh: tuple[int, int]) -> Callable[[Floats], Floats]:
    """From the [14] values of camera and pose to the [17] parameters of `PixelScale`."""

    def parameters(values: Floats) -> Floats:
        fx, fy, cx, cy = values[:4]
        rotation = cv2.Rodrigues(np.ascontiguousarray(values[8:11]))[0]
        camera = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
        forward = camera @ np.column_stack([rotation[:, 0], rotation[:, 1], values[11:14]])
        plane = _aligned(np.linalg.inv(forward), picture_wh)
        return np.concatenate([plane, values[:8], [0.0]])

    return parameters


def _aligned(homography: Floats, picture_wh: tuple[int, int]) -> Floats:
    """[8] of a homography from picture to plane, the plane turned, mirrored and moved so that its axes lie
    along the picture's at the centre: lengths stay, orientations become those of the picture."""
    flat = homography.ravel() / homography[2, 2]
    centre = np.array(picture_wh, np.float64) / 2
    step = 0.5
    around = centre + np.array([[-step, 0], [step, 0], [0, -step], [0, step], [0, 0]])
    left, right, up, down, middle = mapped_points(around, flat[:8], with_camera=False)
    slope = np.column_stack([right - left, down - up])
    u, _, v = np.linalg.svd(slope)
    turn = (u @ v).T
    moved = np.sqrt(abs(np.linalg.det(slope))) * centre - turn @ middle
    rigid = np.eye(3)
    rigid[:2, :2], rigid[:2, 2] = turn, moved
    result = rigid @ flat.reshape(3, 3)
    return np.asarray((result / result[2, 2]).ravel()[:8], np.float64)


def _checked_residual(left: Floats, what: str, *, is_lens_known: bool) -> float:
    """Root mean square distance of [n, 2] residuals in px; ScaleError when it is too large."""
    residual = float(np.sqrt(np.mean(np.sum(left**2, axis=1))))
    if residual > MOST_RESIDUAL_PX:
        remedy = (
            "the board is bent, a corner is wrong, or a picture is blurred"
            if is_lens_known
            else f"the lens bends straight lines (give {LEAST_LENS_PICTURES} pictures or more, the board"
            " tilted differently in each but the first), or the board is not flat, or has other rows and"
            " columns"
        )
        raise ScaleError(
            f"{what}: the corners miss a flat board by {residual:.2f} px, at most {MOST_RESIDUAL_PX:g}:"
            f" {remedy}"
        )
    return residual


def _wave(corners: Corners, left: Floats) -> float:
    """Relative standard uncertainty of lengths from the part of the residuals that neighbours share.

    That part, as a wave over the board: its amplitude times 2 pi over its length. Noise, which is not shared,
    is half the variance of the differences of neighbours.
    """
    apart = np.linalg.norm(corners.plane_mm[:, None] - corners.plane_mm[None], axis=2)
    pitch = float(np.min(apart[apart > 0]))
    first, second = np.nonzero(np.triu(np.isclose(apart, pitch)))
    noise = float(np.mean((left[first] - left[second]) ** 2)) / 2
    shared = max(float(np.mean(left**2)) - noise, 0.0)
    extent = float(np.ptp(corners.picture_xy, axis=0).min())
    return float(2 * np.pi * np.sqrt(shared) / extent)
