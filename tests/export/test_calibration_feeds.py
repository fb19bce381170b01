"""Calibration feeds of every mode: built when asked for, and what the device's decoder really meets."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tokenizers")

from orinspect.calibration.sessions import MaskedFeed
from orinspect.export.calibration_feeds import (
    CalibrationTiles,
    EngineSet,
    attributes_feeds,
    decoder_feeds,
    patches_from_source,
    tiles_from_patches,
    vision_feeds,
)
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.errors import DataSetError, OrinspectError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import engine_from_bundle
from orinspect.runtime.recipe import Clip, Recipe, Tiling
from orinspect.tests.small_bundle import small_recipe, write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

pytestmark = pytest.mark.slow

TILING = Tiling(levels=(1.0,))
RECIPES: dict[str, Recipe] = {
    "temporal": small_recipe(tiling=TILING, max_defects_per_tile=1),
    "single": small_recipe(mode="single", compare=None, tiling=TILING, max_defects_per_tile=1),
    "two_images": small_recipe(compare="two_images", tiling=TILING, max_defects_per_tile=1),
    "clip": small_recipe(mode="clip", compare=None, clip=Clip(3), tiling=TILING, max_defects_per_tile=1),
}


def silent(what: str, done: int, total: int) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of one board; no list beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    scene = pcb_scene(3, size_px=192, defects=2)
    for index in range(6):
        cv2.imwrite(str(folder / f"{index}.png"), np.roll(scene.image, index, axis=1))
    return folder


@pytest.fixture(scope="module", params=list(RECIPES))
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pictures: Path
) -> tuple[Bundle, CalibrationTiles, Path]:
    """A bundle of one mode, and its tiles with their features in memory-mapped files."""
    recipe = RECIPES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    bundle = write_small_bundle(folder, recipe, sizes=REFERENCE_SIZES)
    source = str(pictures) if recipe.mode == "clip" else "scenes:pcb?seed=3&parts=2&size_px=192&defects=3"
    patches = patches_from_source(source, recipe, bundle.shape, silent, tiles=6)
    with ExitStack() as stack:
        engines = []
        for name in ("vision", "decoder", "head_schema.pcb-compare"):
            engines.append(engine_from_bundle(bundle, name, threads=1))
            stack.callback(engines[-1].close)
        tiles = tiles_from_patches(
            patches,
            bundle.recipe(),
            bundle.shape,
            EngineSet(*engines),
            bundle.embeddings,
            silent,
            work=folder / "work",
        )
    return bundle, tiles, folder / "work"


def test_features_lie_in_files_and_pictures_stay_bytes(made: tuple[Bundle, CalibrationTiles, Path]) -> None:
    bundle, tiles, work = made
    assert isinstance(tiles.image_tokens, np.memmap)
    assert sorted(path.name for path in work.iterdir()) == [
        "pcb-compare.deepstack.npy",
        "pcb-compare.image_tokens.npy",
    ]
    pictures = tiles.compiled.recipe.pictures
    assert tiles.image_tokens.shape[1:] == (pictures * bundle.shape.tokens, bundle.shape.hidden)
    assert tiles.patches[:1].shape[1:] == (pictures * bundle.shape.patches, bundle.shape.patch_features)
    assert tiles.patches.pixels.dtype == np.uint8  # type: ignore[union-attr]
    assert 0 < len(tiles.patches) <= 6


def test_feeds_are_built_when_asked_for_and_kept_by_nobody(
    made: tuple[Bundle, CalibrationTiles, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, tiles, _ = made
    feeds = decoder_feeds([tiles], bundle.shape, bundle.embeddings)
    vision, attributes = vision_feeds([tiles]), attributes_feeds([tiles])
    assert len(feeds) == len(vision) == len(attributes) > 0
    once, again = feeds[0], feeds[0]
    assert isinstance(once, MaskedFeed) and isinstance(again, MaskedFeed)
    assert once.inputs["embeds"] is not again.inputs["embeds"]
    assert np.array_equal(once.inputs["embeds"], again.inputs["embeds"])
    assert len(list(feeds)) == len(feeds)
    assert len(feeds[:1]) == 1


def test_every_picture_is_a_row_of_the_vision_feeds(made: tuple[Bundle, CalibrationTiles, Path]) -> None:
    bundle, tiles, _ = made
    rows = [np.asarray(feed["patches"]) for feed in vision_feeds([tiles])]  # type: ignore[index]
    assert sum(map(len, rows)) == len(tiles.patches) * tiles.compiled.recipe.pictures
    assert max(map(len, rows)) <= 4
    assert {row.shape[1] for row in rows} == {bundle.shape.patches}
    for feed in attributes_feeds([tiles]):
        assert feed["image_tokens"].shape[1] == bundle.shape.tokens  # type: ignore[index]


def test_teacher_forcing_makes_the_decisions_again(made: tuple[Bundle, CalibrationTiles, Path]) -> None:
    """One pass over pictures, texts and the whole answer: the hidden states choose each token of the answer.

    So the feeds are what the device's decoder meets: order of pictures, texts between, positions, mask.
    """
    bundle, tiles, _ = made
    guide, index, decided = tiles.compiled.guide, 0, 0
    with (
        engine_from_bundle(bundle, "decoder", threads=1) as decoder,  # type: ignore[attr-defined]
        engine_from_bundle(bundle, "head_schema.pcb-compare", threads=1) as head,  # type: ignore[attr-defined]
    ):
        for feed in decoder_feeds([tiles], bundle.shape, bundle.embeddings):
            assert isinstance(feed, MaskedFeed)
            for hidden in decoder.run(feed.inputs)["hidden"]:
                answer = tiles.answers[index]
                index += 1
                # the row of token i - 1 chooses token i; the last row chooses the last token
                logits = head.run({"hidden": hidden[-len(answer.ids) :]})["logits"]
                for decision in answer.decisions:
                    state = guide.walk(answer.ids[: decision.index])
                    assert state is not None
                    choice = guide.choice(state)
                    best = int(np.argmax(logits[decision.index][choice.rows]))
                    assert choice.token_ids[best] == answer.ids[decision.index]
                    decided += 1
    assert index == len(tiles.answers)
    assert decided > index


def test_a_folder_of_pictures_is_a_source(pictures: Path, tmp_path: Path, small_shape: Bundle) -> None:
    shape = small_shape.shape
    single = patches_from_source(str(pictures), RECIPES["single"], shape, silent)
    assert set(single.names) <= {f"{index}.png" for index in range(6)}
    clip = patches_from_source(str(pictures), RECIPES["clip"], shape, silent)
    assert set(clip.names) <= {"2.png", "5.png"}
    with pytest.raises(DataSetError, match="no tile of"):
        patches_from_source(str(pictures), RECIPES["temporal"], shape, silent)
    with pytest.raises(OrinspectError, match="takes 3 frames of a part, got 1"):
        patches_from_source("scenes:pcb?seed=3&parts=2", RECIPES["clip"], shape, silent)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(DataSetError, match="too few for clips of 3 frames"):
        patches_from_source(str(tmp_path), RECIPES["clip"], shape, silent)
    with pytest.raises(DataSetError, match="not a folder"):
        patches_from_source(str(tmp_path / "nowhere"), RECIPES["single"], shape, silent)


@pytest.fixture(scope="module")
def small_shape(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("shape"))
