"""The shape of the written graphs: interface, naming rule, operators, weights inside or beside the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from orinspect.export.graph import onnx_graph
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.graph.vision import interpolated_positions
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.float_pipeline import FloatPipeline, session_from_file
from orinspect.tests.parity_cases import drawn_ids, drawn_pictures
from orinspect.tests.tiny_checkpoint import TinySizes, model_tensor_shapes, write_tiny_checkpoint

SIZES = TinySizes()

# What TensorRT 10.3 builds from opset 17; a new operator here needs a look at its parser first.
OPERATORS = {
    "Add", "Concat", "Div", "Erf", "Gather", "Identity", "Less", "MatMul", "Mul", "Pow", "ReduceMean",
    "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose",
    "Unsqueeze", "Where",
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"), SIZES)


@pytest.fixture(scope="module")
def files(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> GraphFiles:
    return graphs_from_checkpoint(checkpoint, tmp_path_factory.mktemp("graphs"))


def graph_paths(files: GraphFiles) -> list[Path]:
    assert files.attributes is not None
    return [files.vision, files.attributes, files.decoder, files.head_schema]


def dimensions(values: list[ort.NodeArg]) -> dict[str, list[object]]:
    return {value.name: value.shape for value in values}


def test_interfaces_are_as_agreed(files: GraphFiles) -> None:
    sessions = [session_from_file(path) for path in graph_paths(files)]
    found = [(dimensions(each.get_inputs()), dimensions(each.get_outputs())) for each in sessions]
    tokens, features = ["batch", 16, 64], ["batch", 2, 16, 64]
    assert found[0] == ({"patches": ["batch", 64, 1536]}, {"image_tokens": tokens, "deepstack": features})
    assert found[1] == (
        {"image_tokens": tokens, "deepstack": features},
        {"presence": ["batch", 16], "type": ["batch", 16, 6], "box": ["batch", 16, 4]},
    )
    assert found[2] == (
        {
            "embeds": ["batch", "k", 64],
            "deepstack": ["batch", 2, "k", 64],
            "cos": ["batch", "k", 32],
            "sin": ["batch", "k", 32],
            "past_kv": ["batch", 3, 2, 2, "p", 32],
            "mask": ["batch", "k", "p_plus_k"],
        },
        {"hidden": ["batch", "k", 64], "new_kv": ["batch", 3, 2, 2, "k", 32]},
    )
    assert found[3] == ({"hidden": ["batch", 64]}, {"logits": ["batch", 1024]})
    assert files.dense_types == ("open", "short", "mousebite", "spur", "copper", "pin-hole")


def test_layers_are_told_one_by_one(checkpoint: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    graphs_from_checkpoint(checkpoint, tmp_path, layer_progress=lambda *step: told.append(step))
    blocks = [("vision", block + 1, SIZES.vision_depth) for block in range(SIZES.vision_depth)]
    assert told == blocks + [("decoder", layer + 1, SIZES.layers) for layer in range(SIZES.layers)]


def test_graphs_are_valid_and_use_only_known_operators(files: GraphFiles) -> None:
    for path in graph_paths(files):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
        assert {node.op_type for node in model.graph.node} <= OPERATORS
        names = [node.name for node in model.graph.node]
        assert len(set(names)) == len(names)
        assert all(names)


def test_every_linear_of_the_checkpoint_is_one_named_matmul(files: GraphFiles) -> None:
    """The INT8 rewrite finds a linear by its name: MatMul `<name>` with `<name>.weight` [in, out]."""
    expected = {"lm_head": (64, 1024), "patch_embed": (1536, 48)}
    expected |= {"dense.fc1": (192, 40), "dense.fc2": (40, 11)}
    for name, shape in model_tensor_shapes(SIZES).items():
        if len(shape) == 2 and "embed" not in name:
            ours = name.removeprefix("model.language_model.").removeprefix("model.visual.")
            ours = ours.replace("linear_", "").replace("deepstack_merger_list", "deepstack")
            ours = ours.removesuffix(".weight")
            expected[ours] = (shape[1], shape[0])
    found = {}
    for path in graph_paths(files):
        graph = onnx.load(path).graph
        stored = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "MatMul" and node.input[1] in stored:
                assert node.input[1] == f"{node.name}.weight"
                found[node.name] = stored[node.input[1]]
    assert found == expected


def test_weights_beside_the_file_give_the_same_numbers(
    checkpoint: Path, files: GraphFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "INLINE_LIMIT_BYTES", 0)
    beside = graphs_from_checkpoint(checkpoint, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["embeddings.npy"]
        + [name + end for name in ("vision.onnx", "attributes.onnx", "decoder.onnx", "head_schema.onnx")
           for end in ("", ".data")]
    )  # fmt: skip
    assert beside.decoder.stat().st_size < files.decoder.stat().st_size / 4
    for path in graph_paths(beside):
        onnx.checker.check_model(str(path), full_check=True)
    pictures = drawn_pictures(files.shape, 1, seed=1)
    ids = drawn_ids(files.shape, (3, 4), seed=1)
    inside, outside = (FloatPipeline(each) for each in (files, beside))
    assert np.array_equal(
        inside.all_logits(inside.prompt(ids, pictures)), outside.all_logits(outside.prompt(ids, pictures))
    )


def test_kept_rows_are_rows_of_the_full_head(checkpoint: Path, files: GraphFiles, tmp_path: Path) -> None:
    kept = [5, 900, 17, 1018]
    few = graphs_from_checkpoint(checkpoint, tmp_path, kept_ids=kept)
    hidden = np.random.default_rng(2).standard_normal((3, 64)).astype(np.float32)
    whole, some = (FloatPipeline(each).logits(hidden) for each in (files, few))
    assert some.shape == (3, 4)
    assert np.abs(some - whole[:, kept]).max() < 1e-5


@pytest.mark.parametrize("kept", [[], [-1], [1024]])
def test_kept_rows_outside_the_vocabulary_are_refused(
    checkpoint: Path, tmp_path: Path, kept: list[int]
) -> None:
    with pytest.raises(CheckpointError, match=r"must lie within 0\.\.1023"):
        graphs_from_checkpoint(checkpoint, tmp_path, kept_ids=kept)
    assert not (tmp_path / "head_schema.onnx").exists()


def test_a_checkpoint_without_dense_head_has_no_attributes(tmp_path: Path) -> None:
    files = graphs_from_checkpoint(write_tiny_checkpoint(tmp_path / "c", dense_types=()), tmp_path / "g")
    assert (files.attributes, files.dense_types) == (None, ())
    assert not (tmp_path / "g" / "attributes.onnx").exists()


def test_a_failed_component_leaves_no_part_of_its_file(checkpoint: Path, tmp_path: Path) -> None:
    broken = write_tiny_checkpoint(tmp_path / "c", TinySizes(layers=2))
    config = broken / "config.json"
    config.write_text(config.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(CheckpointError, match=r"no tensor model\.language_model\.layers\.2\.input_layernorm"):
        graphs_from_checkpoint(broken, tmp_path / "g")
    assert not list((tmp_path / "g").glob("decoder*"))
    assert not list((tmp_path / "g").glob("*.partial"))


def test_embeddings_are_the_table(checkpoint: Path, files: GraphFiles, tmp_path: Path) -> None:
    table = np.load(files.embeddings, mmap_mode="r")
    assert (table.dtype, table.shape) == (np.float32, (1024, 64))
    half = graphs_from_checkpoint(checkpoint, tmp_path, embeddings_type="float16")
    assert np.load(half.embeddings).dtype == np.float16
    assert np.abs(np.load(half.embeddings) - table).max() < 1e-3


def test_positions_of_the_tables_own_grid_are_the_table_in_merge_order() -> None:
    table = np.arange(16, dtype=np.float32)[:, None]
    found = interpolated_positions(table, (4, 4), merge=2)[:, 0]
    assert found.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    corners = interpolated_positions(table, (2, 2), merge=2)[:, 0]
    assert corners.tolist() == [0, 3, 12, 15]
    middle = interpolated_positions(table, (3, 3), merge=1)[:, 0]
    assert middle.tolist() == [0, 1.5, 3, 6, 7.5, 9, 12, 13.5, 15]
