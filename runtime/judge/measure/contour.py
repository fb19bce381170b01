"""The outline of a level in a field: sub-pixel points, area, perimeter without a staircase."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

# Marching squares. A cell has the corners 0 top left, 1 top right, 2 bottom right, 3 bottom left; edge n
# joins corner n and the next. Per case (bit n set: corner n is inside) the segments from edge to edge, inside
# on the right. A row is (from, to, from, to); a case of one segment has no second one: 0, 0.
_SEGMENTS = np.array(
    [
        *((0, 0, 0, 0), (3, 0, 0, 0), (0, 1, 0, 0), (3, 1, 0, 0), (1, 2, 0, 0), (3, 0, 1, 2), (0, 2, 0, 0)),
        *((3, 2, 0, 0), (2, 3, 0, 0), (2, 0, 0, 0), (0, 1, 2, 3), (2, 1, 0, 0), (1, 3, 0, 0), (1, 0, 0, 0)),
        *((0, 3, 0, 0), (0, 0, 0, 0)),
    ]
)
_FIRST_XY = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])  # an edge's first corner
_STEP_XY = np.roll(_FIRST_XY, -1, axis=0) - _FIRST_XY


@dataclass(frozen=True)
class Outline:
    """The line where a field crosses a level; coordinates have pixel centres at integer + 0.5.

    `points_xy` float64 [n, 2], unordered; area in px2, perimeter in px; holes are taken off the area and
    counted in the perimeter.
    """

    points_xy: npt.NDArray[np.float64]
    area_px: float
    perimeter_px: float


def outline_of_level(field: npt.NDArray[np.float32], level: float) -> Outline | None:
    """The outline of `field` [h, w] > `level`, interpolated linearly between pixel centres; None if empty.

    What is above the level at the field's edge is closed there, half a pixel outside the last pixel centre.
    """
    inner = field > level
    down, across = np.flatnonzero(inner.any(axis=1)), np.flatnonzero(inner.any(axis=0))
    if down.size == 0:
        return None
    top, left = max(int(down[0]) - 1, 0), max(int(across[0]) - 1, 0)
    field = field[top : int(down[-1]) + 2, left : int(across[-1]) + 2]
    above = np.asarray(cv2.copyMakeBorder(field - np.float32(level), 1, 1, 1, 1, cv2.BORDER_CONSTANT))
    # A closed edge lies at the pixel's border: the value outside mirrors the one inside.
    above[0], above[-1] = -np.abs(above[1]), -np.abs(above[-2])
    above[:, 0], above[:, -1] = -np.abs(above[:, 1]), -np.abs(above[:, -2])
    inside = (above > 0).astype(np.uint8)
    cases = inside[:-1, :-1] + 2 * inside[:-1, 1:] + 4 * inside[1:, 1:] + 8 * inside[1:, :-1]
    rows, columns = np.nonzero((cases > 0) & (cases < 15))
    if rows.size == 0:
        return None
    corners = np.stack(
        [
            above[rows, columns],
            above[rows, columns + 1],
            above[rows + 1, columns + 1],
            above[rows + 1, columns],
        ],
        axis=1,
    )
    following = np.roll(corners, -1, axis=1)
    apart = corners - following
    share = np.clip(corners / np.where(apart == 0, 1.0, apart), 0.0, 1.0)  # [cells, 4]: where crossed
    crossings_x = columns[:, None] + (left - 0.5) + _FIRST_XY[:, 0] + share * _STEP_XY[:, 0]
    crossings_y = rows[:, None] + (top - 0.5) + _FIRST_XY[:, 1] + share * _STEP_XY[:, 1]
    edges = _SEGMENTS[cases[rows, columns]]  # [cells, 4]
    x, y = np.take_along_axis(crossings_x, edges, 1), np.take_along_axis(crossings_y, edges, 1)
    two = edges[:, 2] != edges[:, 3]  # cells with a second segment
    start_x, end_x = np.append(x[:, 0], x[two, 2]), np.append(x[:, 1], x[two, 3])
    start_y, end_y = np.append(y[:, 0], y[two, 2]), np.append(y[:, 1], y[two, 3])
    area = 0.5 * abs(float(start_x @ end_y - end_x @ start_y))
    perimeter = float(np.hypot(end_x - start_x, end_y - start_y).sum())
    return Outline(np.stack([start_x, start_y], axis=1), area, perimeter)


def smallest_rectangle(
    points_xy: npt.NDArray[np.float64],
) -> tuple[float, float, float, npt.NDArray[np.float64]]:
    """Longer and shorter side, direction of the longer one in degrees, corners [4, 2], around the points.

    The direction is measured from the x axis towards the y axis (down), from 0 up to 180.
    """
    middle = points_xy.mean(axis=0)  # float32 inside OpenCV: keep the numbers small
    around = cv2.minAreaRect((points_xy - middle).astype(np.float32))
    (_, (first, second), angle) = around
    degrees = (angle if first >= second else angle + 90.0) % 180.0
    corners = cv2.boxPoints(around).astype(np.float64) + middle
    return float(max(first, second)), float(min(first, second)), float(degrees), corners


def rectangle_spread(points_xy: npt.NDArray[np.float64], tolerance: float) -> tuple[float, float]:
    """How far length and width may range among rectangles that are nearly the smallest, in px.

    Nearly: an area up to (1 + `tolerance`) times the smallest. A round or square shape has many such
    rectangles, a long one has none but its own.
    """
    hull = cv2.convexHull((points_xy - points_xy.mean(axis=0)).astype(np.float32))[:, 0, :]
    turns = np.radians(np.arange(0.0, 90.0, 3.0))
    along = hull @ np.stack([np.cos(turns), np.sin(turns)])  # [hull, turns]
    aside = hull @ np.stack([-np.sin(turns), np.cos(turns)])
    first, second = np.ptp(along, axis=0), np.ptp(aside, axis=0)
    areas = first * second
    near = areas <= (1.0 + tolerance) * float(areas.min())
    lengths, widths = np.maximum(first, second)[near], np.minimum(first, second)[near]
    return float(np.ptp(lengths)), float(np.ptp(widths))
