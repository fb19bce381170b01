"""The outline of a level: area, perimeter and sides without a staircase."""

from __future__ import annotations

import math

import numpy as np
import pytest

from orinspect.runtime.judge.measure.contour import outline_of_level, rectangle_spread, smallest_rectangle


def _distance_field(radius: float) -> np.ndarray:
    y, x = np.mgrid[0:60, 0:60] + 0.5
    return np.asarray(radius - np.hypot(x - 30.3, y - 29.1), np.float32)


@pytest.mark.parametrize("radius", [4.0, 9.0, 20.0])
def test_a_circle_keeps_area_perimeter_and_diameter(radius: float) -> None:
    outline = outline_of_level(_distance_field(radius), 0.0)
    assert outline is not None
    assert outline.area_px == pytest.approx(math.pi * radius**2, rel=0.02)
    assert outline.perimeter_px == pytest.approx(2 * math.pi * radius, rel=0.01)
    length, width, _, _ = smallest_rectangle(outline.points_xy)
    assert (length, width) == pytest.approx((2 * radius, 2 * radius), abs=0.1)


def test_an_upright_rectangle_of_pixels_is_as_large_as_its_pixels() -> None:
    field = np.zeros((20, 24), np.float32)
    field[3:9, 5:20] = 1.0
    outline = outline_of_level(field, 0.5)
    assert outline is not None
    length, width, degrees, corners = smallest_rectangle(outline.points_xy)
    assert (length, width, degrees) == pytest.approx((15, 6, 0), abs=1e-6)
    assert corners.min(axis=0) == pytest.approx((5, 3)) and corners.max(axis=0) == pytest.approx((20, 9))


def test_what_reaches_the_edge_is_closed_there_and_a_hole_is_taken_off() -> None:
    field = np.ones((10, 12), np.float32)
    whole = outline_of_level(field, 0.5)
    field[4:6, 4:6] = 0.0
    holed = outline_of_level(field, 0.5)
    assert whole is not None and holed is not None
    assert whole.area_px == pytest.approx(120, abs=0.6)
    assert whole.area_px - holed.area_px == pytest.approx(4, abs=0.6)
    assert outline_of_level(np.zeros((9, 9), np.float32), 0.5) is None


def test_only_a_round_shape_has_many_smallest_rectangles() -> None:
    square = np.array([[0, 0], [20, 0], [20, 20], [0, 20]], np.float64)
    assert max(rectangle_spread(square, 0.02)) < 0.6
    turns = np.linspace(0, 2 * math.pi, 90)
    oval = np.stack([10.4 * np.cos(turns), 10 * np.sin(turns)], axis=1)
    assert rectangle_spread(oval, 0.03)[0] > 0.3
