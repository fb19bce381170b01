"""A chain of blocks is the whole graph: float and INT8, decoder and encoder, sizes that do not divide."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest

from orinspect.calibration.blocks import Block, blocks_from_graph, blocks_from_model, decoder_part
from orinspect.calibration.int8_graph import int8_from_float
from orinspect.calibration.linears import linears_of
from orinspect.calibration.sessions import Array, Session
from orinspect.calibration.streamed import StreamedEngine
from orinspect.export.graph import onnx_graph
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.runtime.errors import CheckpointError, EngineError
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.tests.decoder_inputs import ROWS, decoder_inputs
from orinspect.tests.linear_graphs import attention_graph, per_row_choices, saved
from orinspect.tests.parity_cases import CASES

pytestmark = pytest.mark.slow  # all of them together take several seconds


@dataclass(frozen=True)
class Graphs:
    files: GraphFiles
    inputs: dict[str, dict[str, Array]]  # component -> feed

    def path(self, component: str) -> Path:
        return self.files.vision if component == "vision" else self.files.decoder


@pytest.fixture(scope="module", params=CASES)
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graphs:
    _, files = CASES[request.param].written(tmp_path_factory.mktemp(request.param))
    shape = files.shape
    patches = np.random.default_rng(1).uniform(-1, 1, (ROWS, shape.patches, shape.patch_features))
    return Graphs(
        files, {"vision": {"patches": patches.astype(np.float32)}, "decoder": decoder_inputs(shape)}
    )


def _same(left: dict[str, Array], right: dict[str, Array]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.shape == right[name].shape, name
        np.testing.assert_allclose(value, right[name], rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("component", ["vision", "decoder"])
def test_the_chain_of_blocks_is_the_whole_graph(graphs: Graphs, component: str) -> None:
    path, inputs = graphs.path(component), graphs.inputs[component]
    with Session(path, threads=1) as whole, StreamedEngine(path, threads=1) as chain:
        _same(whole.run(inputs), chain.run(inputs))


@pytest.mark.parametrize("component", ["vision", "decoder"])
def test_an_int8_graph_is_cut_like_its_float_graph(graphs: Graphs, component: str, tmp_path: Path) -> None:
    model = onnx.load(str(graphs.path(component)))
    int8 = saved(int8_from_float(model, per_row_choices(model)), tmp_path)
    names = [block.name for block in blocks_from_graph(int8)]
    assert names == [block.name for block in blocks_from_model(model, tmp_path)]
    with Session(int8, threads=1) as whole, StreamedEngine(int8, threads=1) as chain:
        left, right = (engine.run(graphs.inputs[component]) for engine in (whole, chain))
    for name, value in left.items():  # another order of fusion may move a value over a rounding step
        assert value.shape == right[name].shape
        assert np.corrcoef(value.ravel(), right[name].ravel())[0, 1] > 0.9999


@pytest.mark.parametrize("component", ["vision", "decoder"])
def test_every_linear_lies_in_one_block_and_blocks_are_valid(graphs: Graphs, component: str) -> None:
    path = graphs.path(component)
    blocks = blocks_from_graph(path)
    for block in blocks:
        onnx.checker.check_model(block.model, full_check=True)
    held = sorted(linear.name for block in blocks for linear in linears_of(block.model))
    assert held == sorted(linear.name for linear in linears_of(onnx.load(str(path))))
    assert (blocks[0].stream_in, blocks[-1].stream_out) == (None, None)
    assert all(block.stream_in and before.stream_out for before, block in pairwise(blocks))


@pytest.mark.parametrize("flavour", ["float", "u8", "s8"])
def test_the_chain_of_decoder_parts_is_the_whole_decoder(graphs: Graphs, flavour: str) -> None:
    shape, inputs = graphs.files.shape, graphs.inputs["decoder"]
    model = onnx.load(str(graphs.files.decoder))
    if flavour != "float":
        model = int8_from_float(model, per_row_choices(model), "u8" if flavour == "u8" else "s8")
    with Session(model.SerializeToString(), threads=1) as session:
        whole = session.run(inputs)
    for cuts in ([0, 1, shape.layers], [0, shape.layers - 1, shape.layers], [0, shape.layers]):
        stream, new = inputs["embeds"], []
        for first, last in pairwise(cuts):
            part = decoder_part(model, shape, first, last)
            onnx.checker.check_model(part, full_check=True)
            with Session(part.SerializeToString(), threads=1) as session:
                assert ("deepstack" in session.inputs) == (first < len(shape.deepstack))
                feed = inputs | {"embeds": stream, "past_kv": inputs["past_kv"][:, first:last].copy()}
                results = session.run({name: feed[name] for name in session.inputs})
            stream = results["hidden"]
            new.append(results["new_kv"])
        joined = {"hidden": stream, "new_kv": np.concatenate(new, axis=1)}
        if flavour == "float":
            _same(whole, joined)
        for name, value in whole.items():
            assert np.corrcoef(value.ravel(), joined[name].ravel())[0, 1] > 0.999


def test_a_part_declares_its_layers(graphs: Graphs) -> None:
    shape = graphs.files.shape
    part = decoder_part(onnx.load(str(graphs.files.decoder)), shape, 1, shape.layers)
    values = {value.name: value for value in (*part.graph.input, *part.graph.output)}
    for name in ("past_kv", "new_kv"):
        assert values[name].type.tensor_type.shape.dim[1].dim_value == shape.layers - 1
    names = [value.name for value in part.graph.input if value.name != "deepstack"]
    assert names == ["embeds", "cos", "sin", "past_kv", "mask"]


def test_parts_that_do_not_exist_are_an_error(graphs: Graphs) -> None:
    shape = graphs.files.shape
    decoder, vision = onnx.load(str(graphs.files.decoder)), onnx.load(str(graphs.files.vision))
    with pytest.raises(CheckpointError, match=rf"within 0\.\.{shape.layers}; got 2\.\.99"):
        decoder_part(decoder, shape, 2, 99)
    with pytest.raises(CheckpointError, match="no input past_kv: it is no decoder"):
        decoder_part(vision, shape, 0, 1)


def test_external_weights_are_found_from_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "INLINE_LIMIT_BYTES", 0)
    checkpoint, _ = CASES["grouped"].written(tmp_path)
    files = graphs_from_checkpoint(checkpoint, tmp_path / "external", grid_hw=CASES["grouped"].grid_hw)
    assert files.decoder.with_name("decoder.onnx.data").exists()
    inputs = decoder_inputs(files.shape)
    with Session(files.decoder, threads=1) as whole, StreamedEngine(files.decoder, threads=1) as chain:
        _same(whole.run(inputs), chain.run(inputs))


def test_a_graph_without_layers_is_one_block(tmp_path: Path) -> None:
    _, files = CASES["grouped"].written(tmp_path)
    assert files.attributes is not None
    (block,) = blocks_from_graph(files.attributes)
    assert (block.inputs, block.stream_in, block.stream_out) == (("image_tokens", "deepstack"), None, None)
    (lone,) = blocks_from_graph(saved(attention_graph(), tmp_path))
    assert lone.inputs == ("x",)


def test_two_values_between_layers_are_no_stream(tmp_path: Path) -> None:
    model = attention_graph()
    for node in model.graph.node:  # o_proj and the MLP become layer 1: it reads `mixed` and nothing else ...
        if node.name in ("residual", "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"):
            node.name = (
                node.name.replace("layers.0", "layers.1") if "mlp" in node.name else "layers.1.residual"
            )
    blocks_from_model(model, tmp_path)
    for node in model.graph.node:
        if node.name == "silu":
            node.name = "layers.1.silu"
            node.input[1] = "scaled"  # ... and now a second one
    with pytest.raises(CheckpointError, match=r"layer 1 must take one value .* found 2 \("):
        blocks_from_model(model, tmp_path)


def test_the_engine_says_what_it_takes(graphs: Graphs) -> None:
    path = graphs.files.decoder
    with OnnxruntimeEngine(path, threads=1) as usual, StreamedEngine(path, threads=1) as engine:
        assert dict(engine.inputs) == dict(usual.inputs)
        assert dict(engine.outputs) == dict(usual.outputs)
        with pytest.raises(EngineError, match=r"decoder.onnx takes \['cos'"):
            engine.run({"embeds": graphs.inputs["decoder"]["embeds"]})
    with pytest.raises(EngineError, match="was closed"):
        engine.run(graphs.inputs["decoder"])


def test_a_block_reads_its_own_layer_of_the_past(graphs: Graphs) -> None:
    blocks: tuple[Block, ...] = blocks_from_graph(graphs.files.decoder)
    inputs = graphs.inputs["decoder"]
    own = blocks[1].feed(inputs, {"hidden": inputs["embeds"]})
    np.testing.assert_array_equal(own["past_kv"], inputs["past_kv"][:, 1:2])
