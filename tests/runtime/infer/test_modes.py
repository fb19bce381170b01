"""One picture, two pictures and clips through real engines; with a dense head and with the words alone."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.cli import main
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.config import InspectionConfig
from orinspect.runtime.errors import BundleError, PictureError, RecipeError, UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspection, Inspector
from orinspect.runtime.infer.pictures.tiles import tile_grid
from orinspect.runtime.recipe import Clip, Recipe, Tiling
from orinspect.runtime.service import inspector_from_config
from orinspect.tests.small_bundle import small_recipe, write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

pytestmark = pytest.mark.slow  # all of them together take several seconds

TILING = Tiling(levels=(1.0,))
RECIPES: dict[str, Recipe] = {
    "single": small_recipe(mode="single", compare=None, tiling=TILING, max_defects_per_tile=2),
    "two_images": small_recipe(compare="two_images", tiling=TILING, max_defects_per_tile=2),
    "clip": small_recipe(
        mode="clip", compare=None, clip=Clip(3, 2.0), tiling=TILING, max_defects_per_tile=2
    ),
}
GRID = len(tile_grid(192, 192, 128, 64, TILING.levels))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """One bundle a mode, of one random checkpoint without a dense head."""
    return {
        mode: write_small_bundle(
            tmp_path_factory.mktemp(mode), recipe, sizes=REFERENCE_SIZES, has_dense_head=False
        )
        for mode, recipe in RECIPES.items()
    }


@pytest.fixture(scope="module")
def frame() -> Frame:
    scene = pcb_scene(3, size_px=192, defects=2)
    return Frame(scene.image, scene.template, 1, 0.0, 0, "test", is_simulated=True)


def moved(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], by: int) -> np.ndarray:
    return np.roll(picture, by, axis=1)


def inspected(bundle: Bundle, frame: Frame) -> Inspection:
    with Inspector(bundle, threads=1) as inspector:
        assert inspector.detectors == ("words",)
        return inspector.inspect(frame)


def said(found: Inspection) -> object:
    """All that the decoder wrote; random weights mostly write boxes that cannot be."""
    return found.words, found.dropped


def test_a_single_picture_needs_no_template_and_ignores_one(
    bundles: dict[str, Bundle], frame: Frame
) -> None:
    found = inspected(bundles["single"], frame)
    alone = inspected(bundles["single"], dataclasses.replace(frame, template=None))
    assert found.passes == alone.passes
    assert said(found) == said(alone)
    assert found.passes.tiles == GRID
    assert found.passes.tiles_gated == 0


@pytest.mark.parametrize("mode", list(RECIPES))
def test_without_a_dense_head_the_words_see_every_tile_and_report_alone(
    bundles: dict[str, Bundle], frame: Frame, mode: str
) -> None:
    earlier = (frame.image, moved(frame.image, 3)) if mode == "clip" else ()
    found = inspected(bundles[mode], dataclasses.replace(frame, earlier=earlier))
    passes = found.passes
    assert passes.tiles_decoded == passes.tiles - passes.tiles_gated > 0
    assert found.timings_ms["dense"] == 0
    assert found.dense == ()
    limit = RECIPES[mode].thresholds.words
    assert [one.confidence >= limit for one in found.words].count(True) == len(found.defects)
    assert {(one.detector, one.reason) for one in found.defects} <= {("words", None)}


def test_the_dense_detector_of_a_bundle_without_one_is_refused(bundles: dict[str, Bundle]) -> None:
    with pytest.raises(BundleError, match="dense head knows no type"):
        Inspector(bundles["single"], detectors=("dense",))
    with pytest.raises(UsageError):
        Inspector(bundles["single"], detectors=())


def test_the_order_of_two_images_matters(bundles: dict[str, Bundle], frame: Frame) -> None:
    assert frame.template is not None
    there = inspected(bundles["two_images"], frame)
    back = inspected(
        bundles["two_images"], dataclasses.replace(frame, image=frame.template, template=frame.image)
    )
    assert said(there) != said(back)
    with pytest.raises(PictureError, match="no template"):
        inspected(bundles["two_images"], dataclasses.replace(frame, template=None))


def test_the_order_of_a_clip_matters(bundles: dict[str, Bundle], frame: Frame) -> None:
    first, second = frame.image, moved(frame.image, 5)
    there = inspected(bundles["clip"], dataclasses.replace(frame, earlier=(first, second)))
    back = inspected(bundles["clip"], dataclasses.replace(frame, earlier=(second, first)))
    assert there.passes.tiles == GRID
    assert said(there) != said(back)


def test_a_clip_of_another_length_or_size_is_refused(bundles: dict[str, Bundle], frame: Frame) -> None:
    with pytest.raises(PictureError, match="takes 3 frames of a part, got 1"):
        inspected(bundles["clip"], frame)
    small = np.ascontiguousarray(frame.image[:150])
    with pytest.raises(PictureError, match=r"frame 2 of the clip is \(192, 150\) px"):
        inspected(bundles["clip"], dataclasses.replace(frame, earlier=(frame.image, small)))


def test_colours_reach_the_model_of_a_single_picture(
    bundles: dict[str, Bundle], frame: Frame
) -> None:
    red = np.zeros((*frame.image.shape, 3), np.uint8)
    red[..., 2] = frame.image
    blue = np.ascontiguousarray(red[..., ::-1])
    found = [
        inspected(bundles["single"], dataclasses.replace(frame, image=each, template=None))
        for each in (red, blue)
    ]
    assert said(found[0]) != said(found[1])


def test_a_prompt_for_another_number_of_pictures_is_refused(bundles: dict[str, Bundle]) -> None:
    compiled = bundles["two_images"].recipe()
    broken = dataclasses.replace(compiled, between_ids=())

    class Changed(Bundle):
        def recipe(self, recipe_id: str | None = None) -> object:  # type: ignore[override]
            return broken

    bundle = bundles["two_images"]
    with pytest.raises(BundleError, match="shows 2 pictures a tile, its prompt in the bundle has room for 1"):
        Inspector(Changed(bundle.path, bundle.manifest, bundle.sha256, bundle.shape))


def test_the_service_refuses_clips_when_it_starts(bundles: dict[str, Bundle]) -> None:
    config = InspectionConfig(bundle=bundles["clip"].path, recipe=None, threads=1)
    with pytest.raises(RecipeError, match="takes 3 frames a part"), inspector_from_config(config):
        pass


def test_inspect_takes_a_picture_without_template_and_a_folder_of_frames(
    bundles: dict[str, Bundle], frame: Frame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "clip"
    folder.mkdir()
    for index in (9, 10, 11):
        cv2.imwrite(str(folder / f"frame-{index}.png"), moved(frame.image, index))
    for mode, place in (("single", folder / "frame-9.png"), ("clip", folder)):
        assert main(["inspect", str(bundles[mode].path), str(place), "--threads", "1", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["recipe"]["id"] == "pcb-compare"
        assert report["result_state"] == "completed"
    assert main(["inspect", str(bundles["clip"].path), str(folder / "frame-9.png")]) == 1
    assert "takes 3 frames of a part, got 1" in capsys.readouterr().err
