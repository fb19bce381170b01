"""What each mode shows: which pictures, in which order, cut where, in which colours."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from orinspect.runtime.errors import PictureError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import rows_a_call
from orinspect.runtime.infer.engines.engine import engine_from_bundle
from orinspect.runtime.infer.pictures.tiles import compare_patches, image_patches
from orinspect.runtime.infer.pictures.views import (
    features_from_patches,
    last_picture,
    patches_from_view,
    pictures_a_call,
    view_from_frames,
    view_from_pair,
)
from orinspect.runtime.infer.sequence import positions_for_segments, run_from_pictures
from orinspect.runtime.recipe import Clip, Registration, Tiling
from orinspect.tests.small_bundle import small_recipe

Picture = npt.NDArray[np.uint8]
ONE_TILE = Tiling(128, 128, (1.0,))


def colours(seed: int, height: int = 128, width: int = 128) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_temporal_is_the_pair_in_one_picture() -> None:
    recipe = small_recipe(tiling=ONE_TILE, registration=Registration(0, 0))
    template, part = colours(1)[..., 0], colours(2)[..., 0]
    view = view_from_pair(recipe, template, part)
    assert view.pixels.shape == (1, 1, 3, 2, 128, 128)
    expected = compare_patches(template[None], part[None], True)
    assert np.array_equal(patches_from_view(view.pixels, 16, 2), expected)


def test_two_images_are_the_template_then_the_part_in_colours() -> None:
    recipe = small_recipe(compare="two_images", tiling=ONE_TILE, registration=Registration(0, 0))
    template, part = colours(1), colours(2)
    view = view_from_pair(recipe, template, part)
    rows = patches_from_view(view.pixels, 16, 2)
    assert rows.shape == (1, 128, 1536)
    stills = [image_patches(picture[None, ..., ::-1])[0] for picture in (template, part)]
    assert np.array_equal(rows[0], np.concatenate(stills))


def test_two_images_are_cut_where_the_grey_pair_registers_best() -> None:
    """The template lies 3 px to the left of the part: its colour tiles are cut 3 px further left."""
    tiling = Tiling(64, 64, (1.0,))
    recipe = small_recipe(compare="two_images", registration=Registration(6, 4), tiling=tiling)
    whole = np.kron(colours(4, 32, 33), np.ones((8, 8, 1), np.uint8))
    template, part = whole[:, 3:259].copy(), whole[:, :256].copy()
    part[110:130, 110:130] = 255 - part[110:130, 110:130]
    view = view_from_pair(recipe, template, part)
    assert 0 < len(view.tiles) < view.total
    shown_template, shown_part = view.pixels[:, 0, :, 0], view.pixels[:, 1, :, 0]
    same = (shown_template == shown_part).all(axis=1).mean(axis=(1, 2))
    assert same.min() > 0.5, "registered, all but the changed square and the border is the same"
    assert same.max() < 1


def test_a_dark_part_is_shown_in_its_templates_light() -> None:
    recipe = small_recipe(tiling=Tiling(64, 64, (1.0,)), registration=Registration(0, 0))
    template = np.kron(colours(6, 32, 32)[..., 0] // 2 + 64, np.ones((8, 8), np.uint8))
    part = template.copy()
    part[110:130, 110:130] = 255 - part[110:130, 110:130]
    same = view_from_pair(recipe, template, part)
    dark = view_from_pair(recipe, template, (part // 2).astype(np.uint8))
    assert 0 < len(same.tiles) < same.total
    assert dark.tiles == same.tiles, "no place differs by its light alone"
    assert np.abs(dark.pixels[:, :, 0].astype(int) - same.pixels[:, :, 0]).max() <= 2


def test_a_grey_camera_fills_three_channels() -> None:
    recipe = small_recipe(mode="single", compare=None, tiling=ONE_TILE)
    view = view_from_frames(recipe, [colours(3)[..., 1]])
    pixels = view.pixels[0, 0]
    assert (pixels == pixels[:1, :1]).all()


def test_a_single_picture_is_covered_by_a_grid_of_stills() -> None:
    recipe = small_recipe(mode="single", compare=None, tiling=Tiling(128, 64, (1.0, 2.0)))
    view = view_from_frames(recipe, [colours(5, 200, 300)])
    assert view.total == len(view.tiles) == len(view.pixels)
    assert {tile.level for tile in view.tiles} == {1.0, 2.0}
    assert view.picture_wh == (300, 200)
    assert np.array_equal(view.pixels[:, :, :, 0], view.pixels[:, :, :, 1])


@pytest.mark.parametrize(("frames", "pictures"), [(2, 1), (3, 2), (4, 2), (5, 3)])
def test_a_clip_is_pairs_of_frames_and_a_lone_last_frame_stands_twice(frames: int, pictures: int) -> None:
    recipe = small_recipe(mode="clip", compare=None, clip=Clip(frames), tiling=ONE_TILE)
    shown = [colours(seed) for seed in range(frames)]
    view = view_from_frames(recipe, shown)
    assert recipe.pictures == pictures
    assert view.pixels.shape == (1, pictures, 3, 2, 128, 128)
    for index in range(2 * pictures):
        frame = shown[min(index, frames - 1)]
        assert np.array_equal(view.pixels[0, index // 2, :, index % 2], np.moveaxis(frame[..., ::-1], -1, 0))


def test_pairs_of_two_sizes_are_refused() -> None:
    with pytest.raises(PictureError, match="differ in size"):
        view_from_pair(small_recipe(compare="two_images"), colours(1), colours(1, 128, 160))


def test_features_keep_tiles_and_pictures_apart_whatever_the_calls(small_bundle: Bundle) -> None:
    shape = small_bundle.shape
    patches = np.random.default_rng(0).uniform(-1, 1, (3, 2 * shape.patches, shape.patch_features))
    vision = engine_from_bundle(small_bundle, "vision", threads=1)
    whole, calls = features_from_patches(vision, patches.astype(np.float32), shape, 16)
    assert calls == 1
    few, calls = features_from_patches(vision, patches.astype(np.float32), shape, 4)
    assert calls == 2
    for name in ("image_tokens", "deepstack"):
        assert np.allclose(whole[name], few[name], atol=1e-5)
    alone = vision.run({"patches": patches[:, shape.patches :].astype(np.float32)})
    for name, array in last_picture(whole, shape.tokens).items():
        assert array.shape == alone[name].shape
        assert np.allclose(array, alone[name], atol=1e-5)
    vision.close()


def test_a_run_puts_each_picture_before_its_text() -> None:
    tokens, hidden = 4, 3
    pictures = np.arange(2 * tokens * hidden, dtype=np.float32).reshape(-1, hidden)
    features = np.stack([pictures + 100, pictures + 200])
    texts = [np.full((2, hidden), -1, np.float32), np.full((5, hidden), -2, np.float32)]
    run = run_from_pictures(pictures, features, texts, (2, 2), 7)
    assert np.array_equal(run.embeds, np.concatenate([pictures[:4], texts[0], pictures[4:], texts[1]]))
    assert run.deepstack is not None
    assert np.array_equal(run.deepstack[:, 6:10], features[:, 4:])
    assert not run.deepstack[:, 4:6].any() and not run.deepstack[:, 10:].any()
    assert np.array_equal(run.positions, positions_for_segments([(2, 2), 2, (2, 2), 5], 7)[0])
    with pytest.raises(ValueError, match="8 image tokens are not 1 pictures of 4"):
        run_from_pictures(pictures, features, texts[:1], (2, 2), 0)


def test_attention_memory_bounds_the_calls(small_bundle: Bundle) -> None:
    """448 px of a 2B: 784 patches, 16 heads, 37.5 MB of scores a picture."""
    shape = dataclasses.replace(small_bundle.shape, vision_heads=16, heads=16, grid_hw=(28, 28))
    assert shape.vision_scores_bytes == 4 * 16 * 784**2
    found = []
    for budget in (8, 64, 256, 4096):
        recipe = small_recipe(tiling=Tiling(448, 448, (1.0,), budget))
        found.append(pictures_a_call(recipe, shape))
    assert found == [1, 1, 6, 16]
    compiled = small_bundle.recipe()
    rows = []
    for budget in (1, 8, 64):
        recipe = small_recipe(tiling=Tiling(448, 448, (1.0,), budget))
        rows.append(rows_a_call(dataclasses.replace(compiled, recipe=recipe), shape))
    assert rows == [1, 3, 16]
