"""Training tiles: their boxes follow every pixel that is moved, and the split of the real pairs is fixed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.examples.reference.training.samples import (
    BOX_MARGIN_PX,
    LEVELS,
    ROOM_PX,
    TILE_PX,
    Board,
    Crop,
    _turned,
    crops_from_board,
    deeppcb_boards,
    deeppcb_paths,
    sample_from_crop,
    scene_board,
)
from orinspect.runtime.capture.scenes import DEFECT_TYPES, pcb_scene

Picture = npt.NDArray[np.uint8]
Boxes = npt.NDArray[np.float32]


def extent(marked: npt.NDArray[np.bool_]) -> list[int]:
    """Tight x1, y1, x2, y2 (exclusive) of the marked pixels."""
    rows, columns = np.nonzero(marked)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("turn", range(8))
def test_a_box_turns_with_its_pixels(turn: int) -> None:
    template, part = np.zeros((2, TILE_PX, TILE_PX), np.uint8)
    part[20:31, 70:99] = 255
    template[20:31, 70:99] = 100
    boxes = np.array([[70, 20, 99, 31, 4]], np.float32)
    before = boxes.copy()
    new_template, new_part, new_boxes = _turned(template, part, boxes, turn)
    assert extent(new_part == 255) == extent(new_template == 100) == new_boxes[0, :4].tolist()
    assert new_boxes[0, 4] == 4 and (boxes == before).all()


def test_the_eight_turns_are_eight() -> None:
    picture = np.arange(TILE_PX * TILE_PX, dtype=np.uint16).reshape(TILE_PX, TILE_PX).astype(np.uint8)
    picture[3, 5] = 255
    none = np.zeros((0, 5), np.float32)
    assert len({_turned(picture, picture, none, turn)[1].tobytes() for turn in range(8)}) == 8


def marked_crop(box: tuple[int, int, int, int], level: float = 1.0) -> Crop:
    """A crop whose part is white in `box`, in pixels of the middle tile."""
    size = TILE_PX + 2 * ROOM_PX
    x1, y1, x2, y2 = box
    part = np.zeros((size, size), np.uint8)
    part[y1 + ROOM_PX : y2 + ROOM_PX, x1 + ROOM_PX : x2 + ROOM_PX] = 255
    return Crop(np.zeros_like(part), part, np.array([[*box, 2]], np.float32), level)


def test_a_tile_moved_and_turned_at_random_keeps_its_box_on_the_defect() -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(200):
        sample = sample_from_crop(marked_crop((30, 60, 59, 71)), rng)
        assert sample.template.shape == sample.part.shape == (TILE_PX, TILE_PX)
        assert sample.part.flags.c_contiguous
        if len(sample.boxes):
            kept += 1
            assert sample.boxes[0, :4].tolist() == extent(sample.part == 255)
            x, y = (sample.boxes[0, :2] + sample.boxes[0, 2:4]) / 2
            assert 31 <= x <= 97 and 31 <= y <= 97  # in the middle square, which the tile owns
    assert 180 < kept < 200  # a few tiles are moved so far that another tile owns the defect


def test_a_validation_tile_is_the_middle_of_its_crop() -> None:
    crop = marked_crop((50, 60, 79, 71))
    sample = sample_from_crop(crop, None)
    assert (sample.part == crop.part[ROOM_PX:-ROOM_PX, ROOM_PX:-ROOM_PX]).all()
    assert sample.boxes[0].tolist() == [50, 60, 79, 71, 2]


def test_a_box_beyond_the_tile_is_clipped_and_a_small_one_is_left_to_the_finer_level() -> None:
    wide = marked_crop((-9, 50, 137, 74))
    assert sample_from_crop(wide, None).boxes[0, :4].tolist() == [0, 50, 128, 74]
    for level in LEVELS:
        owned = sample_from_crop(marked_crop((50, 60, 70, 71), level), None).boxes
        assert len(owned) == int(level == min(LEVELS))
    assert len(sample_from_crop(marked_crop((5, 60, 25, 71)), None).boxes) == 0  # owned by a neighbour


@pytest.mark.parametrize("length", [14, 34, 84])
def test_a_tile_that_owns_a_defect_shows_it_under_its_box_on_every_level(length: int) -> None:
    template = np.zeros((320, 320), np.uint8)
    for x in range(20, 320, 40):
        template[:, x : x + 12] = 255
    for y in (60, 190, 280):
        cv2.circle(template, (y, y), 17, 255, -1)
    part = template.copy()
    part[150 : 150 + length, 226:240] = 255 - part[150 : 150 + length, 226:240]
    board_box = extent(part != template)
    boxes = np.array([[*board_box, 1]], np.float32)
    moved = np.roll(template, (2, -3), (0, 1))
    for before in (template, moved):
        crops = crops_from_board(Board(before, part, boxes, False), None)
        owners = [(crop, sample) for crop in crops if len((sample := sample_from_crop(crop, None)).boxes)]
        assert owners
        for crop, sample in owners:
            x, y = (sample.boxes[0, :2] + sample.boxes[0, 2:4]) / 2
            assert 32 <= x < 96 and 32 <= y < 96
            seen = cv2.absdiff(sample.part, sample.template) > 128
            np.testing.assert_allclose(extent(seen), sample.boxes[0, :4], atol=1.5)
            sides = (sample.boxes[0, 2:4] - sample.boxes[0, :2]) * crop.level
            assert sides.tolist() == [board_box[2] - board_box[0], board_box[3] - board_box[1]]


def test_a_scene_becomes_a_board_with_margins() -> None:
    board, scene = scene_board(11), pcb_scene(11, style="binary")
    assert (board.part == scene.image).all() and not board.real
    assert board.boxes.shape == (len(scene.defects), 5)
    for row, defect in zip(board.boxes, scene.defects, strict=True):
        x1, y1, x2, y2 = defect.bbox_xyxy
        margin = BOX_MARGIN_PX
        assert row[:4].tolist() == [
            max(x1 - margin, 0),
            max(y1 - margin, 0),
            min(x2 + margin, 640),
            min(y2 + margin, 640),
        ]
        assert DEFECT_TYPES[int(row[4])] == defect.type


@pytest.fixture
def deeppcb(tmp_path: Path) -> Path:
    """41 pairs of one training board and three of a validation board, in DeepPCB's layout."""
    for group, count in (("00001", 41), ("00041", 3)):
        pictures = tmp_path / "PCBData" / f"group{group}" / group
        truths = pictures.with_name(f"{group}_not")
        pictures.mkdir(parents=True)
        truths.mkdir()
        for index in range(count):
            name = f"{group}{index:03d}"
            for kind in ("test", "temp"):
                cv2.imwrite(str(pictures / f"{name}_{kind}.jpg"), np.full((16, 16), index, np.uint8))
            (truths / f"{name}.txt").write_text("1 2 11 12 3\n4 5 9 10 6\n")
    return tmp_path


def test_the_real_pairs_fall_into_three_disjoint_subsets(deeppcb: Path) -> None:
    subsets = {name: deeppcb_paths(deeppcb, name) for name in ("training", "tuning", "validation")}
    assert {name: len(paths) for name, paths in subsets.items()} == {
        "training": 38,
        "tuning": 3,
        "validation": 3,
    }
    assert len({path for paths in subsets.values() for path in paths}) == 44
    assert all("group00041" in path.parts for path in subsets["validation"])


def test_a_real_pair_is_read_with_its_truth(deeppcb: Path) -> None:
    board = deeppcb_boards(deeppcb, "validation")[2]
    assert board.real and board.part.shape == board.template.shape == (16, 16)
    assert abs(int(board.part[0, 0]) - 2) <= 1
    assert board.boxes.tolist() == [[1, 2, 11, 12, 2], [4, 5, 9, 10, 5]]  # classes count from 0


def test_a_folder_that_is_not_deeppcb_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="give the folder of DeepPCB"):
        deeppcb_boards(tmp_path, "training")
