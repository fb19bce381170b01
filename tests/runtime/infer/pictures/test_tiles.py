"""Which tile answers for which pixel, which are looked at; patch rows against a reference of six loops."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.errors import PictureError
from orinspect.runtime.infer.pictures.tiles import (
    Tile,
    TilePairs,
    compare_patches,
    image_patches,
    tile_grid,
    tile_pair,
    tile_pairs,
    tiles_on_boxes,
)

Picture = npt.NDArray[np.uint8]
PATCH, MERGE = 2, 2


def board(height: int = 320, width: int = 300) -> Picture:
    """Traces and pads, black and white."""
    picture = np.zeros((height, width), np.uint8)
    for x in range(20, width, 36):
        cv2.line(picture, (x, 0), (x + 12, height), 255, 9)
    for x, y in np.random.default_rng(5).integers(20, min(height, width) - 20, (14, 2)).tolist():
        cv2.circle(picture, (x, y), 13, 255, -1)
    return picture


def pairs_of(template: Picture, part: Picture, gate_pixels: int = 3) -> TilePairs:
    return tile_pairs(
        template,
        part,
        tile_px=128,
        stride_px=64,
        levels=(1.0, 2.0),
        max_shift_px=6,
        tile_shift_px=4,
        gate_difference=100,
        gate_pixels=gate_pixels,
    )


@pytest.mark.parametrize(
    ("width", "height"), [(640, 640), (641, 333), (129, 128), (127, 400), (90, 61), (257, 1), (193, 191)]
)
@pytest.mark.parametrize("stride_px", [64, 96, 128])
def test_every_pixel_of_a_level_is_owned(width: int, height: int, stride_px: int) -> None:
    tiles = tile_grid(width, height, 128, stride_px, (1, 2))
    for level in {int(tile.level) for tile in tiles}:
        owners = np.zeros((max(height // level, 1), max(width // level, 1)), int)
        for tile in (tile for tile in tiles if tile.level == level):
            x1, y1, x2, y2 = tile.owned_xyxy
            assert x2 - x1 == y2 - y1 == stride_px
            assert tile.left <= x1 and x2 <= tile.left + 128 and tile.top <= y1 and y2 <= tile.top + 128
            owners[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] += 1
        assert (owners >= 1).all()


def tile_grid_of(level: float) -> tuple[Tile, ...]:
    """Tiles over the box of the next test, on one level."""
    return tiles_on_boxes([(180, 90, 310, 130)], 128, 64, (level,))


def test_a_box_comes_back_to_its_place_from_every_tile_that_owns_it() -> None:
    box = (201.0, 90.0, 231.0, 130.0)
    tiles = [tile for level in (0.5, 1.0, 2.0) for tile in tile_grid_of(level)]
    levels = set()
    for tile in tiles:
        x1, y1, x2, y2 = (side / tile.scale for side in box)
        local = (x1 - tile.left, y1 - tile.top, x2 - tile.left, y2 - tile.top)
        assert tile.to_picture(local) == box
        levels |= {tile.level} if tile.owns(local) else set()
    assert levels == {0.5, 1.0, 2.0}


def test_a_small_cluster_is_one_centred_tile() -> None:
    (tile,) = tiles_on_boxes([(100, 200, 120, 210)], 128, 64, (1.0, 2.0))
    assert (tile.left, tile.top, tile.owned_xyxy) == (46, 141, (78, 173, 142, 237))
    (tile,) = tiles_on_boxes([(101, 200, 121, 210)], 128, 64, (0.5, 1.0, 2.0))
    assert tile.scale == 0.5 and (tile.left + 64, tile.top + 64) == (222, 410)


def test_the_size_of_a_cluster_chooses_its_levels() -> None:
    def levels(longest: int) -> list[float]:
        return [t.level for t in tiles_on_boxes([(100, 200, 100 + longest, 210)], 128, 64, (0.5, 1.0, 2.0))]

    assert levels(20) == [0.5] and levels(36) == [0.5, 0.5, 1.0] and levels(60) == [1.0]
    assert levels(76) == [1.0, 1.0, 2.0]  # two fine tiles side by side and the whole at half scale
    assert levels(300) == [1.0] * 5 + [2.0] * 3  # its many differences one by one, and the whole


def test_a_level_below_one_magnifies_and_registers() -> None:
    template = board()
    part = np.roll(template, 2, axis=1)
    (tile,) = tiles_on_boxes([(141, 151, 161, 161)], 128, 64, (0.5,))
    fitted, seen = tile_pair(template, part, tile, 128, 4)
    left, top = tile.left // 2, tile.top // 2
    assert (cv2.resize(part[top : top + 64, left : left + 64], (128, 128)) == seen).all()
    assert (fitted == seen).all()
    wide = tile_pair(template, part, tile, 128, 4, room_px=24)
    assert wide[0].shape == (176, 176) and (wide[1][24:-24:8, 24:-24:8] // 128 == seen[::8, ::8] // 128).all()


def test_a_part_equal_to_its_template_opens_no_tile() -> None:
    picture = board()
    pairs = pairs_of(picture, picture)
    assert pairs.tiles == () and pairs.total == len(tile_grid(300, 320, 128, 64, (1, 2)))
    assert pairs.template.shape == pairs.part.shape == (0, 128, 128)


def test_a_defect_is_the_centre_of_its_tile() -> None:
    template = board()
    part = template.copy()
    part[150:162, 140:152] = 255 - part[150:162, 140:152]
    pairs = pairs_of(template, part)
    (tile,) = pairs.tiles
    assert abs(tile.left + 64 - 146) <= 2 and abs(tile.top + 64 - 156) <= 2  # the band eats an edge
    rows, columns = slice(tile.top, tile.top + 128), slice(tile.left, tile.left + 128)
    assert (pairs.part[0] == part[rows, columns]).all()
    assert (pairs.template[0] == template[rows, columns]).all()


def test_a_shifted_template_opens_only_where_the_defect_is() -> None:
    wide = board(336, 316)
    part = wide[8:328, 8:308].copy()
    part[100:112, 60:72] = 255 - part[100:112, 60:72]
    pairs = pairs_of(np.ascontiguousarray(wide[5:325, 12:312]), part)
    inside = [t for t in pairs.tiles if 16 < t.left + 64 < 284 and 16 < t.top + 64 < 304]
    assert len(inside) == 1  # along the edge of the picture the template is a guess
    tile = inside[0]
    assert abs(tile.left + 64 - 66) <= 2 and abs(tile.top + 64 - 106) <= 2


def test_a_bent_template_is_registered_piece_by_piece() -> None:
    template = board(320, 640)
    part = template.copy()
    part[:, 400:] = template[:, 397:637]  # the right part lies three pixels further right
    pairs = pairs_of(template, part)
    assert all(330 < tile.left + 64 < 470 for tile in pairs.tiles if tile.level == 1)  # across the fold


def test_a_part_that_differs_everywhere_gets_the_grid() -> None:
    rng = np.random.default_rng(3)
    square = np.full((4, 4), 255, np.uint8)
    template, part = (np.kron(rng.integers(0, 2, (80, 75), dtype=np.uint8), square) for _ in range(2))
    pairs = pairs_of(template, part)
    assert 0 < len(pairs.tiles) <= len(tile_grid(300, 320, 128, 64, (1, 2))) == pairs.total


def test_without_a_gate_an_equal_part_gets_the_grid() -> None:
    picture = board()
    pairs = pairs_of(picture, picture, gate_pixels=0)
    assert pairs.tiles == tile_grid(300, 320, 128, 64, (1, 2)) and pairs.total == len(pairs.tiles)


def test_a_picture_smaller_than_a_tile_is_padded() -> None:
    template = board(90, 100)
    part = template.copy()
    part[40:56, 40:56] = 255 - part[40:56, 40:56]
    pairs = pairs_of(template, part)
    (tile,) = pairs.tiles
    assert pairs.part.shape == (1, 128, 128)
    assert (pairs.part[0, -tile.top : 90 - tile.top, -tile.left : 100 - tile.left] == part).all()


def test_the_gate_shrinks_with_the_contrast_of_the_part() -> None:
    template = board()
    part = template.copy()
    part[150:166, 140:156] = 255 - part[150:166, 140:156]
    dim_template, dim_part = template // 4 + 60, part // 4 + 60
    assert pairs_of(dim_template, dim_part).tiles == pairs_of(template, part).tiles


def rows_of_one_tile(frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """frames [2, S, S, 3] to [patches, 3 * 2 * PATCH^2], pixel by pixel."""
    side = frames.shape[1]
    rows = []
    for block_y in range(0, side, PATCH * MERGE):
        for block_x in range(0, side, PATCH * MERGE):
            for y in range(block_y, block_y + PATCH * MERGE, PATCH):
                for x in range(block_x, block_x + PATCH * MERGE, PATCH):
                    patch = frames[:, y : y + PATCH, x : x + PATCH]
                    rows.append([patch[:, :, :, channel].ravel() for channel in range(3)])
    return np.array(rows, np.float32).reshape(len(rows), -1)


def random_tiles(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("difference_channel", [True, False])
def test_template_and_part_are_two_frames_in_merge_block_order(difference_channel: bool) -> None:
    template, part = random_tiles(2, 3, 8, 8)
    rows = compare_patches(template, part, difference_channel, PATCH, MERGE)
    assert rows.shape == (3, 16, 24) and rows.dtype == np.float32
    for index in range(3):
        before, after = template[index].astype(np.float32), part[index].astype(np.float32)
        third = np.abs(after - before)
        channels = [
            np.stack([grey, grey, third if difference_channel else grey], axis=-1) for grey in (before, after)
        ]
        expected = rows_of_one_tile(np.stack(channels)) / np.float32(127.5) - np.float32(1)
        np.testing.assert_allclose(rows[index], expected, atol=1e-6)


def test_black_is_minus_one_and_white_is_one() -> None:
    black, white = np.zeros((1, 32, 32), np.uint8), np.full((1, 32, 32), 255, np.uint8)
    rows = compare_patches(black, white, difference_channel=False).reshape(1, 4, 3, 2, 256)
    assert (rows[:, :, :, 0] == -1).all() and (rows[:, :, :, 1] == 1).all()


def test_a_still_picture_is_the_same_frame_twice() -> None:
    images = random_tiles(2, 8, 8, 3)
    rows = image_patches(images, PATCH, MERGE)
    for index in range(2):
        frame = images[index].astype(np.float32) / np.float32(127.5) - np.float32(1)
        np.testing.assert_allclose(rows[index], rows_of_one_tile(np.stack([frame, frame])), atol=1e-6)


def test_no_tiles_give_no_rows() -> None:
    none = np.zeros((0, 128, 128), np.uint8)
    assert compare_patches(none, none, difference_channel=True).shape == (0, 64, 1536)


def test_sizes_that_do_not_fit_are_named() -> None:
    with pytest.raises(PictureError, match="register them first"):
        compare_patches(random_tiles(1, 32, 32), random_tiles(1, 32, 64), True)
    with pytest.raises(PictureError, match="tile of 48x32 px is not a multiple of 32"):
        compare_patches(random_tiles(1, 32, 48), random_tiles(1, 32, 48), True)
