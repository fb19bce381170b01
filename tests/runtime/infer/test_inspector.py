"""The whole inspection on a real bundle of random weights: it makes no sense and must still keep its
promises.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.errors import BundleError, EngineError, PictureError, RecipeError, UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspection, Inspector, Passes
from orinspect.runtime.infer.pictures.tiles import tile_grid
from orinspect.tests.small_bundle import small_recipe, write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES


@pytest.fixture(scope="module")
def frame() -> Frame:
    scene = pcb_scene(3, size_px=256, defects=3)
    return Frame(
        image=scene.image,
        template=scene.template,
        sequence=1,
        captured_at=0.0,
        monotonic_ns=0,
        source="test",
        part_id=None,
        is_simulated=True,
        truth=None,
        mm_per_px=None,
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As large as the reference: smaller random heads see nothing anywhere."""
    return write_small_bundle(tmp_path_factory.mktemp("inspector"), sizes=REFERENCE_SIZES)


@pytest.fixture(scope="module")
def inspector(bundle: Bundle) -> Iterator[Inspector]:
    with Inspector(bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def inspection(inspector: Inspector, frame: Frame) -> Inspection:
    return inspector.inspect(frame)


def test_the_passes_add_up(inspection: Inspection) -> None:
    passes = inspection.passes
    assert passes.tiles == len(tile_grid(256, 256, 128, 64, (1, 2)))
    assert 0 < passes.tiles_decoded <= passes.tiles - passes.tiles_gated
    assert passes.row_passes_forced == 0
    assert passes.tiles_decoded <= passes.row_passes <= passes.canonical_tokens
    # vision, dense head, then a decoder and a head call for every step of the longest answer
    assert passes.engine_calls >= 4


def test_defects_lie_in_the_picture_and_name_a_type_of_the_recipe(
    inspector: Inspector, inspection: Inspection
) -> None:
    assert inspection.defects  # random weights see defects everywhere
    for defect in (*inspection.defects, *inspection.dense, *inspection.words):
        x1, y1, x2, y2 = defect.bbox_xyxy
        assert 0 <= x1 < x2 <= 256
        assert 0 <= y1 < y2 <= 256
        assert defect.type in inspector.recipe.types
        assert 0 <= defect.confidence <= 1
    assert {defect.detector for defect in inspection.dense} <= {"dense"}
    assert {defect.detector for defect in inspection.words} <= {"words"}
    assert all(defect.reason for defect in inspection.dropped)


def test_the_same_frame_gives_the_same_inspection(
    inspector: Inspector, inspection: Inspection, frame: Frame
) -> None:
    again = dataclasses.replace(inspector.inspect(frame), timings_ms=inspection.timings_ms)
    assert again == inspection


def test_every_stage_is_timed(inspection: Inspection) -> None:
    assert list(inspection.timings_ms) == ["preprocess", "vision", "dense", "prefill", "decode"]
    assert all(value > 0 for value in inspection.timings_ms.values())


def test_a_part_that_equals_its_template_costs_nothing(inspector: Inspector, frame: Frame) -> None:
    assert frame.template is not None
    found = inspector.inspect(dataclasses.replace(frame, image=frame.template))
    tiles = found.passes.tiles
    assert found.passes == Passes(tiles=tiles, tiles_gated=tiles)
    assert found.defects == found.dense == found.words == ()
    assert found.failed is None


def test_a_colour_picture_of_a_grey_part_is_the_grey_part(
    inspector: Inspector, inspection: Inspection, frame: Frame
) -> None:
    assert frame.template is not None
    part, template = (np.repeat(picture[:, :, None], 3, axis=2) for picture in (frame.image, frame.template))
    colour = dataclasses.replace(frame, image=part, template=template)
    assert inspector.inspect(colour).defects == inspection.defects


def test_the_dense_head_alone_asks_no_decoder(bundle: Bundle, inspection: Inspection, frame: Frame) -> None:
    with Inspector(bundle, threads=1, detectors=("dense",)) as inspector:
        found = inspector.inspect(frame)
    assert found.dense == inspection.dense
    assert found.words == ()
    assert found.passes.row_passes == found.passes.tiles_decoded == found.passes.canonical_tokens == 0
    assert {defect.detector for defect in found.defects} == {"dense"}
    assert all(defect.reason is None for defect in found.defects)


def test_the_words_alone_look_at_every_tile_that_the_gate_lets_through(bundle: Bundle, frame: Frame) -> None:
    with Inspector(bundle, threads=1, detectors=("words",)) as inspector:
        found = inspector.inspect(frame)
    assert found.passes.tiles_decoded == found.passes.tiles - found.passes.tiles_gated
    assert found.dense == ()
    assert {defect.detector for defect in found.defects} <= {"words"}


def test_without_the_gate_every_tile_of_the_grid_is_looked_at(bundle: Bundle, frame: Frame) -> None:
    assert frame.template is not None
    good = dataclasses.replace(frame, image=frame.template)
    with Inspector(bundle, threads=1, gated=False) as inspector:
        found = inspector.inspect(good)
    assert found.passes.tiles > 0 and found.passes.tiles_gated == 0


def test_an_answer_cut_by_its_budget_fails_the_part(tmp_path: Path, frame: Frame) -> None:
    bundle = write_small_bundle(tmp_path, small_recipe(token_budget=15), sizes=REFERENCE_SIZES)
    with Inspector(bundle, threads=1) as inspector:
        found = inspector.inspect(frame)
    assert found.failed is not None
    assert "token_budget is 15" in found.failed


def test_a_part_without_its_template_is_refused(inspector: Inspector, frame: Frame) -> None:
    with pytest.raises(PictureError, match="no template"):
        inspector.inspect(dataclasses.replace(frame, template=None))


def test_a_bundle_that_does_not_fit_its_recipe_is_refused_at_once(tmp_path: Path) -> None:
    tiling = dataclasses.replace(small_recipe().tiling, tile_px=96, stride_px=48)
    bundle = write_small_bundle(tmp_path, small_recipe(tiling=tiling))
    with pytest.raises(BundleError, match="tiles of 96 px"):
        Inspector(bundle)


def test_wrong_recipes_and_detectors_are_named(bundle: Bundle) -> None:
    with pytest.raises(RecipeError, match="nonesuch"):
        Inspector(bundle, "nonesuch")
    with pytest.raises(UsageError, match="sparse"):
        Inspector(bundle, detectors=("sparse",))


def test_a_closed_inspector_says_so(bundle: Bundle, frame: Frame) -> None:
    inspector = Inspector(bundle, threads=1)
    inspector.close()
    inspector.close()
    with pytest.raises(EngineError, match="closed"):
        inspector.inspect(frame)
