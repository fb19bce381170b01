"""Where a part differs from its template: registration cell by cell, a tolerance band, clusters of pixels.

Tiles are then centred on the clusters, so the network meets a defect where it has always met one, and a part
costs as many tiles as it has differences instead of a whole grid.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from .register import template_tile, window_at

ByteArray = npt.NDArray[np.uint8]
MaskArray = npt.NDArray[np.bool_]
BoxInt = tuple[int, int, int, int]

CELL_PX = 64
"""Cells are registered one by one, each with a margin of half a cell around it."""

BAND_PX = 1
"""An edge may lie this far off on either side without being a difference."""

JOIN_PX = 9
"""Differing pixels closer than this belong to one cluster."""


def clusters_of_differences(
    template: ByteArray, part: ByteArray, difference: float, min_pixels: int, max_shift_px: int
) -> list[BoxInt]:
    """Tight boxes x1, y1, x2, y2 (exclusive) of the clusters of pixels that differ, top first, then left.

    template, part: [H, W] uint8, registered as a whole; `difference` in grey levels beyond the tolerance
    band; a cluster has at least `min_pixels` such pixels; cells are registered within `max_shift_px`.
    """
    mask = outside_band(_registered_by_cell(template, part, difference, max_shift_px), part) > difference
    if not mask.any():
        return []
    joined = cv2.dilate(mask.view(np.uint8), np.ones((JOIN_PX, JOIN_PX), np.uint8))
    count, labels = cv2.connectedComponents(joined)
    rows, columns = np.nonzero(mask)
    label = labels[rows, columns]
    boxes = []
    for index in range(1, count):
        own = label == index
        if int(np.count_nonzero(own)) >= min_pixels:
            x, y = columns[own], rows[own]
            boxes.append((int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1))
    return sorted(boxes, key=lambda box: (box[1], box[0]))


def outside_band(template: ByteArray, part: ByteArray) -> ByteArray:
    """[H, W] uint8: how far the part leaves the range of the template within BAND_PX of each pixel."""
    square = np.ones((2 * BAND_PX + 1, 2 * BAND_PX + 1), np.uint8)
    above = cv2.subtract(part, cv2.dilate(template, square))
    below = cv2.subtract(cv2.erode(template, square), part)
    return np.asarray(cv2.max(above, below), dtype=np.uint8)


def _registered_by_cell(
    template: ByteArray, part: ByteArray, difference: float, max_shift_px: int
) -> ByteArray:
    """The template with every cell that differs moved to where it fits its surroundings best."""
    height, width = part.shape
    moved = template.copy()
    differing = outside_band(template, part) > difference
    for top in range(0, height, CELL_PX):
        for left in range(0, width, CELL_PX):
            cell = np.s_[top : top + CELL_PX, left : left + CELL_PX]
            if not differing[cell].any():
                continue
            x, y, size = left - CELL_PX // 2, top - CELL_PX // 2, 2 * CELL_PX
            fitted = template_tile(template, window_at(part, x, y, size), x, y, max_shift_px)
            rows, columns = moved[cell].shape
            margin = CELL_PX // 2
            moved[cell] = fitted[margin : margin + rows, margin : margin + columns]
    return moved
