"""`orinspect engines` as far as it goes without a GPU: a trial with tensorrt_rtx, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from orinspect.cli import main
from orinspect.jetson.board import BoardMemory
from orinspect.jetson.engines import build_engines, report_text, verify_engines
from orinspect.jetson.fit import PLAN_OVERHEAD
from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.plans import PlanSet, current_set
from orinspect.runtime.infer.inspector import Inspector
from orinspect.tests.device_bundle import write_device_bundle

GIB = 1 << 30


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_device_bundle(tmp_path_factory.mktemp("engines"))


def silent(_: str) -> None:
    """Progress is not looked at."""


@pytest.mark.trt
@pytest.mark.parametrize("parts", [1, 2])
def test_a_trial_builds_every_plan_and_counts_every_linear(
    bundle: Bundle, parts: int, tmp_path: Path
) -> None:
    said: list[str] = []
    table = build_engines(
        bundle.path, tmp_path, parts=parts, library="tensorrt_rtx", compute_capability="SM86", say=said.append
    )
    decoders = ["decoder.plan"] if parts == 1 else ["decoder.1of2.plan", "decoder.2of2.plan"]
    assert set(decoders) <= set(table["plans"]) and table["built"] == len(table["plans"]) == 3 + parts
    linears = json.loads((bundle.path / "tensorrt.json").read_text())["components"]["decoder"]["int8_linears"]
    for plan, profiles in table["int8"].items():
        for name, count in profiles.items():
            assert not count["in_float"], (plan, name, count)
    assert sum(next(iter(table["int8"][plan].values()))["intended"] for plan in decoders) == len(linears)
    assert any("decoder" in line for line in said)
    made = PlanSet.read(Path(table["folder"]))
    assert made.facts.sm == "SM86" and made.parts == parts
    with pytest.raises(EngineError, match="has no engines"):
        current_set(tmp_path)  # a trial is never put in use
    assert "a trial: not put in use" in report_text(table)

    (made.folder / "vision.plan").write_bytes(b"lost")  # as a power cut might leave it
    again = build_engines(
        bundle.path, tmp_path, parts=parts, library="tensorrt_rtx", compute_capability="SM86", say=silent
    )
    assert again["built"] == 1 and again["key"] == table["key"]  # the others were kept


@pytest.mark.trt
def test_the_peak_of_a_build_is_as_predicted(tmp_path: Path) -> None:
    """On a graph whose weights outweigh all else; the device's own copy is not there to be measured."""
    from orinspect.jetson.fit import WEIGHT_COPIES
    from orinspect.tests.jetson.linear_stack import peak_of_build, write_stack

    weights = write_stack(tmp_path / "stack.onnx", layers=24, width=2048)
    peak, size = peak_of_build(tmp_path / "stack.onnx", tmp_path / "stack.plan", width=2048)
    assert 0.6 * (WEIGHT_COPIES - 1) * weights < peak < (WEIGHT_COPIES - 1) * weights + 300e6
    assert weights < size < PLAN_OVERHEAD * weights


def test_without_tensorrt_it_says_where_it_comes_from(bundle: Bundle, tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(EngineError, match=r"tensorrt cannot be imported .*it comes with JetPack"):
            build_engines(bundle.path, tmp_path, say=silent)
        with (
            pytest.raises(EngineError, match="tensorrt cannot be imported"),
            Inspector(bundle, backend="tensorrt"),
        ):
            pass
    else:
        pytest.skip("this machine has TensorRT")


@pytest.mark.trt
def test_memory_is_looked_at_before_anything_is_built(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"takes about \d+ MiB at its peak, 1024 of 4096 MiB are free"):
        build_engines(
            bundle.path,
            tmp_path,
            library="tensorrt_rtx",
            compute_capability="SM86",
            memory=lambda: BoardMemory(4 * GIB, GIB),
            say=silent,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.trt
def test_a_graph_that_tensorrt_refuses_names_its_node(bundle: Bundle, tmp_path: Path) -> None:
    import shutil

    import onnx

    from orinspect.export.bundle import write_manifest

    broken = tmp_path / "broken"
    shutil.copytree(bundle.path, broken)
    path = broken / "attributes.tensorrt.onnx"
    model = onnx.load(str(path), load_external_data=False)
    next(node for node in model.graph.node if node.op_type == "MatMul").op_type = "Mystery"
    path.write_bytes(model.SerializeToString())
    kept = {key: bundle.manifest[key] for key in ("precision", "model", "recipes", "dense_types")}
    (broken / "manifest.json").unlink()
    write_manifest(broken, kept)
    with pytest.raises(EngineError, match=r"cannot read attributes\.tensorrt\.onnx: node \S+ \(Mystery\)"):
        build_engines(broken, library="tensorrt_rtx", compute_capability="SM86", say=silent)


def test_the_command_line_says_what_is_missing(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path)
    assert main(["engines", "verify", str(bundle.path), "--engines", folder]) == 1
    assert "has no engines" in capsys.readouterr().err
    assert main(["engines", "build", str(bundle.path), "--library", "tensorrt_rtx"]) == 1
    assert "needs --compute-capability" in capsys.readouterr().err
    assert main(["engines", "build", str(bundle.path), "--parts", "3"]) == 1
    assert "in 1, 2 parts, not in 3" in capsys.readouterr().err
    assert main(["engines"]) == 2
    assert main(["engines", "build", "--help"]) == 0
    assert "example: orinspect engines build bundle --parts 2" in capsys.readouterr().out
    with pytest.raises(EngineError, match="run: orinspect engines build BUNDLE"):
        verify_engines(bundle.path, tmp_path)
