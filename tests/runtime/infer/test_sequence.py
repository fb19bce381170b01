"""Positions and which frequency turns with which axis, masks, and the copy that keeps the past."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments, store_new_kv
from orinspect.runtime.infer.shape import ModelShape

SHAPE = ModelShape(
    hidden=64, layers=2, heads=2, kv_heads=1, head_dim=128, intermediate=96, vocab=100, rms_norm_eps=1e-6,
    rope_theta=5e6, mrope_section=(24, 20, 20), is_head_tied=True, has_attention_bias=False, vision_hidden=32,
    vision_depth=2, vision_heads=2, vision_intermediate=64, vision_rope_theta=1e4, channels=3, patch_px=16,
    temporal_patch=2, merge=2, position_side=8, deepstack=(0,), grid_hw=(8, 8), image_token_id=1,
    vision_start_token_id=2, vision_end_token_id=3,
)  # fmt: skip


def test_text_advances_all_axes_and_an_image_its_longer_side() -> None:
    positions, following = positions_for_segments([2, (2, 3), 1], start=4)
    assert positions.T.tolist() == [
        [4, 4, 4], [5, 5, 5],
        [6, 6, 6], [6, 6, 7], [6, 6, 8], [6, 7, 6], [6, 7, 7], [6, 7, 8],
        [9, 9, 9],
    ]  # fmt: skip
    assert following == 10


def test_no_segments_take_no_place() -> None:
    positions, following = positions_for_segments([], start=3)
    assert (positions.shape, following) == ((3, 0), 3)
    assert positions_for_segments([0, (1, 1)])[0].tolist() == [[0], [0], [0]]


def axis_of_each_frequency(shape: ModelShape) -> list[str]:
    """Move one axis at a time and see which of the half-head's frequencies turn."""
    axes = ["?"] * (shape.head_dim // 2)
    for which, letter in enumerate("thw"):
        positions = np.zeros((1, 3, 1), np.int64)
        positions[0, which] = 1
        cos, sin = mrope_cos_sin(positions, shape)
        for index in np.flatnonzero((sin[0, 0, : len(axes)] != 0) | (cos[0, 0, : len(axes)] != 1)):
            axes[index] = letter
    return axes


def test_released_models_interleave_three_axes_then_time() -> None:
    assert axis_of_each_frequency(SHAPE) == list("thw" * 20 + "tttt")


def test_a_short_section_leaves_more_to_time() -> None:
    shape = dataclasses.replace(SHAPE, head_dim=32, mrope_section=(8, 5, 3))
    assert axis_of_each_frequency(shape) == list("thwthwthw" + "tht" + "tht" + "t")


def test_text_turns_as_plain_rope() -> None:
    cos, sin = mrope_cos_sin(np.full((2, 3, 1), 7), SHAPE)
    angles = 7 / 5e6 ** (np.arange(0, 128, 2) / 128)
    assert cos.dtype == sin.dtype == np.float32
    assert cos.shape == (2, 1, 128)
    assert np.allclose(cos[0, 0], np.cos(np.tile(angles, 2)), atol=1e-6)
    assert np.allclose(sin[1, 0], np.sin(np.tile(angles, 2)), atol=1e-6)


def test_positions_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"positions must be \[B, 3, K\]"):
        mrope_cos_sin(np.zeros((3, 5), np.int64), SHAPE)


def test_shape_survives_json(tmp_path: Path) -> None:
    assert ModelShape.from_json(SHAPE.to_json()) == SHAPE
    document = SHAPE.to_json()
    document["colour"] = document.pop("layers")
    with pytest.raises(BundleError, match=r"missing keys \['layers'\] and unknown keys \['colour'\]"):
        ModelShape.from_json(document)


def test_a_grid_that_is_not_square_has_no_tile_side() -> None:
    assert SHAPE.tile_px == 128
    with pytest.raises(ValueError, match="4 x 8 patches is not square"):
        assert dataclasses.replace(SHAPE, grid_hw=(4, 8)).tile_px


def seen(mask: np.ndarray, row: int) -> list[list[int]]:
    """For every query of a row, the columns that it sees."""
    return [np.flatnonzero(line == 0).tolist() for line in mask[row]]


def test_mask_of_a_ragged_batch() -> None:
    mask = mask_for([2, 0, 3], [3, 1, 0], past_slots=4, columns=3)
    assert mask.dtype == np.float32
    assert mask.shape == (3, 3, 7)
    assert set(np.unique(mask)) == {0.0, np.float32(-1e4)}
    assert seen(mask, 0) == [[0, 1, 4], [0, 1, 4, 5], [0, 1, 4, 5, 6]]
    assert seen(mask, 1) == [[4], [5], [6]], "two padded queries see themselves; the real one has no past"
    assert seen(mask, 2) == [[4], [5], [6]], "an idle row is padding only and its past is not read"


def test_mask_without_a_past_is_causal() -> None:
    assert seen(mask_for([0], [3], past_slots=0, columns=3), 0) == [[0], [0, 1], [0, 1, 2]]


@pytest.mark.parametrize(("past", "real"), [([5], [1]), ([-1], [1]), ([0], [4]), ([0], [-1])])
def test_lengths_outside_the_buffer_are_refused(past: list[int], real: list[int]) -> None:
    with pytest.raises(ValueError, match="must lie within"):
        mask_for(past, real, past_slots=4, columns=3)


def test_lengths_of_different_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="2 past lengths do not match 1"):
        mask_for([0, 0], [1], past_slots=4, columns=3)


def test_new_rows_are_placed_behind_the_past_and_padding_is_left_out() -> None:
    past = np.full((3, 1, 2, 1, 5, 1), -1, np.float32)
    new = np.arange(3 * 2 * 3, dtype=np.float32).reshape(3, 1, 2, 1, 3, 1)
    store_new_kv(past, new, [1, 0, 5], [2, 3, 0])
    assert past[0, 0, :, 0, :, 0].tolist() == [[-1, 1, 2, -1, -1], [-1, 4, 5, -1, -1]]
    assert past[1, 0, :, 0, :, 0].tolist() == [[6, 7, 8, -1, -1], [9, 10, 11, -1, -1]]
    assert (past[2] == -1).all()


def test_a_row_that_does_not_fit_is_refused() -> None:
    past, new = np.zeros((1, 1, 2, 1, 4, 1), np.float32), np.zeros((1, 1, 2, 1, 2, 1), np.float32)
    with pytest.raises(ValueError, match=r"row 0: 3 \+ 2 tokens do not fit 4 slots"):
        store_new_kv(past, new, [3], [2])
