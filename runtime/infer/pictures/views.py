"""What the model is shown of a part: its tiles, and for each tile the pictures of the prompt.

    compare, temporal     one picture: template and part are its two frames
    compare, two_images   two pictures: the template, then the part, each a still
    single                one picture: the part, a still
    clip                  a picture for every two frames, in order; a lone last frame stands twice

A still is the same frame twice, as Qwen3-VL treats it. Tiles of a pair lie on its differences; where there is
no template, a grid covers the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from ...errors import PictureError
from ...recipe import FRAMES_A_PATCH, Recipe
from ..engines.engine import Engine, FloatArray
from ..shape import ModelShape
from .register import LIGHT_SLACK, ByteArray, light_between, relit
from .tiles import (
    Tile,
    frame_pixels,
    level_pictures,
    pair_pixels,
    patches_from_pixels,
    tile_grid,
    tile_pairs,
    tile_window,
)

if TYPE_CHECKING:
    from ...capture.frame import Frame

MOST_PICTURES = 16
"""Pictures in one vision call, where their attention scores allow as many."""


@dataclass(frozen=True)
class View:
    """The tiles of one part and their pictures; `total`: the tiles that a grid over the whole part takes.

    `cut` gives the pictures of the tiles at some indices, [n, pictures, 3, 2, S, S] uint8: channels, then the
    two frames of a picture. Nothing is kept: 12 megapixels have thousands of tiles, a gigabyte of them.
    """

    tiles: tuple[Tile, ...]
    total: int
    picture_wh: tuple[int, int]
    cut: Callable[[Sequence[int]], ByteArray] = field(repr=False, compare=False)

    @property
    def pixels(self) -> ByteArray:
        """The pictures of all tiles, cut anew each time."""
        return self.cut(range(len(self.tiles)))


def patches_from_view(pixels: ByteArray, patch_px: int, merge: int) -> FloatArray:
    """[tiles, pictures, 3, 2, S, S] uint8 to [tiles, pictures * N, features] float32, pictures in order."""
    tiles, pictures = pixels.shape[:2]
    rows = patches_from_pixels(pixels.reshape(tiles * pictures, *pixels.shape[2:]), patch_px, merge)
    return rows.reshape(tiles, -1, rows.shape[-1])


def view_from_frame(recipe: Recipe, frame: Frame) -> View:
    """What the recipe shows of a frame; PictureError when it lacks its template or the frames of its clip."""
    if recipe.mode != "compare":
        return view_from_frames(recipe, [*frame.earlier, frame.image])
    if frame.template is None:
        raise PictureError(
            f"frame {frame.sequence} from {frame.source} has no template:"
            f" recipe {recipe.id} compares with one"
        )
    return view_from_pair(recipe, frame.template, frame.image)


def view_from_pair(recipe: Recipe, template: ByteArray, part: ByteArray) -> View:
    """Template and part, each [H, W] grey or [H, W, 3] BGR; PictureError when they differ in size.

    A part that is darker or brighter than its template by more than LIGHT_SLACK is shown in the template's
    light: it would differ everywhere else, and no defect would stand out.
    """
    is_temporal = recipe.compare != "two_images"
    greys = grey(template), grey(part)
    if greys[0].shape == greys[1].shape:
        light = light_between(*greys)
        if not 1.0 / LIGHT_SLACK <= light <= LIGHT_SLACK:
            greys, part = (greys[0], relit(greys[1], light)), relit(part, light)
    pairs = tile_pairs(
        *greys,
        tile_px=recipe.tiling.tile_px,
        stride_px=recipe.tiling.stride_px,
        levels=recipe.tiling.levels,
        max_shift_px=recipe.registration.max_shift_px,
        tile_shift_px=recipe.registration.tile_shift_px,
        gate_difference=recipe.gate.difference,
        gate_pixels=recipe.gate.min_pixels,
        colours=None if is_temporal else (rgb(template), rgb(part)),
    )

    def cut(indices: Sequence[int]) -> ByteArray:
        pair = pairs.cut(indices)
        if is_temporal:
            return pair_pixels(*pair, recipe.difference_channel)[:, None]
        return np.stack([frame_pixels(each, each) for each in pair], axis=1)

    return View(pairs.tiles, pairs.total, _size(part), cut)


def view_from_frames(recipe: Recipe, frames: Sequence[ByteArray]) -> View:
    """The one picture of mode single, or the frames of a clip, each [H, W] grey or [H, W, 3] BGR.

    PictureError when their number is not the recipe's, or when they differ in size.
    """
    wanted = recipe.clip.frames if recipe.mode == "clip" else 1
    if len(frames) != wanted:
        raise PictureError(
            f"recipe {recipe.id} of mode {recipe.mode!r} takes {wanted} frames of a part, got {len(frames)}"
        )
    for index, frame in enumerate(frames):
        if _size(frame) != _size(frames[0]):
            raise PictureError(
                f"frame {index + 1} of the clip is {_size(frame)} px and the first {_size(frames[0])};"
                " give frames of one camera"
            )
    width, height = _size(frames[0])
    tiling = recipe.tiling
    tiles = tile_grid(width, height, tiling.tile_px, tiling.stride_px, tiling.levels)
    in_use = tuple(dict.fromkeys(tile.level for tile in tiles))
    shown = [level_pictures(rgb(frame), in_use) for frame in frames]
    if len(shown) % FRAMES_A_PATCH:
        shown.append(shown[-1])

    def cut(indices: Sequence[int]) -> ByteArray:
        side, count = tiling.tile_px, len(shown) // FRAMES_A_PATCH
        pixels = np.empty((len(indices), count, 3, FRAMES_A_PATCH, side, side), np.uint8)
        for place, index in enumerate(indices):
            tile = tiles[index]
            for at, levels in enumerate(shown):
                window = tile_window(levels[tile.level], tile, side)  # [S, S, 3]
                pixels[place, at // FRAMES_A_PATCH, :, at % FRAMES_A_PATCH] = np.moveaxis(window, -1, 0)
        return pixels

    return View(tiles, len(tiles), (width, height), cut)


def features_from_patches(
    vision: Engine, patches: FloatArray, shape: ModelShape, pictures_a_call: int
) -> tuple[dict[str, FloatArray], int]:
    """What the vision encoder sees in patches [tiles, pictures * N, features], and in how many calls.

    image_tokens [tiles, pictures * T, H] and deepstack [tiles, D, pictures * T, H], pictures in their order.
    """
    tiles = len(patches)
    rows = patches.reshape(-1, shape.patches, patches.shape[-1])  # [tiles * pictures, N, features]
    starts = range(0, len(rows), pictures_a_call)
    runs = [vision.run({"patches": rows[first : first + pictures_a_call]}) for first in starts]
    image_tokens, deepstack = (
        np.concatenate([run[name] for run in runs]) for name in ("image_tokens", "deepstack")
    )
    taps, hidden = deepstack.shape[1], deepstack.shape[3]
    stacked = deepstack.reshape(tiles, -1, taps, shape.tokens, hidden).transpose(0, 2, 1, 3, 4)
    return {
        "image_tokens": image_tokens.reshape(tiles, -1, hidden),
        "deepstack": np.ascontiguousarray(stacked).reshape(tiles, taps, -1, hidden),
    }, len(runs)


def last_picture(features: dict[str, FloatArray], tokens: int) -> dict[str, FloatArray]:
    """The same features of each tile's last picture only, [tiles, T, H] and [tiles, D, T, H]."""
    return {name: np.ascontiguousarray(array[..., -tokens:, :]) for name, array in features.items()}


def pictures_a_call(recipe: Recipe, shape: ModelShape) -> int:
    """Pictures in one vision call whose attention scores stay in the recipe's attention_mb; 1 at least."""
    return max(1, min(MOST_PICTURES, (recipe.tiling.attention_mb << 20) // shape.vision_scores_bytes))


def grey(picture: ByteArray) -> ByteArray:
    """[H, W] uint8 of a picture that is [H, W] grey or [H, W, 3] BGR."""
    if picture.ndim == 2:
        return picture
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def rgb(picture: ByteArray) -> ByteArray:
    """[H, W, 3] uint8, red first as the model takes it, of a picture that is [H, W] grey or [H, W, 3] BGR."""
    code = cv2.COLOR_GRAY2RGB if picture.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(picture, code), dtype=np.uint8)


def _size(picture: ByteArray) -> tuple[int, int]:
    return picture.shape[1], picture.shape[0]
