"""A picture pair to registered tiles: overlap, ownership, a coarse level, and the gate for identical tiles."""

from __future__ import annotations

from dataclasses import dataclass

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
            (x1 + self.left) * self.scale, (y1 + self.top) * self.scale,
            (x2 + self.left) * self.scale, (y2 + self.top) * self.scale,
        )

    def owns(self, box_xyxy: Box) -> bool:
        """Whether the centre of a box in tile pixels lies in the owned region."""
        x = (box_xyxy[0] + box_xyxy[2]) / 2 + self.left
        y = (box_xyxy[1] + box_xyxy[3]) / 2 + self.top
        x1, y1, x2, y2 = self.owned_xyxy
        return x1 <= x < x2 and y1 <= y < y2


@dataclass(frozen=True)
class TilePairs:
    """The tiles of one part that survive the gate: `template`, `part` [tiles, S, S] uint8, `tiles`, and the count of all."""

    tiles: tuple[Tile, ...]
    template: ByteArray
    part: ByteArray
    total: int


def tile_grid(width: int, height: int, tile_px: int, stride_px: int, levels: tuple[int, ...]) -> tuple[Tile, ...]:
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

    `gate_difference` is in grey levels of a picture of full contrast (0-255) and shrinks with the part's own contrast.
    """
    height, width = part.shape
    dx, dy = shift_between(template, part, max_shift_px)
    if dx or dy:
        template = _shifted(template, dx, dy)
    levels_of = {level: (_scaled(template, level), _scaled(part, level)) for level in levels}
    tiles = tile_grid(width, height, tile_px, stride_px, levels)
    dark, light = np.percentile(part[::4, ::4], (2, 98))
    threshold = max(gate_difference * float(light - dark) / 255.0, 8.0)
    kept, template_tiles, part_tiles = [], [], []
    for tile in tiles:
        level_template, level_part = levels_of[tile.level]
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
    """The gate: whether at least `pixels` pixels of the 3x3-smoothed pair differ by more than `difference` grey levels.

    Smoothing first keeps edges that are ragged by less than a pixel from opening the gate.
    """
    smooth = cv2.absdiff(cv2.blur(template, (3, 3)), cv2.blur(part, (3, 3)))
    return int(np.count_nonzero(smooth > difference)) >= pixels


def _spans(length: int, tile_px: int, stride_px: int) -> list[tuple[int, int, int]]:
    """(start, owned from, owned to) of the tiles along one axis."""
    if length <= tile_px:
        return [(0, 0, length)]
    starts = [*range(0, length - tile_px, stride_px), length - tile_px]
    edges = [0, *[(a + tile_px + b) // 2 for a, b in zip(starts, starts[1:])], length]
    return list(zip(starts, edges, edges[1:]))


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
