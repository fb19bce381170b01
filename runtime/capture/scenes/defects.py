"""Defects drawn into a copper layout, each proved to be what its name says before it is kept.

The proof is topological, in a window around the changed pixels (`TOPOLOGY`): an open adds a piece of copper
by taking copper away, a short removes one by adding copper, a pin-hole adds a piece of background, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .strokes import PENS, Ground, Mask, Pen, Window, ground_of_layout, mark_of_pen, random_size
from .truth import DEFECT_TYPES

TOPOLOGY: dict[str, tuple[bool, int, int]] = {
    # type: (adds copper, change in pieces of copper, change in pieces of background)
    "open": (False, +1, -1),
    "short": (True, -1, +1),
    "mousebite": (False, 0, 0),
    "spur": (True, 0, 0),
    "copper": (True, +1, 0),
    "pin-hole": (False, 0, +1),
}
_WINDOW_PX = 10  # context around the changed pixels in which the proof is made
GAP_PX = 13  # between the tight boxes of two defects
_TRIES = 12  # strokes drawn for one defect before another is begun
_EDGE_PX = 5  # a defect keeps this far from the picture's edge
_CRUMB_PX = 8  # smaller pieces are edge noise, not conductors or islands


@dataclass(frozen=True)
class DrawnDefect:
    """A defect as drawn: its type and the tight box of its changed pixels in the layout."""

    kind: str
    box_xyxy: Window


def draw_defects(copper: Mask, count: int, rng: np.random.Generator) -> tuple[Mask, list[DrawnDefect]]:
    """A copy of the layout uint8 [H, W] with up to `count` defects, and their list.

    Fewer than `count` come back when the layout has no room for more.
    """
    ground = ground_of_layout(copper, rng)
    damaged = copper.copy()
    drawn: list[DrawnDefect] = []
    for _ in range(4 * count):
        if len(drawn) == count:
            break
        kind = DEFECT_TYPES[int(rng.integers(len(DEFECT_TYPES)))]
        size = random_size(kind, rng)
        for _ in range(_TRIES):  # the type stays, so that a type that is hard to place is not rare
            pen = PENS[kind](ground, size, rng)
            found = None if pen is None else _apply(kind, ground, damaged, pen, drawn, rng)
            if found is not None:
                drawn.append(found)
                break
            size = max(size * 0.93, 7.0)
    return damaged, drawn


def is_what_it_says(kind: str, before: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]) -> bool:
    """Whether the change from `before` to `after` (bool [h, w], True = copper) is a defect of this type.

    Pieces smaller than 8 pixels do not count. Conductors are 8-connected where they must be parted and
    4-connected where they must be joined, so that a diagonal contact never decides.
    """
    adds, copper_change, background_change = TOPOLOGY[kind]
    gained, lost = np.count_nonzero(after & ~before), np.count_nonzero(before & ~after)
    if (gained if adds else lost) == 0 or (lost if adds else gained):
        return False
    connectivity = 4 if kind == "short" else 8
    change = _pieces(after, connectivity) - _pieces(before, connectivity)
    if kind == "open":
        return change >= 1 and _reaching(after) > _reaching(before)
    if kind == "short":
        return change <= -1
    opposite = _pieces(~after, 4) - _pieces(~before, 4)
    return change == copper_change and opposite == background_change


def window_around(box_xyxy: Window, shape: tuple[int, ...]) -> Window:
    """The box with the context in which its proof is made, cut at the picture's edge."""
    x1, y1, x2, y2 = box_xyxy
    return (max(x1 - _WINDOW_PX, 0), max(y1 - _WINDOW_PX, 0),
            min(x2 + _WINDOW_PX, shape[1]), min(y2 + _WINDOW_PX, shape[0]))


