"""Pictures of discs, marks and boards through a known camera: synthetic renders with a known truth.

A view takes points of the measuring plane (mm) to picture points (pixel centres at integer + 0.5) through
perspective and lens distortion. A picture is the mean of 64 samples a pixel, blurred, taken through a tone
curve, with noise, in 256 grey levels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Picture = npt.NDArray[np.uint8]
Pattern = Callable[[Floats, Floats], Floats]
"""Reflectance 0 to 1 at plane points x, y in mm."""

SAMPLES = 64
"""A pixel: a lattice that has each of its x and each of its y once, thrown anew for every pixel, so that an
edge along the rows is not rounded to a part of a pixel."""


@dataclass(frozen=True)
class KnownView:
    """A camera above the measuring plane; the truth that a calibration is held against.

    focal_px: focal length; distance_mm: along the optical axis to the plane; tilt_xy: rotation of the plane
    about the camera's x and y axes and spin about its own normal, radians; shift_mm: the plane's origin.
    """

    size_wh: tuple[int, int] = (640, 480)
    focal_px: float = 1500.0
    distance_mm: float = 400.0
    tilt_xy: tuple[float, float] = (0.0, 0.0)
    spin: float = 0.0
    shift_mm: tuple[float, float] = (0.0, 0.0)
    distortion: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    def rotation(self) -> Floats:
        """[3, 3] from the plane's axes to the camera's."""
        around_x, around_y, around_z = (
            cv2.Rodrigues(np.array(axis, np.float64))[0]
            for axis in ([self.tilt_xy[0], 0, 0], [0, self.tilt_xy[1], 0], [0, 0, self.spin])
        )
        return np.asarray(around_x @ around_y @ around_z, np.float64)

    def picture_points(self, plane_xy: npt.ArrayLike) -> Floats:
        """[n, 2] plane points in mm as picture points."""
        plane = np.asarray(plane_xy, np.float64).reshape(-1, 2)
        solid = np.concatenate([plane, np.zeros((len(plane), 1))], axis=1)
        seen = solid @ self.rotation().T + np.array([*self.shift_mm, self.distance_mm])
        a, b = seen[:, 0] / seen[:, 2], seen[:, 1] / seen[:, 2]
        k1, k2, p1, p2, k3 = self.distortion
        r2 = a * a + b * b
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        bent_a = a * radial + 2 * p1 * a * b + p2 * (r2 + 2 * a * a)
        bent_b = b * radial + p1 * (r2 + 2 * b * b) + 2 * p2 * a * b
        width, height = self.size_wh
        return np.stack([bent_a * self.focal_px + width / 2, bent_b * self.focal_px + height / 2], axis=1)

    def plane_points(self, picture_xy: npt.ArrayLike) -> Floats:
        """[n, 2] picture points as plane points in mm: the inverse of `picture_points`."""
        picture = np.asarray(picture_xy, np.float64).reshape(-1, 2)
        width, height = self.size_wh
        bent = (picture - [width / 2, height / 2]) / self.focal_px
        straight = bent.copy()
        k1, k2, p1, p2, k3 = self.distortion
        for _ in range(30 if any(self.distortion) else 0):
            a, b = straight[:, 0], straight[:, 1]
            r2 = a * a + b * b
            radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
            straight = np.stack(
                [
                    (bent[:, 0] - 2 * p1 * a * b - p2 * (r2 + 2 * a * a)) / radial,
                    (bent[:, 1] - p1 * (r2 + 2 * b * b) - 2 * p2 * a * b) / radial,
                ],
                axis=1,
            )
        rays = np.concatenate([straight, np.ones((len(straight), 1))], axis=1)
        rotation, origin = self.rotation(), np.array([*self.shift_mm, self.distance_mm])
        depth = (rotation[:, 2] @ origin) / (rays @ rotation[:, 2])
        return np.asarray(((rays * depth[:, None] - origin) @ rotation)[:, :2], np.float64)


@dataclass(frozen=True)
class Exposure:
    """How light becomes grey levels. blur_px: standard deviation of the optics' blur; gamma: tone curve."""

    dark: float = 40.0
    bright: float = 210.0
    blur_px: float = 1.0
    noise: float = 2.0
    gamma: float = 1.0


def disc(diameter_mm: float, centre_mm: tuple[float, float] = (0.0, 0.0)) -> Pattern:
    """A dark round part on a bright ground."""
    x0, y0 = centre_mm
    return lambda x, y: (np.hypot(x - x0, y - y0) > diameter_mm / 2).astype(np.float64)


def marks(distance_mm: float, diameter_mm: float) -> Pattern:
    """Two dark round fiducials, `distance_mm` apart along x."""
    left, right = disc(diameter_mm, (-distance_mm / 2, 0.0)), disc(diameter_mm, (distance_mm / 2, 0.0))
    return lambda x, y: left(x, y) * right(x, y)


