"""Pictures of mistakes: the place on the part with its boxes drawn, its template beside it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ..scores import NamedBox

Picture = npt.NDArray[np.uint8]

TRUE_BGR, SAID_BGR = (60, 150, 0), (30, 30, 220)  # green: true, red: found
SHOWN_PX = 288
LEAST_PX = 96
AROUND = 0.75
GAP_PX = 8


def mistake_picture(
    image: Picture, template: Picture | None, box: NamedBox, truth: Sequence[NamedBox],
    said: Sequence[NamedBox],
) -> Picture:
    """[SHOWN_PX, n, 3] BGR: a square of the part around `box` with `truth` and `said` drawn, the same square
    bare, and, where there is a template, of it.

    Pictures are [H, W] grey or [H, W, 3] BGR; the square reaches over no edge.
    """
    left, top, side = square_around(box, image.shape[1], image.shape[0])
    bare = _shown(image, left, top, side)
    drawn = bare.copy()
    scale = SHOWN_PX / side
    for boxes, colour in ((truth, TRUE_BGR), (said, SAID_BGR)):
        for one in boxes:
            _draw(drawn, one, (left, top), scale, colour)
    gap = np.full((SHOWN_PX, GAP_PX, 3), 190, np.uint8)
    strip = [drawn, gap, bare] if template is None else [drawn, gap, bare, gap,
                                                         _shown(template, left, top, side)]
    return np.hstack(strip)


def square_around(box: NamedBox, width: int, height: int) -> tuple[int, int, int]:
    """(left, top, side) in px of a square that shows a box with some surroundings, inside the picture."""
    x1, y1, x2, y2 = box.bbox_xyxy
    longest = max(x2 - x1, y2 - y1)
    side = int(min(max(longest * (1.0 + 2.0 * AROUND), LEAST_PX), width, height))
    left = int(min(max((x1 + x2 - side) / 2.0, 0.0), width - side))
    top = int(min(max((y1 + y2 - side) / 2.0, 0.0), height - side))
    return left, top, side


def _shown(picture: Picture, left: int, top: int, side: int) -> Picture:
    """[SHOWN_PX, SHOWN_PX, 3]: one square, enlarged without smoothing so that single pixels can be judged."""
    crop = picture[top : top + side, left : left + side]
    how = cv2.INTER_NEAREST if side < SHOWN_PX else cv2.INTER_AREA
    large = cv2.resize(crop, (SHOWN_PX, SHOWN_PX), interpolation=how)
    return np.asarray(large if large.ndim == 3 else cv2.cvtColor(large, cv2.COLOR_GRAY2BGR), np.uint8)


def _draw(picture: Picture, box: NamedBox, corner: tuple[int, int], scale: float,
          colour: tuple[int, int, int]) -> None:
    """One box as a frame of two pixels, in place."""
    x1, y1, x2, y2 = (round((value - corner[axis % 2]) * scale) for axis, value in enumerate(box.bbox_xyxy))
    cv2.rectangle(picture, (x1, y1), (x2 - 1, y2 - 1), colour, 2)
