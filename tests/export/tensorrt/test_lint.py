"""The lint names node and rule of each wrong graph, and finds nothing in what export writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from orinspect.export.tensorrt.lint import VERSIONS, lint, operator_table
from orinspect.tests.export.tensorrt.graphs import FLOAT, INT8_MODES, MODES, tensorrt_graphs
from orinspect.tests.export.tensorrt.one_linear import NAIVE, linear_graph
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

REFERENCE = Path(__file__).parents[3] / "examples" / "reference" / "reference"


def _said(model: onnx.ModelProto, folder: Path | None = None) -> set[tuple[str, str]]:
    return {(finding.node, finding.rule) for finding in lint(model, folder=folder)}


def _graph(nodes: list[onnx.NodeProto], *constants: tuple[str, np.ndarray]) -> onnx.ModelProto:
    """x [B, 4, 8] float32 -> the nodes -> y."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _node(operator: str, inputs: list[str], output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [output], name=f"the {operator}", **attributes)


def test_a_right_linear_has_no_finding() -> None:
    assert lint(linear_graph()) == ()


@pytest.mark.parametrize("fault", NAIVE)
def test_a_naive_linear_is_found_by_node_and_rule(fault: str) -> None:
    arguments, node, rule = NAIVE[fault]
    assert (node, rule) in _said(linear_graph(**arguments))


def test_a_quantised_output_and_a_computed_weight_are_found() -> None:
    assert ("fc", "output") in _said(linear_graph(is_output_quantised=True))
    assert ("fc", "linear") in _said(linear_graph(is_weight_computed=True))


@pytest.mark.parametrize("modes", [MODES, INT8_MODES, (FLOAT,)], ids=["all modes", "int8", "float16"])
def test_what_export_writes_has_no_finding(modes: tuple[str, ...], tmp_path: Path) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", TinySizes())
    _, files = tensorrt_graphs(checkpoint, tmp_path, modes)
    assert set(files) == {"vision", "decoder", "attributes", "head_schema"}
    for written in files.values():
        model = onnx.load(str(written.tensorrt), load_external_data=False)
        assert lint(model, folder=written.tensorrt.parent) == (), written.tensorrt.name


def test_the_reference_checkpoint_has_no_finding_and_its_cpu_graphs_do(tmp_path: Path) -> None:
    _, files = tensorrt_graphs(REFERENCE, tmp_path, kept_ids=range(40))
    for name, written in files.items():
        assert (
            lint(onnx.load(str(written.tensorrt), load_external_data=False), folder=tmp_path / "int8") == ()
        )
        on_cpu = _said(onnx.load(str(written.onnxruntime), load_external_data=False))
        assert {rule for _, rule in on_cpu} >= {"zero point"}, name


def test_operators_of_a_later_release_are_refused_for_the_earlier_ones() -> None:
    model = _graph([_node("Attention", ["x", "x", "x"])])
    (finding,) = [found for found in lint(model) if found.rule == "operator"]
    assert finding.versions == ("10.3",)
    assert str(finding) == "the Attention: operator: Attention is not in the table (TensorRT 10.3)"
    unknown = [
        found.versions for found in lint(_graph([_node("Hardmax", ["x"])])) if found.rule == "operator"
    ]
    assert sorted(unknown) == [(version,) for version in sorted(VERSIONS)]


def test_shape_with_start_and_end_is_refused_for_10_3_alone() -> None:
    extent = helper.make_node("Shape", ["x"], ["extent"], name="extent", start=1, end=2)
    model = _graph([extent, _node("Cast", ["extent"], to=TensorProto.FLOAT)])
    assert [(found.node, found.rule, found.versions) for found in lint(model)] == [
        ("extent", "attribute", ("10.3",))
    ]


def test_types_are_those_of_onnx_and_of_strong_typing() -> None:
    half = np.ones((8, 8), np.float16)
    assert ("the MatMul", "mixed types") in _said(_graph([_node("MatMul", ["x", "w"])], ("w", half)))
    cast = helper.make_node("Cast", ["x"], ["h"], name="cast", to=TensorProto.FLOAT16)
    quantise = _node("QuantizeLinear", ["h", "s", "z"])
    scale, zero = ("s", np.array(0.1, np.float16)), ("z", np.array(0, np.int8))
    said = _said(_graph([cast, quantise], scale, zero))
    assert {("the QuantizeLinear", "onnx type"), ("the QuantizeLinear", "scale")} <= said
    doubles = _graph([_node("Cast", ["x"], to=TensorProto.DOUBLE)])
    assert ("the Cast", "type") in _said(doubles)


