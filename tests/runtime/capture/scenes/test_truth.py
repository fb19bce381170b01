"""Millimetres from masks, against rectangles of known size."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture.scenes import MM_PER_PX
from orinspect.runtime.capture.scenes.truth import defect_from_changes, sides_of_mask


def test_an_upright_rectangle_measures_what_was_drawn() -> None:
    changed = np.zeros((50, 60), bool)
    changed[10:18, 20:44] = True
    defect = defect_from_changes("open", changed, 0.02, origin_xy=(100, 200))
    assert defect.bbox_xyxy == (120, 210, 144, 218)
    assert defect.mask.shape == (8, 24) and defect.mask.all()
    assert math.isclose(defect.length_mm, 24 * 0.02, rel_tol=1e-6)
    assert math.isclose(defect.width_mm, 8 * 0.02, rel_tol=1e-6)
    assert math.isclose(defect.area_mm2, 24 * 8 * 0.02 * 0.02, rel_tol=1e-9)


def test_a_turned_rectangle_keeps_its_sides_within_the_pixel_grid() -> None:
    canvas = np.zeros((120, 120), np.uint8)
    corners = cv2.boxPoints(((60.0, 60.0), (60.0, 16.0), 30.0))
    cv2.fillPoly(canvas, [np.round(corners * 16).astype(np.int32)], (1,), cv2.LINE_8, 4)
    length, width = sides_of_mask(canvas > 0)
    # Whole pixels cover the rectangle: up to one pixel's diagonal more on either axis.
    assert 60.0 <= length <= 60.0 + 2 * math.sqrt(2)
    assert 16.0 <= width <= 16.0 + 2 * math.sqrt(2)


def test_area_counts_the_mask_and_not_its_box() -> None:
    changed = np.eye(10, dtype=bool)
    defect = defect_from_changes("spur", changed, 1.0)
    assert defect.area_mm2 == 10.0
    assert math.isclose(defect.length_mm, 9.5 * math.sqrt(2), rel_tol=1e-3)  # the diagonal cuts its ends


def test_a_change_of_no_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="spur"):
        defect_from_changes("spur", np.zeros((5, 5), bool), MM_PER_PX)