def _pieces(mask: npt.NDArray[np.bool_], connectivity: int) -> int:
    """Connected pieces of at least `_CRUMB_PX` pixels."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=connectivity)
    return int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] >= _CRUMB_PX))


def _reaching(mask: npt.NDArray[np.bool_]) -> int:
    """8-connected pieces that leave the window: ends of a conductor, not scraps cut off it."""
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    ring = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return int(np.unique(ring[ring > 0]).size)


def _apply(kind: str, ground: Ground, damaged: Mask, pen: Pen, drawn: Sequence[DrawnDefect],
           rng: np.random.Generator) -> DrawnDefect | None:
    """Draw the pen's mark into `damaged` when it is a true defect of this type and has room; else nothing."""
    height, width = damaged.shape
    reach = float(pen.radii.max()) + _WINDOW_PX + 3
    low, high = pen.points.min(axis=0) - reach, pen.points.max(axis=0) + reach
    frame = (max(int(low[0]), 0), max(int(low[1]), 0),
             min(int(high[0]) + 1, width), min(int(high[1]) + 1, height))
    if frame[2] - frame[0] < 8 or frame[3] - frame[1] < 8:
        return None
    adds = TOPOLOGY[kind][0]
    before = damaged[frame[1]:frame[3], frame[0]:frame[2]] > 0
    mark = mark_of_pen(pen, frame)
    changed = (mark > 0) & (~before if adds else before)
    if kind == "mousebite" and not _leaves_most(ground, frame, changed):
        return None
    if not adds and rng.random() < 0.2:
        changed &= ~_residue(changed, rng)
    rows, columns = np.nonzero(changed)
    if rows.size < 20:
        return None
    tight = (int(columns.min()) + frame[0], int(rows.min()) + frame[1],
             int(columns.max()) + 1 + frame[0], int(rows.max()) + 1 + frame[1])
    if not _has_room(tight, (width, height), drawn):
        return None
    if not _proved(kind, before, changed):
        return None
    damaged[frame[1]:frame[3], frame[0]:frame[2]][changed] = 255 if adds else 0
    return DrawnDefect(kind, tight)


def _leaves_most(ground: Ground, frame: Window, changed: npt.NDArray[np.bool_]) -> bool:
    """Whether the bitten conductors keep seven tenths of their copper: a bite does not eat a pad."""
    bitten = np.unique(ground.nets[frame[1]:frame[3], frame[0]:frame[2]][changed])
    return bool(np.count_nonzero(changed) < 0.3 * float(ground.net_area[bitten].sum()))


def _residue(changed: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Dabs of 2 x 3 pixels that a scan leaves standing inside a cut, bool like `changed`."""
    dabs = rng.random(changed.shape) < 0.03
    return cv2.dilate(dabs.astype(np.uint8), np.ones((2, 3), np.uint8)) > 0


def _has_room(tight: Window, size_wh: tuple[int, int], drawn: Sequence[DrawnDefect]) -> bool:
    """Whether the box keeps its distance to the picture's edge and to other defects, and has a fair size."""
    x1, y1, x2, y2 = tight
    if max(x2 - x1, y2 - y1) < 6:
        return False
    if x1 < _EDGE_PX or y1 < _EDGE_PX or x2 > size_wh[0] - _EDGE_PX or y2 > size_wh[1] - _EDGE_PX:
        return False
    return all(x1 - other.box_xyxy[2] > GAP_PX or other.box_xyxy[0] - x2 > GAP_PX
               or y1 - other.box_xyxy[3] > GAP_PX or other.box_xyxy[1] - y2 > GAP_PX for other in drawn)


def _proved(kind: str, before: npt.NDArray[np.bool_], changed: npt.NDArray[np.bool_]) -> bool:
    """The topology of the change, and again with the change grown by the edge noise to come.

    An open and a short must hold when the change is SMALLER by a pixel a side, the others when it is larger.
    """
    def holds(pixels: npt.NDArray[np.bool_]) -> bool:
        after = before | pixels if TOPOLOGY[kind][0] else before & ~pixels
        return is_what_it_says(kind, before, after)

    if not holds(changed):
        return False
    if kind in ("open", "short"):
        return True
    grown = cv2.dilate(changed.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return holds(grown & (~before if TOPOLOGY[kind][0] else before))
