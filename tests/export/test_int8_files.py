"""A component as files: two graphs over one file of weights, whole or not at all, one weight in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orinspect.calibration.choice import LinearChoice, Mode
from orinspect.calibration.int8_graph import int8_from_float, linear_bytes_of_file
from orinspect.calibration.linears import linears_of, tensor_values
from orinspect.calibration.sessions import Session, kernel_counts
from orinspect.export.graph import onnx_graph
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.int8 import float16_to_files, int8_to_files
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.linear_graphs import attention_graph, feeds, saved
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

pytestmark = pytest.mark.slow

COMPONENTS = ("vision", "attributes", "decoder", "head_schema")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    folder = tmp_path_factory.mktemp("graphs")
    sizes = TinySizes(layers=2, vision_depth=2)
    return graphs_from_checkpoint(write_tiny_checkpoint(folder / "checkpoint", sizes), folder)


def _choices(path: Path, mode: Mode = "per_row") -> list[LinearChoice]:
    model = onnx.load(str(path), load_external_data=False)
    return [
        LinearChoice(x.name, x.input, mode, 6.0, "abs_max", 0.01, 0.01, 64, x.in_features, x.out_features)
        for x in linears_of(model)
    ]


def _external(model: onnx.ModelProto) -> dict[str, dict[str, str]]:
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("precision", ["int8", "float16"])
def test_two_graphs_share_one_file_of_weights(
    graphs: GraphFiles, tmp_path: Path, component: str, precision: str
) -> None:
    source = graphs.decoder.parent / f"{component}.onnx"
    if precision == "int8":
        files = int8_to_files(source, _choices(source), tmp_path, component)
    else:
        files = float16_to_files(source, tmp_path, component)
    names = [f"{component}.onnx", f"{component}.tensorrt.onnx", f"{component}.weights"]
    assert [files.onnxruntime.name, files.tensorrt.name, files.weights.name] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    both = [onnx.load(str(path), load_external_data=False) for path in (files.onnxruntime, files.tensorrt)]
    assert _external(both[0]) == _external(both[1])
    linears = linears_of(onnx.load(str(source)))
    number = TensorProto.INT8 if precision == "int8" else TensorProto.FLOAT16
    for model, path in zip(both, (files.onnxruntime, files.tensorrt), strict=True):
        onnx.checker.check_model(str(path), full_check=True)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        assert {tensors[linear.weight].data_type for linear in linears} == {number}
        with Session(path, threads=1):
            pass  # ONNX Runtime takes both
    places = [(int(place["offset"]), int(place["length"])) for place in _external(both[0]).values()]
    assert all(offset % 4096 == 0 for offset, _ in places)
    ends = sorted((offset, offset + length) for offset, length in places)
    assert all(end <= after for (_, end), (after, _) in pairwise(ends))
    assert ends[-1][1] == files.weights.stat().st_size
    assert linear_bytes_of_file(files.onnxruntime) == files.linears
    assert files.linears.ratio < (0.32 if precision == "int8" else 0.501)


@pytest.mark.parametrize("beside", [False, True])
def test_files_say_what_the_graph_in_memory_says(
    graphs: GraphFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    if beside:  # the float weights in a file of their own, as at real size
        monkeypatch.setattr(onnx_graph, "INLINE_LIMIT_BYTES", 0)
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", TinySizes(layers=2, vision_depth=2))
    source = graphs_from_checkpoint(checkpoint, tmp_path / "float").vision
    assert (tmp_path / "float" / "vision.onnx.data").exists() == beside
    choices = _choices(source)
    files = int8_to_files(source, choices, tmp_path, "vision")
    expected = int8_from_float(onnx.load(str(source)), choices, float16_rest=True)
    written = onnx.load(str(files.onnxruntime), load_external_data=False)
    assert list(written.graph.node) == list(expected.graph.node)
    wanted = {tensor.name: numpy_helper.to_array(tensor) for tensor in expected.graph.initializer}
    found = {tensor.name: tensor_values(tensor, tmp_path) for tensor in written.graph.initializer}
    assert found.keys() == wanted.keys()
    assert "positions" in _external(written)  # no linear, but a matrix
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_linears_without_a_choice_are_float16_and_the_others_integer_kernels(tmp_path: Path) -> None:
    path = saved(attention_graph(), tmp_path)
    choices = _choices(path)[:3]
    files = int8_to_files(path, choices, tmp_path, "decoder")
    kernels = kernel_counts(files.onnxruntime)
    assert kernels["MatMulIntegerToFloat"] == 3
    assert "Cast" not in kernels
    values = feeds(1, 64)[0]
    with Session(path, threads=1) as exact, Session(files.onnxruntime, threads=1) as int8:
        expected, measured = exact.run(values)["y"], int8.run(values)["y"]
    assert np.linalg.norm(measured - expected) / np.linalg.norm(expected) < 0.02


def test_a_failure_leaves_the_old_files_and_nothing_else(tmp_path: Path) -> None:
    path = saved(attention_graph(), tmp_path)
    choices = _choices(path)
    int8_to_files(path, choices, tmp_path, "decoder")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    broken = [*choices[:-1], LinearChoice(**(vars(choices[-1]) | {"mode": "static", "clip": 0.0}))]
    with pytest.raises(CheckpointError, match="clip above 0"):
        int8_to_files(path, broken, tmp_path, "decoder")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with pytest.raises(CheckpointError, match="clip above 0"):
        int8_to_files(path, broken, tmp_path, "other")
    assert {file.name for file in tmp_path.iterdir()} == before.keys()


def test_writing_is_told_linear_by_linear(tmp_path: Path) -> None:
    path, told = saved(attention_graph(), tmp_path), []
    int8_to_files(path, _choices(path), tmp_path, "decoder", progress=lambda *step: told.append(step))
    assert told == [("decoder: weights", done, 6) for done in range(1, 7)]


_PEAK = """
import json, sys
from pathlib import Path
from orinspect.calibration.choice import LinearChoice
from orinspect.export.int8 import int8_to_files

