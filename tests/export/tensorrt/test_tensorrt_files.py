"""The TensorRT side of a bundle: parts over one file of weights, and a graph that breaks a rule."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.linears import Linear, linears_of
from orinspect.export.int8 import int8_to_files
from orinspect.export.tensorrt.files import write_tensorrt_files
from orinspect.runtime.errors import CheckpointError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.tests.small_bundle import write_small_bundle


def per_row(linear: Linear) -> LinearChoice:
    """INT8 without ranges."""
    sizes = linear.in_features, linear.out_features
    return LinearChoice(linear.name, linear.input, "per_row", None, None, None, 0.01, 1, *sizes)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Bundle, Path]:
    """A small float bundle, and a folder with the INT8 files of its components."""
    bundle = write_small_bundle(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    for component in bundle.components:
        graph = onnx.load(str(bundle.graph(component)))
        int8_to_files(bundle.graph(component), map(per_row, linears_of(graph)), out, component)
    return bundle, out


def test_parts_share_the_weights_and_the_table_names_what_there_is(written: tuple[Bundle, Path]) -> None:
    bundle, out = written
    before = sum(path.stat().st_size for path in out.glob("*.weights"))
    write_tensorrt_files(out, bundle.shape, [bundle.recipe()], bundle.components)
    assert sum(path.stat().st_size for path in out.glob("*.weights")) == before
    table = json.loads((out / "tensorrt.json").read_text())["components"]
    assert set(table) == set(bundle.components)
    assert list(table["decoder"]["parts"]) == ["1", "2"]  # three layers: no four parts
    for component in table.values():
        for files in component["parts"].values():
            graphs = [onnx.load(str(out / file)) for file in files]  # the weights are found, too
            matmuls = {node.name for graph in graphs for node in graph.graph.node if node.op_type == "MatMul"}
            assert set(component["int8_linears"]) <= matmuls


def test_a_graph_that_breaks_a_rule_is_refused_by_node(written: tuple[Bundle, Path]) -> None:
    bundle, out = written
    place = out / "vision.tensorrt.onnx"
    model = onnx.load(str(place), load_external_data=False)
    odd = helper.make_node("Unique", ["patches"], ["x"], name="odd")
    model.graph.node.insert(0, odd)
    place.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"vision\.tensorrt\.onnx breaks .* odd: "):
        write_tensorrt_files(out, bundle.shape, [bundle.recipe()], bundle.components)
