"""What a checkpoint can serve: how it compares, and how large its tiles may be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tokenizers")

from orinspect.export.graph.checkpoint import weights_from_folder
from orinspect.export.inputs import check_attention, checked_inputs, job_from_arguments
from orinspect.export.recipe_compile import PATCH_WEIGHT
from orinspect.runtime.errors import RecipeError
from orinspect.runtime.infer.shape import ModelShape
from orinspect.runtime.recipe import Clip, DefectType, Recipe, Tiling
from orinspect.tests.small_bundle import small_recipe
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

pytestmark = pytest.mark.slow


def with_nearly_equal_frames(folder: Path, share: float) -> Path:
    """The second frame's patch weights become the first's, but for `share` of their difference."""
    path = folder / "model.safetensors"
    length = int.from_bytes(path.read_bytes()[:8], "little")
    entry = json.loads(path.read_bytes()[8 : 8 + length])[PATCH_WEIGHT]
    kernel = np.memmap(path, np.float32, "r+", 8 + length + entry["data_offsets"][0], tuple(entry["shape"]))
    kernel[:, :, 1] = kernel[:, :, 0] + share * (kernel[:, :, 1] - kernel[:, :, 0])
    kernel.flush()
    return folder


def compare_of(folder: Path, recipe: Recipe) -> str | None:
    return checked_inputs(folder, [recipe]).recipes[0].compare


UNDECIDED = small_recipe(compare=None)


@pytest.mark.parametrize(("has_dense_head", "share", "chosen"), [
    (True, 1.0, "temporal"), (False, 1.0, "two_images"), (True, 0.02, "two_images"),
])  # fmt: skip
def test_the_default_compares_as_the_checkpoint_was_trained(
    tmp_path: Path, has_dense_head: bool, share: float, chosen: str
) -> None:
    types = UNDECIDED.types if has_dense_head else ()
    write_tiny_checkpoint(tmp_path, number_type="float32", dense_types=types)
    folder = with_nearly_equal_frames(tmp_path, share)
    assert compare_of(folder, UNDECIDED) == chosen


def test_what_the_recipe_says_stands(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path)
    assert compare_of(folder, small_recipe(compare="two_images")) == "two_images"
    assert compare_of(folder, small_recipe(mode="single", compare=None)) is None


def test_frames_that_cannot_be_told_apart_refuse_temporal_and_nothing_else(tmp_path: Path) -> None:
    folder = with_nearly_equal_frames(write_tiny_checkpoint(tmp_path, number_type="float32"), 0.02)
    with pytest.raises(RecipeError, match=r"differ by 0\.0\d\d, less than 0\.1: it cannot tell template"):
        checked_inputs(folder, [small_recipe(compare="temporal")])
    for recipe in (small_recipe(compare="two_images"), small_recipe(mode="single", compare=None)):
        assert checked_inputs(folder, [recipe]).frame_difference < 0.1


def test_inputs_hold_what_the_export_needs(tmp_path: Path) -> None:
    found = checked_inputs(write_tiny_checkpoint(tmp_path, dense_types=()), [UNDECIDED])
    assert found.dense is None
    assert found.shape.tile_px == 128
    assert found.weights.names() == weights_from_folder(tmp_path).names()
    assert found.tokenizer.token_to_id("<|image_pad|>") == found.shape.image_token_id


def test_other_pictures_in_the_same_folder_start_over(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draw = np.random.default_rng(0)
    recipe = small_recipe(mode="single", compare=None)

    def made_from() -> object:
        out = tmp_path / "b"
        return job_from_arguments(
            checkpoint, [recipe], str(pictures), out, "int8", None, (), 1, None
        ).made_from

    for name in ("a.png", "b.png"):
        cv2.imwrite(str(pictures / name), draw.integers(0, 255, (128, 128), np.uint8))
    before = made_from()
    assert made_from() == before
    cv2.imwrite(str(pictures / "a.png"), draw.integers(0, 255, (128, 128), np.uint8))
    assert made_from() != before  # the answers of the work folder are of the old picture


def shape_of(folder: Path, heads: int, tile_px: int) -> ModelShape:
    sizes = TinySizes(vision_heads=2)
    inputs = checked_inputs(write_tiny_checkpoint(folder, sizes), [UNDECIDED])
    side = tile_px // 16
    return dataclasses.replace(inputs.shape, vision_heads=heads, grid_hw=(side, side))


@pytest.mark.parametrize(
    ("attention_mb", "fits", "too_large", "largest"),
    [(64, 512, 544, "32 x 32, tile_px = 512"), (256, 704, 736, "44 x 44, tile_px = 704")],
)
def test_a_tile_beyond_the_attention_memory_names_the_largest(
    tmp_path: Path, attention_mb: int, fits: int, too_large: int, largest: str
) -> None:
    """16 heads, as the released encoders have: 512 px on an 8 GB board, 704 px elsewhere."""
    recipe = small_recipe(tiling=Tiling(512, 512, (1.0,), attention_mb))
    shape = shape_of(tmp_path, 16, fits)
    check_attention(recipe, shape)
    larger = dataclasses.replace(shape, grid_hw=(too_large // 16, too_large // 16))
    with pytest.raises(RecipeError, match=f"attention_mb = {attention_mb}; the largest grid is {largest}"):
        check_attention(recipe, larger)
    wide = dataclasses.replace(shape, grid_hw=(fits // 32, fits // 8))  # as many patches in another form
    check_attention(recipe, wide)


def test_pictures_beyond_the_decoders_attention_memory_are_refused(tmp_path: Path) -> None:
    shape = dataclasses.replace(shape_of(tmp_path, 16, 512), heads=16)
    tiling = Tiling(512, 512, (1.0,), 64)
    check_attention(small_recipe(mode="clip", compare=None, clip=Clip(6), tiling=tiling), shape)
    with pytest.raises(RecipeError, match=r"4 pictures of 256 tokens need 68 MB .* at most 3 pictures"):
        check_attention(
            small_recipe(mode="clip", compare=None, clip=Clip(8), tiling=tiling),
            dataclasses.replace(shape, heads=17),
        )


def test_the_check_comes_before_any_work(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", TinySizes(vision_heads=4))
    recipe = small_recipe(tiling=Tiling(1024, 1024, (1.0,), 64))
    with pytest.raises(RecipeError, match=r"a grid of 64 x 64 patches needs 256 MB .* tile_px = 704"):
        checked_inputs(folder, [recipe])


def test_a_recipe_that_the_device_would_refuse_is_refused_before_the_work(tmp_path: Path) -> None:
    folder = write_tiny_checkpoint(tmp_path / "tiny")
    fixed = small_recipe(template="golden.png")
    with pytest.raises(RecipeError, match=r"template = 'golden\.png' cannot run yet"):
        checked_inputs(folder, [fixed])
    rust = small_recipe(defects=(DefectType("rust", "R1"),))
    with pytest.raises(RecipeError, match="not rust; use its types"):
        checked_inputs(folder, [rust])
    (folder / "dense_head.safetensors").unlink()
    assert checked_inputs(folder, [rust]).dense is None
