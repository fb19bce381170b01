"""Interleaved M-RoPE: which frequency turns with which axis."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.rope import mrope_cos_sin
from orinspect.runtime.infer.shape import ModelShape

SHAPE = ModelShape(
    hidden=64, layers=2, heads=2, kv_heads=1, head_dim=128, intermediate=96, vocab=100, rms_norm_eps=1e-6,
    rope_theta=5e6, mrope_section=(24, 20, 20), is_head_tied=True, has_attention_bias=False, vision_hidden=32,
    vision_depth=2, vision_heads=2, vision_intermediate=64, vision_rope_theta=1e4, channels=3, patch_px=16,
    temporal_patch=2, merge=2, position_side=8, deepstack=(0,), grid_hw=(8, 8), image_token_id=1,
    vision_start_token_id=2, vision_end_token_id=3,
)  # fmt: skip


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