def test_shapes_that_the_parser_would_not_resolve_are_found() -> None:
    two_open = ("shape", np.array([-1, -1, 2], np.int64))
    assert ("the Reshape", "reshape") in _said(_graph([_node("Reshape", ["x", "shape"])], two_open))
    beyond = ("shape", np.array([0, 0, 0, 0, -1], np.int64))
    assert ("the Reshape", "reshape") in _said(_graph([_node("Reshape", ["x", "shape"])], beyond))
    computed = helper.make_node("Shape", ["x"], ["shape"], name="shape")
    assert ("the Reshape", "reshape") in _said(_graph([computed, _node("Reshape", ["x", "shape"])]))
    axes = helper.make_node("Shape", ["x"], ["axes"], name="axes")
    assert ("the Unsqueeze", "constant") in _said(_graph([axes, _node("Unsqueeze", ["x", "axes"])]))
    deep = ("axes", np.arange(6))
    assert ("the Unsqueeze", "rank") in _said(_graph([_node("Unsqueeze", ["x", "axes"])], deep))


def test_numbers_beyond_int32_and_doubles_are_found() -> None:
    ends = [("start", np.array([0])), ("end", np.array([2**63 - 1])), ("axis", np.array([1]))]
    model = _graph([_node("Slice", ["x", "start", "end", "axis"])], *ends, ("d", np.zeros(3)))
    assert _said(model) == {("end", "int64"), ("d", "float64")}


def test_values_of_unknown_type_say_nothing() -> None:
    """What an unknown operator gives has no type: only the operator itself is a finding."""
    foreign = helper.make_node("Attention", ["x", "x", "x"], ["a"], name="attention")
    limit = helper.make_node("Constant", [], ["limit"], name="limit", value_float=0.5)
    below = helper.make_node("Less", ["x", "limit"], ["below"], name="below")
    model = _graph([foreign, limit, below, _node("Where", ["below", "a", "a"])])
    assert _said(model) == {("attention", "operator")}


def test_nodes_need_names_of_their_own() -> None:
    twice = [
        helper.make_node("Abs", ["x"], ["a"], name="same"),
        helper.make_node("Abs", ["a"], ["y"], name="same"),
    ]
    assert ("same", "name") in _said(_graph(twice))
    assert ("?", "name") in _said(_graph([helper.make_node("Abs", ["x"], ["y"])]))


def test_integers_at_the_edge_and_foreign_opsets_are_found() -> None:
    model = _graph([_node("Abs", ["x"])])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    assert ("x", "edge") in _said(model)
    late = _graph([_node("Abs", ["x"])])
    late.opset_import[0].version = 24
    late.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    found = lint(late)
    assert [each.versions for each in found if each.rule == "opset"] == [("10.3",)]
    assert "domain" in {each.rule for each in found}


def test_external_data_must_lie_beside_the_graph_and_be_whole(tmp_path: Path) -> None:
    def graph(location: str) -> onnx.ModelProto:
        model = _graph([_node("MatMul", ["x", "w"])], ("w", np.ones((8, 8), np.float32)))
        onnx.external_data_helper.set_external_data(model.graph.initializer[0], location, 4096, 256)
        model.graph.initializer[0].ClearField("raw_data")
        return model

    assert ("w", "external data") in _said(graph("../weights"))
    assert ("w", "external data") in _said(graph("weights"), tmp_path)
    (tmp_path / "weights").write_bytes(bytes(4096 + 255))
    assert ("w", "external data") in _said(graph("weights"), tmp_path)
    (tmp_path / "weights").write_bytes(bytes(4096 + 256))
    assert not _said(graph("weights"), tmp_path)


def test_the_table_says_where_it_is_from() -> None:
    table = operator_table()
    assert tuple(table["versions"]) == VERSIONS
    for version in table["versions"].values():
        assert version["how"] and set(version["from"]) <= set(table["sources"])
        assert version["opset"][0] <= 17 <= version["opset"][1]
    assert all(entry["title"] for entry in table["sources"].values())
    kinds = set(TensorProto.DataType.keys())
    for name, entry in table["operators"].items():
        for accepted in [entry] if isinstance(entry, list) else entry.values():
            assert set(accepted) <= kinds, name
    with pytest.raises(ValueError, match=r"TensorRT 8\.6"):
        lint(linear_graph(), ("8.6",))