def bar(width_mm: float, height_mm: float) -> Pattern:
    """A dark bar, `width_mm` from edge to edge along x."""
    return lambda x, y: 1.0 - ((np.abs(x) < width_mm / 2) & (np.abs(y) < height_mm / 2)).astype(np.float64)


def checkerboard(inner: tuple[int, int], square_mm: float) -> Pattern:
    """A board with `inner` corners across and down, on a bright ground, its middle at the plane's origin."""
    columns, rows = inner[0] + 1, inner[1] + 1

    def reflectance(x: Floats, y: Floats) -> Floats:
        column, row = np.floor(x / square_mm + columns / 2), np.floor(y / square_mm + rows / 2)
        on_board = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        return 1.0 - (on_board & ((column + row) % 2 == 0)).astype(np.float64)

    return reflectance


def charuco(squares: tuple[int, int], square_mm: float, marker_mm: float, dictionary: str) -> Pattern:
    """A ChArUco board as OpenCV draws it, on a bright ground, its middle at the plane's origin."""
    cells = 100  # pixels of the drawing a square, a multiple of what the markers' cells take
    board = cv2.aruco.CharucoBoard(
        squares,
        square_mm,
        marker_mm,
        cv2.aruco.getPredefinedDictionary(getattr(cv2.aruco, dictionary)),
    )
    drawn = board.generateImage((squares[0] * cells, squares[1] * cells), marginSize=0) > 127
    height, width = drawn.shape

    def reflectance(x: Floats, y: Floats) -> Floats:
        column = np.floor((x / square_mm + squares[0] / 2) * cells).astype(np.int64)
        row = np.floor((y / square_mm + squares[1] / 2) * cells).astype(np.int64)
        on_board = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        found = drawn[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return np.where(on_board, found, True).astype(np.float64)

    return reflectance


def rendered(
    view: KnownView, pattern: Pattern, exposure: Exposure, seed: int, glints: int = 0
) -> Picture:
    """The picture, uint8 [H, W]; `glints`: bright blots thrown over the plane's outlines."""
    generator = np.random.default_rng(seed)
    light = _light(view, pattern, generator)
    for _ in range(glints):
        _add_glint(light, generator)
    if exposure.blur_px > 0:
        light = np.asarray(cv2.GaussianBlur(light, (0, 0), exposure.blur_px), np.float64)
    linear = (exposure.dark + (exposure.bright - exposure.dark) * light) / 255
    grey = 255 * np.clip(linear, 0, 1) ** (1 / exposure.gamma)
    grey = grey + generator.normal(0, exposure.noise, grey.shape) if exposure.noise else grey
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _light(view: KnownView, pattern: Pattern, generator: np.random.Generator) -> Floats:
    """[H, W] mean reflectance of each pixel; only pixels that an outline crosses are sampled finely."""
    width, height = view.size_wh
    corner_y, corner_x = np.mgrid[0 : height + 1, 0 : width + 1].astype(np.float64)
    plane = view.plane_points(np.stack([corner_x.ravel(), corner_y.ravel()], axis=1))
    corners = pattern(plane[:, 0], plane[:, 1]).reshape(height + 1, width + 1)
    grid = plane.reshape(height + 1, width + 1, 2)
    stacked = np.stack([corners[:-1, :-1], corners[:-1, 1:], corners[1:, :-1], corners[1:, 1:]])
    light = stacked.mean(axis=0)
    mixed = (stacked.max(axis=0) != stacked.min(axis=0)).astype(np.uint8)
    rows, columns = np.nonzero(cv2.dilate(mixed, np.ones((3, 3), np.uint8)))
    thrown_x, thrown_y = generator.random((2, len(rows)))
    # inside one pixel the view is bilinear to a millionth of a pixel
    start, right, down, far = (
        grid[rows + dy, columns + dx] for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1))
    )
    along, below, twist = right - start, down - start, far - right - down + start
    total = np.zeros(len(rows))
    for index in range(SAMPLES):
        dx, dy = (thrown_x + index / SAMPLES) % 1, (thrown_y + index * 27 / SAMPLES) % 1
        points = start + along * dx[:, None] + below * dy[:, None] + twist * (dx * dy)[:, None]
        total += pattern(points[:, 0], points[:, 1])
    light[rows, columns] = total / SAMPLES
    return light


def _add_glint(light: Floats, generator: np.random.Generator) -> None:
    """A bright ellipse somewhere on an outline, in place."""
    rows, columns = np.nonzero(np.abs(np.diff(light, axis=1)) > 0.3)
    at = int(generator.integers(len(rows)))
    axes = (int(generator.integers(4, 16)), int(generator.integers(2, 8)))
    angle = float(generator.uniform(0, 180))
    cv2.ellipse(light, (int(columns[at]), int(rows[at])), axes, angle, 0, 360, 1.2, -1)
