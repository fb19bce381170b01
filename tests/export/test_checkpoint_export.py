"""The whole export on a small random checkpoint: both precisions, two recipes, what errors leave."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from orinspect.export.calibration_feeds import (
    CalibrationTiles,
    decoder_feeds,
    patches_from_source,
    tiles_from_patches,
)
from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.export.recipe_compile import frame_difference
from orinspect.runtime.errors import CheckpointError, DataSetError, OrinspectError, RecipeError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import engine_from_bundle
from orinspect.runtime.infer.judgement import judgement_of
from orinspect.runtime.recipe import Accuracy, DefectType, Recipe, load_recipe
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

pytestmark = pytest.mark.slow  # all of them together take several seconds

LENIENT = Accuracy(min_cosine=0.9, min_token_agreement=0.0, max_f_loss=1.0)
REFERENCE = Path(__file__).parents[2] / "examples" / "reference" / "pcb-compare.toml"
SCENES = "scenes:pcb?seed=77&parts=2"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="module")
def recipes() -> list[Recipe]:
    """The shipped recipe, and a second one with another prompt, other labels and other coordinates.

    Random weights decide by a hair and never end: the gate asks for little, and answers are short.
    """
    shipped = dataclasses.replace(
        load_recipe(REFERENCE), accuracy=LENIENT, max_defects_per_tile=1, token_budget=64
    )
    other = dataclasses.replace(
        shipped,
        id="pcb-two",
        prompt="Name opens and shorts.",
        coordinates="0-1000",
        defects=(DefectType("open", "E1"), DefectType("short", "E2")),
    )
    return [shipped, other]


@pytest.fixture(scope="module")
def exported(
    checkpoint: Path, recipes: list[Recipe], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any], list[tuple[str, int, int]]]:
    """An INT8 bundle of both recipes, its report and the progress on the way."""
    out = tmp_path_factory.mktemp("out") / "bundle"
    steps: list[tuple[str, int, int]] = []
    report = export_checkpoint(
        checkpoint, recipes, SCENES, out, threads=1, progress=lambda *step: steps.append(step)
    )
    return out, report, steps


def test_an_int8_bundle_opens_with_both_recipes(
    exported: tuple[Path, dict[str, Any], Any], recipes: list[Recipe]
) -> None:
    out, report, _ = exported
    bundle = Bundle.open(out)
    assert bundle.precision == report["precision"] == "int8"
    assert bundle.recipe_ids == ("pcb-compare", "pcb-two")
    for recipe in recipes:
        compiled = bundle.recipe(recipe.id)
        assert compiled.recipe == recipe
        engine = engine_from_bundle(bundle, f"head_schema.{recipe.id}", threads=1)
        logits = engine.run({"hidden": np.zeros((1, bundle.shape.hidden), np.float32)})["logits"]
        engine.close()
        assert logits.shape == (1, len(compiled.kept_ids))
    first, second = (bundle.recipe(recipe.id) for recipe in recipes)
    assert len(first.prefix_ids) != len(second.prefix_ids)
    assert first.prefix_kv.shape[3] == len(first.prefix_ids)
    assert np.abs(first.prefix_kv).max() > 0
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]


def test_the_manifest_says_how_the_bundle_was_made(exported: tuple[Path, dict[str, Any], Any]) -> None:
    out, report, _ = exported
    manifest = Bundle.open(out).manifest
    for verdict in (manifest["gate"]["pcb-compare"], report["gate"]["pcb-two"]):
        assert verdict["passed"]
        for pictures in ("calibration", "validation"):
            components = verdict["pictures"][pictures]["components"]
            assert {"vision", "attributes", "decoder"} <= set(components)
            assert all(entry["cosine"] > 0.9 for entry in components.values())
    assert set(manifest["golden"]) == {"vision", "attributes", "decoder", "head_schema.pcb-compare"}
    assert set(manifest["choices"]) == set(manifest["calibration"]) == {"vision", "attributes", "decoder"}
    assert (
        manifest["linear_bytes"]["ratio"] < 0.4
    )  # these linears are tiny, scales weigh more than they should
    assert manifest["source"]["checkpoint_sha256"] != manifest["manifest_sha256"]
    assert manifest["cpu"] and manifest["onnxruntime"]
    assert manifest["predicted_peak_memory_bytes"] > sum(p.stat().st_size for p in out.glob("*.onnx"))
    assert set(manifest["judgement"]) == {"pcb-compare", "pcb-two"}
    assert manifest["judgement"]["pcb-compare"]["parts"] == 4  # two of calibration, two others
    assert judgement_of(Bundle.open(out), "pcb-compare").novelty is None  # too few of them
    json.dumps(report)


def test_progress_begins_and_ends_every_step(exported: tuple[Path, dict[str, Any], Any]) -> None:
    _, _, steps = exported
    last = {what: (done, total) for what, done, total in steps}
    assert {"recipes", "calibration pictures", "float graph: decoder", "calibration answers"} <= set(last)
    assert {"golden frames", "validation pictures: INT8", "bundle"} <= set(last)
    assert not {what: step for what, step in last.items() if step[0] != step[1]}


def test_a_float_bundle_keeps_the_checkpoints_embeddings(
    checkpoint: Path, recipes: list[Recipe], tmp_path: Path
) -> None:
    report = export_checkpoint(
        checkpoint, recipes[:1], "never read", tmp_path / "b", precision="float32", threads=1
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.embeddings.dtype == np.float32
    assert report["precision"] == bundle.precision == "float32"
    assert "gate" not in bundle.manifest


def test_calibration_counts_neither_the_prefix_nor_padding(
    exported: tuple[Path, dict[str, Any], Any], recipes: list[Recipe]
) -> None:
    bundle = Bundle.open(exported[0])
    compiled, shape = bundle.recipe(), bundle.shape
    patches = patches_from_source(SCENES, recipes[0], shape, lambda *step: None)[:6]
    assert patches.shape[1:] == (shape.patches, shape.patch_features)
    from orinspect.export.calibration_feeds import EngineSet

    engines = EngineSet(
        *(
            engine_from_bundle(bundle, name, threads=1)
            for name in ("vision", "decoder", "head_schema.pcb-compare")
        )
    )
    tiles = tiles_from_patches(patches, compiled, shape, engines, bundle.embeddings, lambda *step: None)
    shortened = [
        dataclasses.replace(answer, ids=answer.ids[: 3 + i]) for i, answer in enumerate(tiles.answers)
    ]
    tiles = CalibrationTiles(compiled, patches, tiles.image_tokens, tiles.deepstack, tuple(shortened))
    feeds = decoder_feeds([tiles], shape, bundle.embeddings)
    assert len(feeds) == 2
    expected = [shape.tokens + len(compiled.suffix_ids) + len(answer.ids) - 1 for answer in tiles.answers]
    counted = [int(row.sum()) for feed in feeds for row in feed.counted]  # type: ignore[union-attr]
    assert counted == expected
    for feed in feeds:
        inputs = feed.inputs  # type: ignore[union-attr]
        assert inputs["past_kv"].shape[4] == len(compiled.prefix_ids)
        assert feed.counted.shape == inputs["embeds"].shape[:2]  # type: ignore[union-attr]
        assert not inputs["embeds"][~feed.counted].any()  # type: ignore[union-attr]
        assert inputs["embeds"][feed.counted].any(axis=1).all()  # type: ignore[union-attr]


def refused(
    tmp_path: Path,
    kind: type[OrinspectError],
    checkpoint: Path,
    recipes: list[Recipe],
    calibration: str,
    precision: str = "int8",
) -> str:
    """The sentence of an export that must fail and leave nothing."""
    with pytest.raises(kind) as caught:
        export_checkpoint(checkpoint, recipes, calibration, tmp_path / "b", precision=precision, threads=1)
    assert not [path.name for path in tmp_path.iterdir() if path.name != "checkpoint"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_wrong_sources_are_said_and_leave_nothing(
    checkpoint: Path, recipes: list[Recipe], tmp_path: Path
) -> None:
    assert "nowhere" in refused(tmp_path, DataSetError, checkpoint, recipes[:1], "nowhere")
    clean = dataclasses.replace(recipes[0], gate=dataclasses.replace(recipes[0].gate, min_pixels=10**6))
    assert "no tile" in refused(tmp_path, DataSetError, checkpoint, [clean], SCENES)
    assert "no recipe" in refused(tmp_path, RecipeError, checkpoint, [], SCENES)
    assert "'pcb-compare'" in refused(tmp_path, RecipeError, checkpoint, recipes[:1] * 2, SCENES)
    larger = dataclasses.replace(recipes[1], tiling=dataclasses.replace(recipes[1].tiling, tile_px=256))
    assert "[128, 256]" in refused(tmp_path, RecipeError, checkpoint, [recipes[0], larger], SCENES)


def test_a_missing_shard_and_a_damaged_checkpoint_leave_nothing(
    recipes: list[Recipe], tmp_path: Path
) -> None:
    folder = write_tiny_checkpoint(tmp_path / "checkpoint", shards=2)
    sorted(folder.glob("model-*.safetensors"))[-1].unlink()
    assert "model-" in refused(tmp_path, CheckpointError, folder, recipes[:1], SCENES)


def test_frames_that_cannot_be_told_apart_refuse_temporal(
    recipes: list[Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EqualFrames:
        def read(self, name: str, size: tuple[int, ...]) -> Any:
            values = np.random.default_rng(0).normal(size=(size[0], size[1], 1, *size[3:]))
            return np.repeat(values, size[2], axis=2)

    folder = write_tiny_checkpoint(tmp_path / "checkpoint")
    from orinspect.export.graph.graphs import shape_from_checkpoint

    assert frame_difference(EqualFrames(), shape_from_checkpoint(folder)) == 0.0  # type: ignore[arg-type]
    monkeypatch.setattr("orinspect.export.inputs.frame_difference", lambda *_: 0.05)
    assert "cannot tell template from part" in refused(
        tmp_path, RecipeError, folder, recipes[:1], "never read", precision="float32"
    )
