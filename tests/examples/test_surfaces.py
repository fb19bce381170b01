"""Training tiles without a template: boxes move with their pixels, and every box has a level that answers."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect.examples.reference.training.marks import UNKNOWN, patch_marks
from orinspect.examples.reference.training.samples import TILE_PX
from orinspect.examples.reference.training.surfaces import (
    LEVELS,
    Surface,
    SurfaceTile,
    _surface,
    _turned,
    fits,
    grid_tiles,
    scene_surface,
    tile_from_surface,
)
from orinspect.examples.reference.training.tasks import SCENE_TYPES


def white_box(box: tuple[int, int, int, int], side: int = 512) -> Surface:
    """A black picture, white in `box`; the box carries no margin."""
    image = np.zeros((side, side, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    marks = np.zeros((side, side), np.uint8)
    marks[y1:y2, x1:x2] = 8
    return _surface(image, [[*box, 7]], marks, LEVELS, 0, real=False)


def extent(tile: SurfaceTile) -> list[int]:
    """Tight x1, y1, x2, y2 (exclusive) of what is brighter than half."""
    rows, columns = np.nonzero(tile.image[..., 0] > 127)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("turn", range(8))
def test_a_box_turns_with_its_pixels(turn: int) -> None:
    image = np.zeros((TILE_PX, TILE_PX, 3), np.uint8)
    image[20:31, 70:99] = 255
    box = np.array([[70, 20, 99, 31, 4]], np.float32)
    turned = _turned(SurfaceTile(image, box, box.copy()), turn)
    assert extent(turned) == turned.boxes[0, :4].tolist() == turned.left_out[0, :4].tolist()


def test_marks_lie_on_their_pixels_on_every_level_and_turn() -> None:
    rng = np.random.default_rng(1)
    surface = white_box((200, 240, 264, 304))
    seen = 0
    for _ in range(40):
        tile = tile_from_surface(surface, rng)
        bright = tile.image[..., 0] > 127
        assert np.mean((tile.marks == 8) != bright) < 0.01  # light is disturbed, and a reduced edge is grey
        seen += int(bright.any())
    assert seen > 10


def test_a_block_is_covered_where_any_of_its_pixels_is_marked() -> None:
    marks = np.zeros((3, TILE_PX, TILE_PX), np.uint8)
    marks[0, 21, 35] = 4
    marks[2] = UNKNOWN
    true = patch_marks(marks)
    patch = (21 // 16) * 8 + 35 // 16
    block = (21 % 16 // 4) * 4 + 35 % 16 // 4
    assert np.argwhere(true.covered).tolist() == [[0, patch, block]]
    assert true.type[0, patch] == 3 and np.count_nonzero(true.type >= 0) == 1
    assert true.known.mean(1).tolist() == [1, 1, 0]


def test_a_drawn_tile_shows_its_box_where_it_says() -> None:
    rng = np.random.default_rng(0)
    surface = white_box((200, 240, 260, 264))
    seen = 0
    for _ in range(60):
        tile = tile_from_surface(surface, rng)
        for box in tile.boxes:
            if (box[:4] > 2).all() and (box[:4] < TILE_PX - 2).all():
                assert extent(tile) == pytest.approx(box[:4].tolist(), abs=2.1)
                seen += 1
    assert seen > 15


@pytest.mark.parametrize("longest", [5, 20, 30, 47, 50, 79, 81, 100, 160, 170, 300, 500])
def test_every_size_has_a_level_that_answers(longest: int) -> None:
    halves = {level: longest / level / 2 for level in LEVELS}
    boxes = {level: np.array([[64 - half, 60, 64 + half, 68, 0]]) for level, half in halves.items()}
    assert any(fits(box, level, LEVELS)[0] for level, box in boxes.items())


@pytest.mark.parametrize(
    "box", [(100, 100, 130, 120), (30, 400, 120, 460), (5, 5, 500, 60), (470, 470, 512, 512)]
)
def test_the_grid_answers_for_every_box(box: tuple[int, int, int, int]) -> None:
    answers = [tile.boxes for tile in grid_tiles(white_box(box)) if len(tile.boxes)]
    assert answers
    assert all(boxes[0, 4] == 7 for boxes in answers)


def test_a_scene_has_its_types_by_the_common_index() -> None:
    found = np.concatenate([scene_surface(seed, SCENE_TYPES).boxes for seed in range(3)])
    assert len(found) and set(found[:, 4].astype(int)) <= set(range(6, 12))