def peak():  # not ru_maxrss: a child takes that over from a parent that was larger, and would grow by nothing
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

folder = Path(sys.argv[1])
choices = [
    LinearChoice(f"fc{i}", f"x{i}", "per_row", None, None, None, 0.0, 0, 1024, 1024) for i in range(24)
]
before = peak()
int8_to_files(folder / "float.onnx", choices, folder, "decoder")
print(json.dumps(peak() - before))
"""


def _chain_of_linears(folder: Path, count: int, size: int) -> int:
    """`count` linears [size, size] one after the other, weights beside the graph; bytes of the weights."""
    nodes, tensors = [], []
    random = np.random.default_rng(0)
    with (folder / "float.onnx.data").open("wb") as data:
        for index in range(count):
            tensor = TensorProto(name=f"fc{index}.weight", dims=(size, size), data_type=TensorProto.FLOAT)
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", "float.onnx.data"),
                ("offset", data.tell()),
                ("length", 4 * size**2),
            ):
                tensor.external_data.add(key=key, value=str(value))
            data.write(random.standard_normal((size, size), np.float32).tobytes())
            tensors.append(tensor)
            name = f"x{index + 1}"
            nodes.append(helper.make_node("MatMul", [f"x{index}", tensor.name], [name], name=f"fc{index}"))
    ends: list[Any] = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size]) for name in ("x0", f"x{count}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (folder / "float.onnx").write_bytes(model.SerializeToString())
    return 4 * count * size**2


def test_one_weight_is_in_memory_at_a_time(tmp_path: Path) -> None:
    weights = _chain_of_linears(tmp_path, 24, 1024)  # 96 MiB in 24 linears
    command = [sys.executable, "-c", _PEAK, str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    grown = 1024 * json.loads(out.stdout)
    assert (tmp_path / "decoder.weights").stat().st_size == weights // 4
    assert grown < weights // 3
