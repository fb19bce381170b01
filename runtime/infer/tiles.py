"""A picture pair to registered tiles: overlap, ownership, a coarse level, the gate for identical tiles."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from .register import shift_between, template_tile, window_at

ByteArray = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Tile:
    """One window of the part on one level.

    `left`, `top`: corner in pixels of the level's picture; `scale`: full-size pixels per level pixel;
    `owned_xyxy`: the region of the level's picture whose box centres this tile answers for.
    """

    level: int
    scale: float
    left: int
    top: int
    owned_xyxy: tuple[int, int, int, int]

    def to_picture(self, box_xyxy: Box) -> Box:
        """A box in tile pixels as a box in full-size picture pixels."""
        x1, y1, x2, y2 = box_xyxy
        return (
            (x1 + self.left) * self.scale,
            (y1 + self.top) * self.scale,
            (x2 + self.left) * self.scale,
            (y2 + self.top) * self.scale,
        )

    def owns(self, box_xyxy: Box) -> bool:
        """Whether the centre of a box in tile pixels lies in the owned region."""
        x = (box_xyxy[0] + box_xyxy[2]) / 2 + self.left
        y = (box_xyxy[1] + box_xyxy[3]) / 2 + self.top
        x1, y1, x2, y2 = self.owned_xyxy
        return x1 <= x < x2 and y1 <= y < y2


@dataclass(frozen=True)
class TilePairs:
    """The tiles of one part that survive the gate.

    `template`, `part` [len(tiles), S, S] uint8, registered; `total`: the tiles before the gate.
    """

    tiles: tuple[Tile, ...]
    template: ByteArray
    part: ByteArray
    total: int


def tile_grid(
    width: int, height: int, tile_px: int, stride_px: int, levels: tuple[int, ...]
) -> tuple[Tile, ...]:
    """Every tile of a picture of `width` x `height` px; a level of 2 is the picture at half scale.

    On each level the owned regions are disjoint and cover the picture.
    """
    tiles = []
    for level in levels:
        level_width, level_height = max(width // level, 1), max(height // level, 1)
        columns = _spans(level_width, tile_px, stride_px)
        rows = _spans(level_height, tile_px, stride_px)
        for top, y1, y2 in rows:
            for left, x1, x2 in columns:
                tiles.append(Tile(level, float(level), left, top, (x1, y1, x2, y2)))
    return tuple(tiles)


def tile_pairs(
    template: ByteArray,
    part: ByteArray,
    *,
    tile_px: int,
    stride_px: int,
    levels: tuple[int, ...],
    max_shift_px: int,
    tile_shift_px: int,
    gate_difference: int,
    gate_pixels: int,
) -> TilePairs:
    """Registers, tiles and gates a pair of [H, W] uint8 grey pictures of one size.

    A tile survives when it differs from the template before and after it is registered on its own.
    `gate_difference` is in grey levels of a picture of full contrast (0-255) and shrinks with the part's own
    contrast; `gate_pixels` is the least number of differing pixels, as in `differs`. PictureError when the
    pictures differ in size.
    """
    height, width = part.shape
    dx, dy = shift_between(template, part, max_shift_px)
    if dx or dy:
        template = _shifted(template, dx, dy)
    dark, light = np.percentile(part[::4, ::4], (2, 98))
    threshold = max(gate_difference * float(light - dark) / 255.0, 8.0)
    tiles = tile_grid(width, height, tile_px, stride_px, levels)
    kept, template_tiles, part_tiles = [], [], []
    for level in levels:
        level_template, level_part = _scaled(template, level), _scaled(part, level)
        on_level = [tile for tile in tiles if tile.level == level]
        # The cheap test first, before any tile is registered: most tiles of most parts end here.
        for tile in _open_tiles(level_template, level_part, on_level, tile_px, threshold, gate_pixels):
            part_tile = window_at(level_part, tile.left, tile.top, tile_px)
            fitted = template_tile(level_template, part_tile, tile.left, tile.top, tile_shift_px)
            if differs(fitted, part_tile, threshold, gate_pixels):
                kept.append(tile)
                template_tiles.append(fitted)
                part_tiles.append(part_tile)
    empty = np.zeros((0, tile_px, tile_px), np.uint8)
    return TilePairs(
        tuple(kept),
        np.stack(template_tiles) if kept else empty,
        np.stack(part_tiles) if kept else empty,
        len(tiles),
    )


def differs(template: ByteArray, part: ByteArray, difference: float, pixels: int) -> bool:
    """The gate: whether at least `pixels` pixels of the 3x3-smoothed pair differ by more than `difference`.

    template, part: [S, S] uint8; `difference` in grey levels. Smoothing first keeps edges that are ragged by
    less than a pixel from opening the gate.
    """
    return int(np.count_nonzero(_different(template, part, difference))) >= pixels


def _different(template: ByteArray, part: ByteArray, difference: float) -> npt.NDArray[np.bool_]:
    """Where the 3x3-smoothed pair differs by more than `difference` grey levels."""
    smooth = np.asarray(cv2.absdiff(cv2.blur(template, (3, 3)), cv2.blur(part, (3, 3))), np.uint8)
    return smooth > difference


def _open_tiles(
    template: ByteArray, part: ByteArray, tiles: list[Tile], tile_px: int, difference: float, pixels: int
) -> list[Tile]:
    """The tiles of one level that pass the gate as they lie: one smoothed picture, one look-up a tile."""
    height, width = part.shape
    sums = cv2.integral(_different(template, part, difference).view(np.uint8))  # [H + 1, W + 1] int32
    lefts, tops = np.array([(tile.left, tile.top) for tile in tiles]).T
    rights, bottoms = np.minimum(lefts + tile_px, width), np.minimum(tops + tile_px, height)
    counts = sums[bottoms, rights] - sums[tops, rights] - sums[bottoms, lefts] + sums[tops, lefts]
    return [tile for tile, count in zip(tiles, counts, strict=True) if count >= pixels]


def _spans(length: int, tile_px: int, stride_px: int) -> list[tuple[int, int, int]]:
    """(start, owned from, owned to) of the tiles along one axis."""
    if length <= tile_px:
        return [(0, 0, length)]
    starts = [*range(0, length - tile_px, stride_px), length - tile_px]
    edges = [0, *[(a + tile_px + b) // 2 for a, b in pairwise(starts)], length]
    return list(zip(starts, edges, edges[1:], strict=False))


def _scaled(picture: ByteArray, level: int) -> ByteArray:
    if level == 1:
        return picture
    size = (max(picture.shape[1] // level, 1), max(picture.shape[0] // level, 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _shifted(picture: ByteArray, dx: int, dy: int) -> ByteArray:
    """picture[y + dy, x + dx] at (y, x), the edge repeated."""
    height, width = picture.shape
    ys = np.clip(np.arange(height) + dy, 0, height - 1)
    xs = np.clip(np.arange(width) + dx, 0, width - 1)
    return picture[np.ix_(ys, xs)]
