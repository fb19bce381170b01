"""Exports of every mode from a checkpoint without a dense head: the bundle opens and the words answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("tokenizers")

from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspector
from orinspect.runtime.recipe import Accuracy, Clip, Recipe, Tiling
from orinspect.tests.small_bundle import small_recipe
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

NO_LIMITS = Accuracy(min_cosine=0.0, min_token_agreement=0.0, max_f_loss=1.0)
SMALL = small_recipe(
    compare=None, tiling=Tiling(levels=(1.0,)), max_defects_per_tile=1, accuracy=NO_LIMITS
)
RECIPES: dict[str, Recipe] = {
    "undecided": SMALL,
    "single": dataclasses.replace(SMALL, mode="single"),
    "clip": dataclasses.replace(SMALL, mode="clip", clip=Clip(3)),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), dense_types=())


@pytest.fixture(scope="module")
def frame() -> Frame:
    scene = pcb_scene(3, size_px=192, defects=2)
    earlier = tuple(np.roll(scene.image, by, axis=1) for by in (2, 1))
    return Frame(scene.image, scene.template, 1, 0.0, 0, "test", earlier=earlier)


def answered(bundle: Path, frame: Frame, mode: str) -> Bundle:
    """The bundle, after it has inspected a part."""
    opened = Bundle.open(bundle)
    assert opened.dense_types == ()
    assert "attributes" not in opened.components
    shown = frame if mode == "clip" else dataclasses.replace(frame, earlier=())
    with Inspector(opened, threads=1) as inspector:
        assert inspector.detectors == ("words",)
        found = inspector.inspect(shown)
    assert found.failed is None
    assert found.passes.tiles_decoded == found.passes.tiles - found.passes.tiles_gated > 0
    return opened


@pytest.mark.parametrize("mode", list(RECIPES))
def test_every_mode_exports_without_a_dense_head(
    checkpoint: Path, frame: Frame, tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "b"
    export_checkpoint(checkpoint, [RECIPES[mode]], "never read", out, precision="float32", threads=1)
    bundle = answered(out, frame, mode)
    recipe = bundle.recipe().recipe
    assert recipe.compare == ("two_images" if mode == "undecided" else None)
    assert len(bundle.recipe().between_ids) == recipe.pictures - 1


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["undecided", "clip"])
def test_several_pictures_a_tile_are_calibrated_and_checked_in_int8(
    checkpoint: Path, frame: Frame, tmp_path: Path, mode: str
) -> None:
    source = "scenes:pcb?seed=3&parts=3&size_px=192&defects=3"
    if mode == "clip":
        source = str(tmp_path / "frames")
        Path(source).mkdir()
        for index in range(12):
            picture = np.roll(frame.image, index, axis=1)
            assert cv2.imwrite(str(tmp_path / "frames" / f"{index}.png"), picture)
    report = export_checkpoint(checkpoint, [RECIPES[mode]], source, tmp_path / "b", threads=1)
    assert report["precision"] == "int8"
    answered(tmp_path / "b", frame, mode)
