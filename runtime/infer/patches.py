"""Tiles to the patch rows that Qwen3-VL's vision encoder takes.

A row is one 16x16 patch of two frames and three channels, flattened as [channel, frame, y, x] (the order in
which transformers' Conv3d weight flattens); rows stand in merge-block order: the four patches of one merged
token follow each other. Source: transformers, models/qwen2_vl/image_processing_qwen2_vl.py and
models/qwen3_vl.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import PictureError

FloatArray = npt.NDArray[np.float32]
ByteArray = npt.NDArray[np.uint8]


def compare_patches(
    template: ByteArray, part: ByteArray, difference_channel: bool, patch_px: int = 16, merge: int = 2
) -> FloatArray:
    """Template and part as the two frames of one temporal patch.

    template, part: [tiles, S, S] uint8 grey, registered to each other; zero tiles are fine. Returns [tiles,
    (S/patch_px)^2, 3 * 2 * patch_px^2] float32 in [-1, 1]. With `difference_channel` the third channel of
    both frames is |part - template|, else all three channels are the grey value. PictureError when the two
    differ in size, or their size is not a multiple of a merged token's.
    """
    if template.shape != part.shape:
        raise PictureError(
            f"template and part differ in size: {template.shape} and {part.shape}; register them first"
        )
    pixels = np.empty((len(part), 3, 2, *part.shape[1:]), np.uint8)
    pixels[:, :, 0], pixels[:, :, 1] = template[:, None], part[:, None]
    if difference_channel:
        pixels[:, 2] = (np.maximum(template, part) - np.minimum(template, part))[:, None]
    return _patch_rows(pixels, patch_px, merge)


def image_patches(images: ByteArray, patch_px: int = 16, merge: int = 2) -> FloatArray:
    """Single pictures, the same frame twice, as Qwen3-VL treats a still image.

    images: [tiles, S, S, 3] uint8 RGB. Returns what `compare_patches` does.
    """
    channels_first = np.moveaxis(images, -1, 1)  # [tiles, 3, S, S]
    return _patch_rows(np.repeat(channels_first[:, :, None], 2, axis=2), patch_px, merge)


def _patch_rows(pixels: ByteArray, patch_px: int, merge: int) -> FloatArray:
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
