"""Int8 GEMMs counted in TensorRT's own words, of the inspector and of a builder."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orinspect.jetson.layers import int8_counts, layers_from_json, layers_from_text, linears_of_part
from orinspect.runtime.errors import EngineError

# What tensorrt_rtx 1.7.1.116 said of two linears under two profiles, shortened; `down` made float by hand.
SAID = """Layers:
{}
{}
{}
{}
{}
{}
""".format(
    "Name: __myl_Cast_myl0_0, LayerType: kgen, Inputs: [ { Name: x, Datatype: Float, Format: (Linear) }], "
    "Constants: [], Outputs: [ { Name: a, Datatype: Int8, Format: (Linear) }], TacticName: t, StreamId: 0, "
    "Metadata: [ONNX Layer: node_of_up.q]",
    "Name: up_myl0_1, LayerType: gemm, Inputs: [ { Name: a, Datatype: Int8, Format: (Linear) }], Constants: "
    "[ { Name: c, Datatype: Int8, Format: (Transposed) }], Outputs: [ { Name: b, Datatype: Float, Format: "
    "(Linear) }], TacticName: s, StreamId: 0, Metadata: [ONNX Layer: up][ONNX Layer: node_of_up.dq]",
    "Name: down_myl0_3, LayerType: gemm, Inputs: [ { Name: b, Datatype: Half, Format: (Linear) }], "
    "Constants: [ { Name: d, Datatype: Half, Format: (Linear) }], Outputs: [ { Name: y, Datatype: Float, "
    "Format: (Linear) }], TacticName: s, StreamId: 0, Metadata: [ONNX Layer: down]",
    "Name: __mye252_0_myl1_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], TacticName: , "
    "StreamId: 0, Metadata: ",
    "Name: __myl_Move_myl1_1, LayerType: kgen, Inputs: [ { Name: x [profile 1], Datatype: Float, Format: "
    "(Linear) }], Constants: [], Outputs: [ { Name: e, Datatype: Int8, Format: (Linear) }], TacticName: t, "
    "StreamId: 0, Metadata: [ONNX Layer: node_of_up.q]",
    "Name: up_down_myl1_2, LayerType: kgen, Inputs: [ { Name: e, Datatype: Int8, Format: (Linear) }], "
    "Constants: [], Outputs: [ { Name: y, Datatype: Float, Format: (Linear) }], TacticName: s, StreamId: 0, "
    "Metadata: [ONNX Layer: up][ONNX Layer: down]",
)


def entry(name: str, kind: str, kinds: str, metadata: str, key: str = "Format/Datatype") -> dict[str, Any]:
    """One layer as the inspector of TensorRT 10 prints it; the type's wording is that of a public dump
    (github.com/NVIDIA/TensorRT issue 4020, read 2026-11-22).
    """
    tensor = {"Name": "in", "Location": "Device", "Dimensions": [1, 64], key: kinds}
    return {
        "Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [], "Metadata": metadata,
    }  # fmt: skip


def test_a_builders_words_are_counted_per_profile() -> None:
    counts = int8_counts(layers_from_text("noise\n" + SAID), ["one", "many"], ["up", "down"])
    assert [(count.profile, count.int8, count.in_float) for count in counts] == [
        ("one", 1, ("down",)),
        ("many", 0, ("up", "down")),  # a generated kernel is no GEMM, INT8 or not
    ]


@pytest.mark.parametrize("key", ["Format/Datatype", "Datatype"])
def test_the_inspectors_json_is_counted(key: str) -> None:
    layers = [
        entry("up_myl0_1", "gemm", "Row major Int8 format", "[ONNX Layer: up]\x1e[ONNX Layer: up.dq]", key),
        entry("down", "CaskGemmMatrixMultiply", "Int8", "", key),
        entry("head + PWN(act)", "gemm", "Row major linear FP16 format", "[ONNX Layer: head]", key),
        entry("up [profile 1]_myl1_1", "gemm", "Int8", "[ONNX Layer: up]", key),
    ]
    found = layers_from_json(json.dumps({"Layers": layers, "Bindings": ["x"]}))
    counts = int8_counts(found, ["one", "many"], ["up", "down", "head"])
    assert [count.in_float for count in counts] == [("head",), ("down", "head")]
    assert [count.intended for count in counts] == [3, 3]


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["up", "down"]}', "[]"])
def test_an_answer_without_details_is_refused(text: str) -> None:
    """A plan that was built without DETAILED verbosity lists names only."""
    with pytest.raises(EngineError, match="engine inspector's answer is not understood"):
        layers_from_json(text)


def test_the_linears_of_a_part() -> None:
    linears = ["layers.0.a", "layers.1.a", "layers.2.a", "layers.10.a"]
    assert linears_of_part(linears, (2, 9), 0) == ("layers.0.a", "layers.1.a")
    assert linears_of_part(linears, (2, 9), 1) == ("layers.2.a", "layers.10.a")
    assert linears_of_part(["blocks.0.qkv"], (), 0) == ("blocks.0.qkv",)
