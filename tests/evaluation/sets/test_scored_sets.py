"""`evaluate` end to end on sets of single pictures: VOC with mapped classes, metal, the wrong recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.evaluation.evaluate import evaluate_bundle
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.recipe import load_recipe
from orinspect.tests.evaluation.sets.drawn_sets import write_voc
from orinspect.tests.small_bundle import write_small_bundle

RECIPE = Path(__file__).parents[3] / "examples" / "reference" / "metal-surface.toml"


@pytest.fixture(scope="module")
def surface_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surface")
    return write_small_bundle(folder, load_recipe(RECIPE), has_dense_head=False).path


def test_a_voc_set_is_scored_with_its_classes_mapped(surface_bundle: Path, tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "set", {
        "a": (("Delle", 5, 5, 30, 30), ("Staub", 40, 5, 50, 15)), "b": None,
        "c": (("scratch", 3, 3, 40, 9),)})
    with pytest.raises(DataSetError, match="the class 'Delle' is none of the recipe's"):
        evaluate_bundle(surface_bundle, str(folder), threads=1)
    classes = tmp_path / "names.json"
    classes.write_text('{"Delle": "dent", "Staub": "ignore"}')
    result = evaluate_bundle(surface_bundle, str(folder), classes=classes, threads=1)
    assert (result["parts"], result["split"]) == (3, "all")
    assert {name: row["truth"] for name, row in result["per_class"].items() if row["truth"]} == {
        "dent": 1, "scratch": 1}


def test_metal_scenes_are_scored(surface_bundle: Path) -> None:
    result = evaluate_bundle(surface_bundle, "scenes:metal?seed=3&parts=2&size_px=160&defects=2", threads=1)
    assert (result["parts"], result["split"]) == (2, "scenes")
    assert sum(row["truth"] for row in result["per_class"].values()) > 0


def test_a_recipe_that_compares_refuses_single_pictures(small_bundle: Path, tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "set", {"a": (("open", 5, 5, 30, 30),)})
    with pytest.raises(DataSetError, match=r"parts without templates \(a\.jpg\), and recipe .* compares"):
        evaluate_bundle(small_bundle, str(folder), threads=1)
