"""The pictures of an export: one source for all recipes or one for each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.export.inputs import source_of_each, sources_from_texts
from orinspect.runtime.errors import UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.recipe import Accuracy, Recipe, load_recipe
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"
LENIENT = Accuracy(min_cosine=0.9, min_token_agreement=0.0, max_f_loss=1.0)


def test_one_source_serves_every_recipe_and_named_ones_their_own() -> None:
    assert sources_from_texts(["scenes:pcb?seed=77"], "--calibration") == "scenes:pcb?seed=77"
    assert sources_from_texts(["/data/a=b/pictures"], "--calibration") == "/data/a=b/pictures"
    named = sources_from_texts(["boards=scenes:pcb?seed=7", "metal=pictures/x"], "--calibration")
    assert named == {"boards": "scenes:pcb?seed=7", "metal": "pictures/x"}
    assert source_of_each(named, ["metal", "boards"], "--calibration") == {
        "metal": "pictures/x",
        "boards": "scenes:pcb?seed=7",
    }
    assert source_of_each("one", ["a", "b"], "--calibration") == {"a": "one", "b": "one"}


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        (["a=x", "scenes:pcb?seed=1"], "got 'scenes:pcb\\?seed=1'"),
        (["a=x", "a=y"], "names recipe 'a' twice"),
        (["a="] * 2, "write RECIPE=SOURCE each; got 'a='"),
    ],
)
def test_a_mixture_and_a_recipe_named_twice_are_refused(texts: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        sources_from_texts(texts, "--calibration")


def test_a_recipe_without_a_source_and_a_source_without_a_recipe_are_refused() -> None:
    with pytest.raises(UsageError, match="no source for recipe 'metal'; add --calibration metal=SOURCE"):
        source_of_each({"boards": "x"}, ["boards", "metal"], "--calibration")
    with pytest.raises(UsageError, match=r"steel=\.\.\.: there is no such recipe; given are boards"):
        source_of_each({"boards": "x", "steel": "y"}, ["boards"], "--calibration")


def lenient(name: str) -> Recipe:
    """A shipped recipe with short answers, which random weights never end by themselves."""
    return dataclasses.replace(
        load_recipe(REFERENCE / name), accuracy=LENIENT, max_defects_per_tile=1, token_budget=48
    )


@pytest.mark.slow
def test_one_bundle_holds_a_recipe_of_pairs_and_one_of_surfaces(tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "tiny")
    boards = lenient("pcb-compare.toml")
    alone = dataclasses.replace(
        boards, id="board-alone", mode="single", compare=None, prompt="Inspect.", difference_channel=False
    )
    sources = {boards.id: "scenes:pcb?seed=77&parts=2", alone.id: "scenes:metal?seed=78&parts=1&size_px=128"}
    report = export_checkpoint(checkpoint, [boards, alone], sources, tmp_path / "bundle", threads=1)
    assert set(report["gate"]) == {boards.id, alone.id}
    assert report["gate"][boards.id]["validation"].startswith("scenes:pcb")
    assert report["gate"][alone.id]["validation"].startswith("scenes:metal")
    bundle = Bundle.open(tmp_path / "bundle")
    assert {bundle.recipe(name).recipe.mode for name in (boards.id, alone.id)} == {"compare", "single"}
