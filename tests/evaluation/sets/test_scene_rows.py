"""Scenes as rows: boards and metal, millimetres and masks, other scenes for the gate."""

from __future__ import annotations

import numpy as np
import pytest

from orinspect.evaluation.gate.pictures import gate_rows
from orinspect.evaluation.sets.source import check_fits, rows_from_source, training_rows
from orinspect.runtime.capture.frame import camera_from_source
from orinspect.runtime.capture.scenes import DEFECT_TYPES
from orinspect.runtime.capture.scenes.metal import METAL_TYPES
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.recipe import Recipe
from orinspect.tests.small_bundle import small_recipe

METAL = "scenes:metal?seed=5&parts=4&size_px=160&defects=2&surface=brushed"


def test_a_metal_scene_has_no_template_and_is_known_in_millimetres() -> None:
    for row in rows_from_source(METAL, types=METAL_TYPES, box_margin_px=4):
        example = row.read()
        assert example.image.shape == (160, 160, 3) and example.template is None and example.is_simulated
        assert example.mm_per_px == 0.02 and example.frame(1).mm_per_px == 0.02
        assert len(example.truth) == len(example.truth_sizes) == len(example.masks)
        for box, size, mask in zip(example.truth, example.truth_sizes, example.masks, strict=True):
            assert box.type in METAL_TYPES and size is not None and mask is not None
            assert 0 < size.width_mm <= size.length_mm
            assert size.area_mm2 <= size.length_mm * size.width_mm * 1.01
            rows, columns = np.nonzero(mask)
            x1, y1, x2, y2 = box.bbox_xyxy
            assert x1 == max(0, columns.min() - 4) and y2 == min(160, rows.max() + 5)
            assert x2 == min(160, columns.max() + 5) and y1 == max(0, rows.min() - 4)


@pytest.mark.parametrize("source", [METAL, "scenes:pcb?seed=5&parts=2&size_px=192&good=0.5"])
def test_the_rows_are_what_the_camera_shows(source: str) -> None:
    rows = rows_from_source(source)
    with camera_from_source(source) as camera:
        for row, frame in zip(rows, camera.frames(), strict=True):
            example = row.read()
            assert np.array_equal(example.image, frame.image) and example.mm_per_px == frame.mm_per_px
            assert [one.type for one in frame.truth or ()] == [box.type for box in example.truth]


def test_a_share_of_parts_is_good() -> None:
    rows = rows_from_source("scenes:metal?parts=4&size_px=160&defects=1&good=0.5")
    assert sum(row.read().is_good for row in rows) == 2


def test_the_gate_looks_at_other_metal_than_calibration() -> None:
    used = {row.name for row in rows_from_source(METAL)}
    rows = gate_rows(METAL, used)
    assert rows.validation_source == "scenes:metal?seed=40005&parts=4&size_px=160&defects=2&surface=brushed"
    assert not used & {row.name for row in rows.validation} and len(rows.validation) == 4
    assert not np.array_equal(rows.validation[0].read().image, rows.calibration[0].read().image)


def test_metal_and_boards_never_have_one_name() -> None:
    metal, boards = (rows_from_source(f"scenes:{kind}?seed=5&parts=3") for kind in ("metal", "pcb"))
    assert not {row.name for row in metal} & {row.name for row in boards}
    assert not {row.name for row in metal} & {row.name for row in training_rows(METAL, metal)}


@pytest.mark.parametrize(("source", "types", "said"), [
    ("scenes:metal?style=grey", METAL_TYPES, "the key 'style' is unknown; known are .*surface"),
    ("scenes:metal?good=1.5", METAL_TYPES, "share of good parts, 0 to 1"),
    ("scenes:metal?seed=1", DEFECT_TYPES, "shows scratch, .* and the recipe knows only open"),
    ("scenes:pcb?seed=1", METAL_TYPES, "shows open, .* and the recipe knows only scratch"),
])
def test_what_does_not_fit_is_refused(source: str, types: tuple[str, ...], said: str) -> None:
    with pytest.raises(DataSetError, match=said):
        rows_from_source(source, types=types)


def test_an_unknown_surface_is_refused_when_it_is_drawn() -> None:
    with pytest.raises(DataSetError, match="surface is 'wood'"):
        rows_from_source("scenes:metal?surface=wood&parts=1")[0].read()


def test_a_recipe_that_compares_needs_templates(compare_recipe: Recipe) -> None:
    pair, single = (rows_from_source(f"scenes:{kind}?parts=1&size_px=192")[0].read()
                    for kind in ("pcb", "metal"))
    check_fits(pair, compare_recipe, "scenes:pcb")
    with pytest.raises(DataSetError, match=r"parts without templates .* compares each part with one"):
        check_fits(single, compare_recipe, "scenes:metal")
    with pytest.raises(DataSetError, match="has no template"):
        rows_from_source("scenes:metal?parts=1&size_px=160", warp_seed=1)[0].read()
    with pytest.raises(DataSetError, match="has no template to compare with"):
        _ = single.golden


@pytest.fixture
def compare_recipe() -> Recipe:
    return small_recipe()
