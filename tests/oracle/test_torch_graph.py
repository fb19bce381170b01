"""The graph reader of examples/gpu_numerics agrees with ONNX Runtime, and shows what float16 really does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

pytest.importorskip("torch")

from orinspect.examples.gpu_numerics.measure import measured, table_text
from orinspect.examples.gpu_numerics.torch_graph import TorchGraph
from orinspect.tests.device_bundle import write_device_bundle

pytestmark = pytest.mark.oracle


def test_both_flavours_agree_with_the_cpu(tmp_path: Path) -> None:
    table = measured(write_device_bundle(tmp_path).path, "cpu")
    assert {row["graph"] for row in table["numerics"]} >= {"decoder.onnx", "decoder.tensorrt.onnx"}
    for row in table["numerics"]:
        assert "failed" not in row, row
        assert row["cosine"] > 0.999, row
        # a value on the edge between two INT8 steps falls on either side
        assert row["relative_error"] < 0.05, row
    assert "| decoder.tensorrt.onnx | torch on cpu |" in table_text(table)


def test_float16_overflows_here_as_on_a_gpu(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["half"], to=onnx.TensorProto.FLOAT16),
            helper.make_node("Mul", ["half", "half"], ["squared"]),
            helper.make_node("Cast", ["squared"], ["y"], to=onnx.TensorProto.FLOAT),
        ],
        "square",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
    )
    path = tmp_path / "square.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    found = TorchGraph(path, "cpu").run({"x": np.array([10, 1000], np.float32)})["y"]
    assert found[0] == 100 and np.isinf(found[1])


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Gelu", ["x"], ["y"])], "g", [], [], [numpy_helper.from_array(np.ones(1), "x")]
    )
    path = tmp_path / "g.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(ValueError, match="Gelu"):
        TorchGraph(path, "cpu")
