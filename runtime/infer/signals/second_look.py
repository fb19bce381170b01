"""A second look at uncertain defects: the tile moved by a few pixels, the dense head only.

A detection that rests on how the picture happens to fall on the grid of patches moves or goes when the
content is moved. Only tiles with an uncertain reported defect are looked at again, and only by vision encoder
and dense head, a tenth of what the words cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..candidates import Candidate, overlap
from ..fuse import CandidateDefect
from ..pictures.register import ByteArray
from ..pictures.tiles import Tile

MOVED_PX = (5, 3)
"""How far the content goes, right and down, in tile pixels: no multiple of a patch's half, and inside what
training moved its tiles by."""

BELOW = 0.95
"""Raw confidence under which a reported defect is looked at again."""

MOST_TILES = 8
"""Tiles looked at again on one part, the least sure defects first: a part full of them goes to a person
anyway."""

See = Callable[[Sequence[Tile], ByteArray], "tuple[list[Candidate], int]"]
"""Tiles and their pixels [tiles, pictures, 3, 2, S, S] -> the dense head's candidates, and engine calls."""


@dataclass(frozen=True)
class SecondLook:
    """The defects with `shift_iou` where they were looked at again, and what that cost."""

    defects: tuple[CandidateDefect, ...]
    tiles: int = 0
    engine_calls: int = 0


def second_look(
    defects: Sequence[CandidateDefect],
    tiles: Sequence[Tile],
    pixels: Callable[[Sequence[int]], ByteArray],
    see: See,
) -> SecondLook:
    """Look again at the tiles of defects that the dense head sees and that are less sure than BELOW.

    `pixels`: tile indices -> their pictures [n, pictures, 3, 2, S, S] uint8. `see` gets moved tiles, whose
    boxes come out in the pixels of the part picture as before. A defect that only the words see has no second
    look: the dense head did not see it in the first place.
    """
    chosen: list[int] = []
    for defect in sorted(defects, key=lambda one: one.confidence):
        is_asked = defect.tile is not None and defect.detector != "words" and defect.confidence < BELOW
        if is_asked and defect.tile not in chosen and len(chosen) < MOST_TILES:
            chosen.append(int(defect.tile or 0))
    if not chosen:
        return SecondLook(tuple(defects))
    moved = [_moved_tile(tiles[index]) for index in chosen]
    candidates, calls = see(moved, moved_pixels(pixels(chosen)))
    place = {index: position for position, index in enumerate(chosen)}
    again = []
    for defect in defects:
        is_asked = defect.tile in place and defect.detector != "words" and defect.confidence < BELOW
        if is_asked and defect.tile is not None:
            found = [one for one in candidates if one.tile == place[defect.tile]]
            best = max((overlap(one.box_xyxy, defect.bbox_xyxy)[0] for one in found), default=0.0)
            defect = replace(defect, shift_iou=best)
        again.append(defect)
    return SecondLook(tuple(again), len(chosen), calls)


def moved_pixels(pixels: ByteArray, moved_px: tuple[int, int] = MOVED_PX) -> ByteArray:
    """[..., S, S] with its content moved right and down; the edge's own pixels fill what comes in."""
    right, down = moved_px
    height, width = pixels.shape[-2:]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return np.ascontiguousarray(pixels[..., rows[:, None], columns[None, :]])


def _moved_tile(tile: Tile) -> Tile:
    """The tile whose pixel (right, down) shows what pixel (0, 0) of `tile` shows."""
    return replace(tile, left=tile.left - MOVED_PX[0], top=tile.top - MOVED_PX[1])
