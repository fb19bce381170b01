"""A picture pair to registered tiles, and tiles to the patch rows that Qwen3-VL's vision encoder takes.

Tiles are centred on differences and each owns its middle, with a coarse level.

A row is one 16x16 patch of two frames and three channels, flattened as [channel, frame, y, x] (the order in
which transformers' Conv3d weight flattens); rows stand in merge-block order: the four patches of one merged
token follow each other. Source: transformers, models/qwen2_vl/image_processing_qwen2_vl.py and
models/qwen3_vl.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from ...errors import PictureError
from ..engines.engine import FloatArray
from .register import (
    ByteArray,
    clusters_of_differences,
    fitting_corner,
    seen_after_shift,
    shift_between,
    window_at,
)

Box = tuple[float, float, float, float]

HELD_SHARE = 0.625
"""A level is too fine for a cluster longer than this share of a tile: its box and margin would be cut."""


@dataclass(frozen=True)
class Tile:
    """One window of the part on one level.

    `left`, `top`: corner in pixels of the level's picture; `scale`: full-size pixels per level pixel;
    `owned_xyxy`: the region of the level's picture whose box centres this tile answers for.
    """

    level: float
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
    """The tiles of one part: on its differences, or the grid where it differs everywhere.

    `total`: the tiles that the grid takes, or those on the differences where they are more. `cut` takes the
    pictures of a few tiles out of the pair: those of thousands need not lie in memory at once.
    """

    tiles: tuple[Tile, ...]
    total: int
    tile_px: int
    tile_shift_px: int
    # of each level in use: template and part in grey for registration, then the two that are shown
    levels: Mapping[float, Sequence[ByteArray]] = field(repr=False, compare=False)
    shown_shape: tuple[int, ...] = ()  # of a shown pixel: () grey, (3,) colours

    def cut(self, indices: Sequence[int]) -> tuple[ByteArray, ByteArray]:
        """(template, part) of the tiles at `indices`, each [n, S, S] uint8, registered, or [n, S, S, 3]."""
        shape = (len(indices), self.tile_px, self.tile_px, *self.shown_shape)
        templates, parts = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        for place, index in enumerate(indices):
            tile = self.tiles[index]
            template, part, *shown = self.levels[tile.level]
            corner = _fitting_corner(template, part, tile, self.tile_px, self.tile_shift_px)
            templates[place] = tile_window(shown[0], tile, self.tile_px, corner)
            parts[place] = tile_window(shown[1], tile, self.tile_px)
        return templates, parts

    @property
    def template(self) -> ByteArray:
        """The template of all tiles, cut anew each time."""
        return self.cut(range(len(self.tiles)))[0]

    @property
    def part(self) -> ByteArray:
        """The part in all tiles, cut anew each time."""
        return self.cut(range(len(self.tiles)))[1]


def tile_pairs(
    template: ByteArray,
    part: ByteArray,
    *,
    tile_px: int,
    stride_px: int,
    levels: tuple[float, ...],
    max_shift_px: int,
    tile_shift_px: int,
    gate_difference: int,
    gate_pixels: int,
    colours: tuple[ByteArray, ByteArray] | None = None,
) -> TilePairs:
    """Registers, tiles and gates a pair of [H, W] uint8 grey pictures of one size.

    Tiles are centred on the clusters of differing pixels; a part without any has no tiles, one with more
    than a grid would need gets the grid. `gate_difference` is in grey levels of a picture of full contrast
    (0-255) and shrinks with the part's own contrast; `gate_pixels` is the least size of a cluster, 0 looks
    at the whole grid, whatever differs.
    `colours`: the same pair as [H, W, 3]; the tiles are cut from it where the grey pair says.
    PictureError when the pictures differ in size.
    """
    height, width = part.shape
    shown = (template, part) if colours is None else colours
    dx, dy = shift_between(template, part, max_shift_px)
    if dx or dy:
        moved = shifted(template, dx, dy)
        shown = (moved if shown[0] is template else shifted(shown[0], dx, dy), shown[1])
        template = moved
    seen = seen_after_shift(height, width, dx, dy)
    threshold = gate_threshold(part, gate_difference)
    is_gated = gate_pixels > 0
    boxes = (
        clusters_of_differences(template, part, threshold, gate_pixels, tile_shift_px, seen)
        if is_gated
        else []
    )
    tiles = tiles_on_boxes(boxes, tile_px, stride_px, levels)
    total = max(grid_size(width, height, stride_px, levels), len(tiles))
    if not is_gated or len(tiles) > grid_size(width, height, stride_px, levels):
        # differences everywhere: the whole picture is looked at, piece by piece
        tiles = tile_grid(width, height, tile_px, stride_px, levels)
    in_use = dict.fromkeys(tile.level for tile in tiles)
    pair = (template, part, *shown)
    scaled = {level: [_reduced(picture, level) for picture in pair] for level in in_use}
    return TilePairs(tiles, total, tile_px, tile_shift_px, scaled, shown[1].shape[2:])


def tiles_on_boxes(
    boxes: Sequence[tuple[int, int, int, int]], tile_px: int, stride_px: int, levels: tuple[float, ...]
) -> tuple[Tile, ...]:
    """Tiles centred on boxes (full-size pixels); each owns the `stride_px` square in its middle.

    A level is used where it holds the box whole and large enough to be read: up to HELD_SHARE of a tile,
    and for coarser levels from half the stride on. A box beyond that gets rows of full-size tiles too, where
    its many differences are told apart, and a box beyond the coarsest level rows of its tiles. Tiles may
    reach over the picture's edge.
    """
    tiles: list[Tile] = []
    for level in levels:
        for box in boxes:
            longest = max(box[2] - box[0], box[3] - box[1])
            is_small = level > min(levels) and longest <= stride_px * level / 2
            is_large = level < max(levels) and longest > HELD_SHARE * tile_px * level
            if not is_small and (not is_large or level == 1):
                tiles += _tiles_on_box(box, tile_px, stride_px, level)
    return tuple(tiles)


def tile_grid(
    width: int, height: int, tile_px: int, stride_px: int, levels: tuple[float, ...]
) -> tuple[Tile, ...]:
    """Tiles whose owned squares cover a `width` x `height` picture on every level that does not magnify."""
    return tuple(
        tile
        for level in _grid_levels(levels)
        for tile in _tiles_on_box((0, 0, width, height), tile_px, stride_px, level)
    )


def grid_size(width: int, height: int, stride_px: int, levels: tuple[float, ...]) -> int:
    """How many tiles `tile_grid` gives."""
    return sum(
        len(_centres(0, height / level, stride_px)) * len(_centres(0, width / level, stride_px))
        for level in _grid_levels(levels)
    )


def _grid_levels(levels: tuple[float, ...]) -> list[float]:
    return [level for level in levels if level >= 1] or [max(levels)]


def _tiles_on_box(box: tuple[int, int, int, int], tile_px: int, stride_px: int, level: float) -> list[Tile]:
    """The fewest tiles of one level whose owned squares cover a box."""
    x1, y1, x2, y2 = (side / level for side in box)
    half, zoom = stride_px // 2, max(round(1 / level), 1)
    tiles = []
    for y in _centres(y1, y2, stride_px):
        for x in _centres(x1, x2, stride_px):
            x, y = x // zoom * zoom, y // zoom * zoom  # a magnified window begins at a whole pixel
            owned = (x - half, y - half, x + half, y + half)
            tiles.append(Tile(level, level, x - tile_px // 2, y - tile_px // 2, owned))
    return tiles


def gate_threshold(part: ByteArray, gate_difference: float) -> float:
    """Grey levels that count as a difference on this part: `gate_difference` at full contrast, at least 8."""
    dark, light = (_percentile(part[::4, ::4], share) for share in (0.02, 0.98))
    return max(gate_difference * (light - dark) / 255.0, 8.0)


def _percentile(levels: ByteArray, share: float) -> float:
    """np.percentile of grey levels by counting them: to sort those of 12 megapixels takes much longer."""
    counts = np.bincount(levels.reshape(-1), minlength=256).cumsum()
    place = share * (levels.size - 1)
    low, high = (int(np.searchsorted(counts, math.floor(place) + step, side="right")) for step in (0, 1))
    return low + (min(high, 255) - low) * (place - math.floor(place))


def _centres(start: float, stop: float, stride_px: int) -> list[int]:
    """Whole-pixel centres of the fewest equal pieces of at most `stride_px` that cover start..stop."""
    count = max(1, math.ceil((stop - start) / stride_px))
    return [round(start + (stop - start) * (index + 0.5) / count) for index in range(count)]


def tile_pair(
    template: ByteArray, part: ByteArray, tile: Tile, tile_px: int, max_shift_px: int, room_px: int = 0
) -> tuple[ByteArray, ByteArray]:
    """(template, part) of one tile, [tile_px + 2 * room_px] squared, the template registered to the part.

    `template` and `part` are the pictures of the tile's level; on a level below 1 they are the full-size
    ones and the window is magnified. `room_px`: tile pixels around the tile, for training.
    """
    corner = _fitting_corner(template, part, tile, tile_px, max_shift_px)
    return (
        tile_window(template, tile, tile_px, corner, room_px),
        tile_window(part, tile, tile_px, None, room_px),
    )


def tile_window(
    picture: ByteArray, tile: Tile, tile_px: int, corner: tuple[int, int] | None = None, room_px: int = 0
) -> ByteArray:
    """[side, side] or [side, side, 3], side = tile_px + 2 * room_px: a tile out of its level's picture.

    `corner`: (x, y) in the picture's pixels of another place than the tile's own.
    """
    zoom = _zoom(tile)
    x, y = corner or (tile.left // zoom, tile.top // zoom)
    room = room_px // zoom
    window = window_at(picture, x - room, y - room, tile_px // zoom + 2 * room)
    if zoom == 1:
        return window
    side = window.shape[0] * zoom
    return np.asarray(cv2.resize(window, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)


def level_pictures(picture: ByteArray, levels: Sequence[float]) -> dict[float, ByteArray]:
    """The picture at each level, as `tile_window` takes it; levels below 1 magnify tile by tile."""
    return {level: _reduced(picture, level) for level in levels}


def _fitting_corner(
    template: ByteArray, part: ByteArray, tile: Tile, tile_px: int, max_shift_px: int
) -> tuple[int, int]:
    """Where the template of this tile lies best, in the pixels of its level's picture."""
    zoom = _zoom(tile)
    left, top = tile.left // zoom, tile.top // zoom
    return fitting_corner(template, window_at(part, left, top, tile_px // zoom), left, top, max_shift_px)


def _zoom(tile: Tile) -> int:
    """How often a full-size pixel stands in the tile, along each axis."""
    return max(round(1 / tile.scale), 1)


def _reduced(picture: ByteArray, level: float) -> ByteArray:
    """The picture of a level; levels below 1 magnify tile by tile."""
    if level <= 1:
        return picture
    size = (max(int(picture.shape[1] / level), 1), max(int(picture.shape[0] / level), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def shifted(picture: ByteArray, dx: int, dy: int) -> ByteArray:
    """picture[y + dy, x + dx] at (y, x), the edge repeated."""
    height, width = picture.shape[:2]
    dx, dy = min(max(dx, 1 - width), width - 1), min(max(dy, 1 - height), height - 1)
    inner = picture[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    edges = max(-dy, 0), max(dy, 0), max(-dx, 0), max(dx, 0)
    return np.asarray(cv2.copyMakeBorder(inner, *edges, cv2.BORDER_REPLICATE), np.uint8)


def compare_patches(
    template: ByteArray, part: ByteArray, difference_channel: bool, patch_px: int = 16, merge: int = 2
) -> FloatArray:
    """Template and part as the two frames of one temporal patch.

    template, part: [tiles, S, S] uint8 grey, registered to each other; zero tiles are fine. Returns [tiles,
    (S/patch_px)^2, 3 * 2 * patch_px^2] float32 in [-1, 1]. With `difference_channel` the third channel of
    both frames is |part - template|, else all three channels are the grey value. PictureError when the two
    differ in size, or their size is not a multiple of a merged token's.
    """
    return patches_from_pixels(pair_pixels(template, part, difference_channel), patch_px, merge)


def pair_pixels(template: ByteArray, part: ByteArray, difference_channel: bool) -> ByteArray:
    """[tiles, 3, 2, S, S] uint8 of the pairs that `compare_patches` takes."""
    if template.shape != part.shape:
        raise PictureError(
            f"template and part differ in size: {template.shape} and {part.shape}; register them first"
        )
    pixels = np.empty((len(part), 3, 2, *part.shape[1:]), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = template[:, None], part[:, None]
    if difference_channel:
        pixels[:, 2] = (np.maximum(template, part) - np.minimum(template, part))[:, None]
    return pixels


def image_patches(images: ByteArray, patch_px: int = 16, merge: int = 2) -> FloatArray:
    """Single pictures, the same frame twice, as Qwen3-VL treats a still image.

    images: [tiles, S, S, 3] uint8 RGB. Returns what `compare_patches` does.
    """
    return patches_from_pixels(frame_pixels(images, images), patch_px, merge)


def frame_pixels(first: ByteArray, second: ByteArray) -> ByteArray:
    """[tiles, 3, 2, S, S] uint8 of two frames, each [tiles, S, S, 3] uint8 RGB."""
    return np.stack([np.moveaxis(frame, -1, 1) for frame in (first, second)], axis=2)


def patches_from_pixels(pixels: ByteArray, patch_px: int = 16, merge: int = 2) -> FloatArray:
    """[tiles, 3, 2, H, W] uint8 to [tiles, patches, 3*2*patch_px^2] float32 in merge-block order."""
    tiles, channels, frames, height, width = pixels.shape
    block = patch_px * merge
    if height % block or width % block:
        raise PictureError(f"a tile of {width}x{height} px is not a multiple of {block} px; pad it first")
    blocks = pixels.reshape(
        tiles, channels, frames, height // block, merge, patch_px, width // block, merge, patch_px
    )
    # to tile | block y, block x, y in block, x in block | channel, frame, y, x
    rows = np.empty(
        (tiles, height // patch_px * (width // patch_px), channels * frames * patch_px**2), np.float32
    )
    blocks = blocks.transpose(0, 3, 6, 4, 7, 1, 2, 5, 8)
    np.divide(blocks, np.float32(127.5), out=rows.reshape(blocks.shape), dtype=np.float32)
    rows -= 1.0  # in place: the rows of a part with many defects are 30 MB
    return rows
