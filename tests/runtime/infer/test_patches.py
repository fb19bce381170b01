"""Patch rows against a reference of six loops."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.errors import PictureError
from orinspect.runtime.infer.patches import compare_patches, image_patches

PATCH, MERGE = 2, 2


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
