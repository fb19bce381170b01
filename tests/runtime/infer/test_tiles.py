"""Which tile answers for which pixel, and which tiles are looked at."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.infer.tiles import TilePairs, differs, tile_grid, tile_pairs

Picture = npt.NDArray[np.uint8]


def board(height: int = 320, width: int = 300) -> Picture:
    """Traces and pads, black and white."""
    picture = np.zeros((height, width), np.uint8)
    for x in range(20, width, 36):
        cv2.line(picture, (x, 0), (x + 12, height), 255, 9)
    for x, y in np.random.default_rng(5).integers(20, min(height, width) - 20, (14, 2)).tolist():
        cv2.circle(picture, (x, y), 13, 255, -1)
    return picture


def pairs_of(template: Picture, part: Picture, gate_pixels: int = 4) -> TilePairs:
    return tile_pairs(
        template,
        part,
        tile_px=128,
        stride_px=64,
        levels=(1, 2),
        max_shift_px=6,
        tile_shift_px=4,
        gate_difference=144,
        gate_pixels=gate_pixels,
    )


@pytest.mark.parametrize(
    ("width", "height"), [(640, 640), (641, 333), (129, 128), (127, 400), (90, 61), (257, 1), (193, 191)]
)
@pytest.mark.parametrize("stride_px", [64, 96, 128])
def test_every_pixel_of_a_level_is_owned_once(width: int, height: int, stride_px: int) -> None:
    tiles = tile_grid(width, height, 128, stride_px, (1, 2))
    for level in (1, 2):
        owners = np.zeros((max(height // level, 1), max(width // level, 1)), int)
        for tile in (tile for tile in tiles if tile.level == level):
            x1, y1, x2, y2 = tile.owned_xyxy
            owners[y1:y2, x1:x2] += 1
            assert x2 - x1 > 0 and y2 - y1 > 0
            assert tile.left <= x1 and x2 <= tile.left + 128 and tile.top <= y1 and y2 <= tile.top + 128
        assert (owners == 1).all()


def test_a_box_belongs_to_one_tile_and_comes_back_to_its_place() -> None:
    for level in (1, 2):
        tiles = tile_grid(500, 380, 128, 64, (level,))
        box = (201.0 / level, 90.0 / level, 231.0 / level, 130.0 / level)
        local = [(box[0] - t.left, box[1] - t.top, box[2] - t.left, box[3] - t.top) for t in tiles]
        owners = [(tile, b) for tile, b in zip(tiles, local, strict=True) if tile.owns(b)]
        assert len(owners) == 1
        assert owners[0][0].to_picture(owners[0][1]) == (201.0, 90.0, 231.0, 130.0)


def test_a_part_equal_to_its_template_opens_no_tile() -> None:
    picture = board()
    pairs = pairs_of(picture, picture)
    assert pairs.tiles == () and pairs.total == len(tile_grid(300, 320, 128, 64, (1, 2)))
    assert pairs.template.shape == pairs.part.shape == (0, 128, 128)


def test_exactly_the_tiles_that_see_a_defect_survive() -> None:
    template = board()
    part = template.copy()
    part[150:162, 140:152] = 255 - part[150:162, 140:152]
    pairs = pairs_of(template, part)
    expected = [
        tile
        for tile in tile_grid(300, 320, 128, 64, (1, 2))
        if tile.left * tile.scale < 152
        and (tile.left + 128) * tile.scale > 140
        and tile.top * tile.scale < 162
        and (tile.top + 128) * tile.scale > 150
    ]
    assert list(pairs.tiles) == expected
    for tile, template_tile, part_tile in zip(pairs.tiles, pairs.template, pairs.part, strict=True):
        if tile.level == 1:
            rows, columns = slice(tile.top, tile.top + 128), slice(tile.left, tile.left + 128)
            assert (part_tile == part[rows, columns]).all()
            assert (template_tile == template[rows, columns]).all()


def test_a_shifted_template_opens_only_where_the_defect_is() -> None:
    wide = board(336, 316)
    part = wide[8:328, 8:308].copy()
    part[100:112, 60:72] = 255 - part[100:112, 60:72]
    pairs = pairs_of(np.ascontiguousarray(wide[5:325, 12:312]), part)
    seen = [tile for tile in pairs.tiles if tile.level == 1]
    assert seen and all(tile.left < 72 and tile.top < 112 for tile in seen)
    for template_tile, part_tile in zip(pairs.template, pairs.part, strict=True):
        inner = (slice(8, -8), slice(8, -8))  # beyond the edge of the picture the template is a guess
        assert (cv2.absdiff(template_tile, part_tile)[inner] > 0).mean() < 0.02


def test_a_bent_template_is_registered_tile_by_tile() -> None:
    template = board(320, 640)
    part = template.copy()
    part[:, 400:] = template[:, 397:637]  # the right part lies three pixels further right
    pairs = pairs_of(template, part)
    lefts = [tile.left for tile in pairs.tiles if tile.level == 1]
    assert all(left < 408 and left + 128 > 390 for left in lefts)  # only tiles across the fold stay open


def test_a_picture_smaller_than_a_tile_is_one_padded_tile_a_level() -> None:
    template = board(90, 100)
    part = template.copy()
    part[40:56, 40:56] = 255 - part[40:56, 40:56]
    pairs = pairs_of(template, part)
    assert [(tile.level, tile.left, tile.top) for tile in pairs.tiles] == [(1, 0, 0), (2, 0, 0)]
    assert pairs.part.shape == (2, 128, 128)
    assert (pairs.part[0, :90, :100] == part).all()


def test_the_gate_counts_smoothed_pixels() -> None:
    flat = np.zeros((32, 32), np.uint8)
    speck, block = flat.copy(), flat.copy()
    speck[10, 10] = 255
    block[10:14, 10:14] = 255
    assert not differs(flat, speck, difference=100, pixels=1)  # one pixel is spread over nine
    assert differs(flat, block, difference=254, pixels=4)  # the four in the middle keep their value
    assert not differs(flat, block, difference=254, pixels=5)
    assert not differs(flat, block, difference=255, pixels=1)


def test_the_gate_shrinks_with_the_contrast_of_the_part() -> None:
    template = board()
    part = template.copy()
    part[150:166, 140:156] = 255 - part[150:166, 140:156]
    dim_template, dim_part = template // 4 + 60, part // 4 + 60
    assert pairs_of(dim_template, dim_part).tiles == pairs_of(template, part).tiles
