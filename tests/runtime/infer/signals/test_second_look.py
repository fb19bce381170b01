"""The second look: who is asked, what is shown, and what a moved tile gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from orinspect.runtime.infer.candidates import Candidate
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.pictures.register import ByteArray
from orinspect.runtime.infer.pictures.tiles import Tile
from orinspect.runtime.infer.signals.second_look import (
    BELOW,
    MOST_TILES,
    MOVED_PX,
    moved_pixels,
    second_look,
)

TILES = tuple(Tile(1.0, 1.0, 64 * n, 0, (64 * n, 0, 64 * n + 64, 64)) for n in range(12))
UNSURE = BELOW - 0.01


def defect(tile: int = 0, confidence: float = UNSURE, detector: str = "both") -> CandidateDefect:
    left = 64.0 * tile
    return CandidateDefect("open", (left + 10, 10.0, left + 40, 40.0), confidence, detector, tile=tile)


def pixels(indices: Sequence[int]) -> ByteArray:
    return np.stack([np.full((1, 3, 2, 8, 8), index, np.uint8) for index in indices])


class Eye:
    """A dense head that sees one box, given in pixels of the tile as shown."""

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes, self.shown = boxes, list[int]()

    def __call__(self, tiles: Sequence[Tile], shown: ByteArray) -> tuple[list[Candidate], int]:
        self.shown = [int(one[0, 0, 0, -1, -1]) for one in shown]
        found = [
            Candidate(tile.to_picture(box), index, 0.9, (0.9,))
            for index, tile in enumerate(tiles)
            for box in self.boxes
        ]
        return found, 2


def test_a_box_that_moves_with_its_content_is_stable() -> None:
    right, down = MOVED_PX
    moved = (10.0 + right, 10.0 + down, 40.0 + right, 40.0 + down)
    found = second_look([defect()], TILES, pixels, Eye(moved))
    assert found.defects[0].shift_iou == pytest.approx(1.0)
    assert (found.tiles, found.engine_calls) == (1, 2)


@pytest.mark.parametrize(("boxes", "most"), [((), 0.0), (((10.0, 10.0, 40.0, 40.0),), 0.9)])
def test_a_box_that_goes_or_stays_behind_is_not(
    boxes: tuple[tuple[float, float, float, float], ...], most: float
) -> None:
    (found,) = second_look([defect()], TILES, pixels, Eye(*boxes)).defects
    assert found.shift_iou is not None and found.shift_iou <= most


def test_only_uncertain_defects_that_the_dense_head_sees_are_asked() -> None:
    eye = Eye()
    sure, words = defect(1, BELOW), defect(2, detector="words")
    found = second_look([sure, words, replace(defect(3), tile=None)], TILES, pixels, eye)
    assert (found.tiles, found.engine_calls, eye.shown) == (0, 0, [])
    assert all(one.shift_iou is None for one in found.defects)


def test_the_cost_is_bounded_and_the_least_sure_come_first() -> None:
    many = [defect(n, 0.5 + 0.01 * n) for n in reversed(range(12))]
    eye = Eye()
    found = second_look(many, TILES, pixels, eye)
    assert found.tiles == MOST_TILES
    assert eye.shown == list(range(MOST_TILES))
    assert [one.tile for one in found.defects if one.shift_iou is None] == [11, 10, 9, 8]
    assert [one.tile for one in found.defects] == [one.tile for one in many]


def test_two_defects_of_a_tile_are_one_look() -> None:
    assert second_look([defect(4), defect(4, 0.6)], TILES, pixels, Eye()).tiles == 1


def test_moved_pixels_repeat_the_edge() -> None:
    picture = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    moved = moved_pixels(picture, (1, 2))
    assert moved[0, 2:, 1:].tolist() == picture[0, :2, :3].tolist()
    assert moved[0, 0].tolist() == [0, 0, 1, 2]
    assert moved[0, :, 0].tolist() == [0, 0, 0, 4]
