"""Large pictures of any size: boards beside their templates as a panel, or metal surfaces side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...runtime.capture.frame import Frame
from ...runtime.capture.scenes import pcb_scene
from ...runtime.capture.scenes.metal.scene import metal_scene

Picture = npt.NDArray[np.uint8]

BOARD_PX, SURFACE_PX = 640, 512
MOST_DEFECTS = 6  # of a metal scene
DIFFERENT = 6
"""Scenes that are drawn; a larger picture repeats them."""


def panel(width: int, height: int, *, defects: int, style: str = "grey", seed: int = 1) -> Frame:
    """A part of `width` x `height` px made of boards with `defects` each, beside its template."""
    boards = [
        # one panel lies in one place: its boards are not shifted against each other by much
        pcb_scene(100 * seed + index, size_px=BOARD_PX, style="grey" if style == "grey" else "binary",
                  defects=defects, misregistration_px=1.0)
        for index in range(DIFFERENT)
    ]
    part = tiled([board.image for board in boards], width, height)
    return _frame(part, tiled([board.template for board in boards], width, height))


def surface(width: int, height: int, *, defects: int, seed: int = 1) -> Frame:
    """A metal surface of `width` x `height` px in colour, `defects` on every 512 px of it; no template."""
    pictures = [
        metal_scene(100 * seed + index, size_px=SURFACE_PX, defects=min(defects, MOST_DEFECTS)).image
        for index in range(DIFFERENT)
    ]
    return _frame(tiled(pictures, width, height), None)


def tiled(pictures: Sequence[Picture], width: int, height: int) -> Picture:
    """[height, width] or [height, width, 3]: square pictures of one size side by side, each row turned on."""
    side = pictures[0].shape[0]
    columns, rows = -(-width // side), -(-height // side)
    lines = [
        np.hstack([pictures[(row * columns + column) % len(pictures)] for column in range(columns)])
        for row in range(rows)
    ]
    return np.ascontiguousarray(np.vstack(lines)[:height, :width])


def _frame(part: Picture, template: Picture | None) -> Frame:
    return Frame(part, template, 1, 0.0, 0, "large_picture", is_simulated=True)
