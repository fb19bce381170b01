"""An export that was broken off goes on; one that the gate fails keeps its work and says what to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.runtime.errors import AccuracyError, BundleError, UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.golden_frames import check_golden
from orinspect.runtime.recipe import Accuracy, Recipe, load_recipe
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

RECIPE = Path(__file__).parents[2] / "examples" / "reference" / "pcb-compare.toml"
SCENES = "scenes:pcb?seed=77&parts=2"
LENIENT = Accuracy(min_cosine=0.9, min_token_agreement=0.0, max_f_loss=1.0)
STRICT = Accuracy(min_cosine=1.0, min_token_agreement=0.0, max_f_loss=1.0)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


def recipe(accuracy: Accuracy) -> Recipe:
    """The shipped recipe with short answers, which random weights never end by themselves."""
    return dataclasses.replace(
        load_recipe(RECIPE), accuracy=accuracy, max_defects_per_tile=1, token_budget=48
    )


class Steps:
    """Progress that remembers what was told, and breaks off when the step `until` comes."""

    def __init__(self, until: str | None = None) -> None:
        self.until, self.told = until, list[str]()

    def __call__(self, what: str, done: int, total: int) -> None:
        self.told.append(what)
        if what == self.until and done:
            raise KeyboardInterrupt


def test_a_broken_off_export_goes_on_and_ends_with_the_same_bundle(checkpoint: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = export_checkpoint(checkpoint, [recipe(LENIENT)], SCENES, whole, threads=1)
    for until in ("float graph: decoder", "decoder: blocks", "golden frames"):
        with pytest.raises(KeyboardInterrupt):
            export_checkpoint(checkpoint, [recipe(LENIENT)], SCENES, parts, threads=1, progress=Steps(until))
        assert not parts.exists() and (tmp_path / "parts.work").exists()
    last = Steps()
    report = export_checkpoint(checkpoint, [recipe(LENIENT)], SCENES, parts, threads=1, progress=last)
    done_before = {"float graph: vision", "float graph: decoder", "calibration answers", "vision: blocks"}
    assert not done_before & set(last.told)
    assert report["choices"] == expected["choices"]
    assert not (tmp_path / "parts.work").exists()
    files = [Bundle.open(folder).manifest["files"] for folder in (whole, parts)]
    # zip files carry the time at which they were written
    same = [{name: entry for name, entry in each.items() if ".npz" not in name} for each in files]
    assert same[0] == same[1]


def test_golden_frames_of_an_int8_bundle_judge_its_own_engines(checkpoint: Path, tmp_path: Path) -> None:
    export_checkpoint(checkpoint, [recipe(LENIENT)], SCENES, tmp_path / "b", threads=1)
    bundle = Bundle.open(tmp_path / "b")
    assert not check_golden(bundle, lambda component: OnnxruntimeEngine(bundle.graph(component)))


def test_the_gate_names_linears_keeps_the_work_and_is_satisfied_by_them(
    checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    with pytest.raises(AccuracyError) as caught:
        export_checkpoint(checkpoint, [recipe(STRICT)], SCENES, out, threads=1)
    message = str(caught.value)
    assert "cosine" in message and "--precision float16" in message
    assert not out.exists() and (tmp_path / "b.work").exists()
    with pytest.raises(UsageError, match="--keep-float nobody: the model has no such linear"):
        export_checkpoint(checkpoint, [recipe(STRICT)], SCENES, out, threads=1, keep_float=["nobody"])
    kept, again = ["layers.0.mlp.down_proj", "blocks.1.attn.qkv"], Steps()
    with pytest.raises(
        AccuracyError
    ):  # nothing rounded is exact; but the wish was followed, without new work
        export_checkpoint(
            checkpoint, [recipe(STRICT)], SCENES, out, threads=1, keep_float=kept, progress=again
        )
    assert "calibration answers" not in again.told and "decoder: blocks" not in again.told
    lenient = Steps()  # limits are no part of what the work rests on
    export_checkpoint(checkpoint, [recipe(LENIENT)], SCENES, out, threads=1, progress=lenient)
    assert "calibration answers" not in lenient.told and out.exists()
    assert "b.work: going on with the work kept there" in lenient.told


def test_a_linear_to_keep_that_is_none_is_named_before_the_long_work(
    checkpoint: Path, tmp_path: Path
) -> None:
    steps = Steps()
    with pytest.raises(UsageError, match="--keep-float nobody"):
        export_checkpoint(
            checkpoint, [recipe(STRICT)], SCENES, tmp_path / "b", threads=1, keep_float=["nobody"],
            progress=steps,
        )  # fmt: skip
    assert "calibration answers" not in steps.told


def test_a_float32_export_that_breaks_off_behind_its_graphs_can_be_tried_again(
    checkpoint: Path, tmp_path: Path
) -> None:
    def full(what: str, done: int, total: int) -> None:
        if what == "bundle":  # the graphs stand in the bundle to be, which goes with the error
            raise OSError("no space left")

    out, asked = tmp_path / "b", [recipe(STRICT)]
    with pytest.raises(BundleError, match="no space left"):
        export_checkpoint(checkpoint, asked, "", out, precision="float32", threads=1, progress=full)
    export_checkpoint(checkpoint, asked, "", out, precision="float32", threads=1)
    assert Bundle.open(tmp_path / "b").precision == "float32"


def test_float16_is_the_fallback(checkpoint: Path, tmp_path: Path) -> None:
    asked = dataclasses.replace(STRICT, min_cosine=0.9999)
    report = export_checkpoint(
        checkpoint, [recipe(asked)], SCENES, tmp_path / "b", precision="float16", threads=1
    )
    bundle = Bundle.open(tmp_path / "b")
    assert bundle.precision == "float16" and report["gate"]["pcb-compare"]["passed"]
    assert report["linear_bytes"]["ratio"] == 0.5
    with pytest.raises(UsageError, match="kept float in int8 only"):
        export_checkpoint(
            checkpoint, [recipe(asked)], SCENES, tmp_path / "c", precision="float16", keep_float=["x"]
        )
