"""config.json in both dialects of transformers, and tensors from safetensors, without torch.

What is refused is refused with the value that was found.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from orinspect.export.graph.checkpoint import weights_from_file, weights_from_folder
from orinspect.export.graph.graphs import shape_from_checkpoint
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.tiny_checkpoint import TinySizes, model_tensor_shapes, write_tiny_checkpoint

Document = dict[str, Any]

NORM = "model.language_model.norm.weight"
HEAD = "model.language_model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path)


def changed(folder: Path, change: Callable[[Document], object]) -> None:
    path = folder / "config.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("dialect", ["4.57", "5"])
def test_multiaxis_rope_is_found_in_both_dialects(tmp_path: Path, dialect: str) -> None:
    write_tiny_checkpoint(tmp_path, TinySizes(rope_theta=5e6), config_dialect=dialect)
    shape = shape_from_checkpoint(tmp_path)
    assert shape.rope_theta == 5e6
    assert shape.mrope_section == (6, 5, 5)


def test_sizes_follow_the_tile(folder: Path) -> None:
    shape = shape_from_checkpoint(folder, tile_px=96)
    assert (shape.grid_hw, shape.patches, shape.tokens, shape.tile_px) == ((6, 6), 36, 9, 96)
    assert (shape.patch_features, shape.token_px) == (1536, 32)
    wide = shape_from_checkpoint(folder, grid_hw=(4, 8))
    assert (wide.token_grid_hw, wide.picture_hw_px) == ((2, 4), (64, 128))


def rope(document: Document) -> Document:
    parameters: Document = document["text_config"]["rope_parameters"]
    return parameters


REFUSALS: dict[str, tuple[Callable[[Document], object], str]] = {
    "another model": (lambda d: d.update(model_type="qwen2_5_vl"), "'qwen2_5_vl' is not supported"),
    "no model type": (lambda d: d.pop("model_type"), "model_type None is not supported"),
    "experts": (lambda d: d.update(model_type="qwen3_vl_moe"), "'qwen3_vl_moe' is a mixture of experts"),
    "quantised": (lambda d: d.update(quantization_config={"bits": 8}), "quantization_config"),
    "no text": (lambda d: d.pop("text_config"), "no text_config object"),
    "no section": (lambda d: rope(d).pop("mrope_section"), "no mrope_section .* found None"),
    "no rope": (lambda d: d["text_config"].pop("rope_parameters"), "no mrope_section"),
    "no theta": (lambda d: rope(d).pop("rope_theta"), "no rope_theta"),
    "scaled rope": (lambda d: rope(d).update(rope_type="yarn"), "rope type 'yarn'"),
    "in blocks": (lambda d: rope(d).update(mrope_interleaved=False), "mrope_interleaved is false"),
    "short section": (lambda d: rope(d).update(mrope_section=[4, 5, 5]), r"\[4, 5, 5\] must add up"),
    "activation": (lambda d: d["vision_config"].update(hidden_act="gelu"), "hidden_act 'gelu' is"),
    "heads": (lambda d: d["text_config"].update(num_key_value_heads=3), "4 heads cannot share 3"),
    "no heads": (lambda d: d["text_config"].update(num_key_value_heads=0), "must be .* found 0"),
    "width": (lambda d: d["vision_config"].update(out_hidden_size=65), "out_hidden_size 65 differs .* 64"),
    "positions": (lambda d: d["vision_config"].update(num_position_embeddings=63), "63 is not a square"),
    "tap": (lambda d: d["vision_config"].update(deepstack_visual_indexes=[9]), r"\[9\] must name"),
    "no taps": (lambda d: d["vision_config"].update(deepstack_visual_indexes=[]), r"\[\] must name"),
    "size as text": (lambda d: d["text_config"].update(hidden_size="64"), "must be .* found '64'"),
}


@pytest.mark.parametrize(("change", "message"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refused_in_one_sentence(folder: Path, change: Callable[[Document], object], message: str) -> None:
    changed(folder, change)
    with pytest.raises(CheckpointError, match=message) as caught:
        shape_from_checkpoint(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tile_px", [0, 100, 16, -32])
def test_a_tile_that_does_not_divide_into_tokens_is_refused(folder: Path, tile_px: int) -> None:
    with pytest.raises(CheckpointError, match=f"a tile of {tile_px} px does not divide into tokens of 32 px"):
        shape_from_checkpoint(folder, tile_px=tile_px)


def test_a_grid_that_cannot_be_merged_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="a grid of 5 x 4 patches cannot be merged 2 x 2"):
        shape_from_checkpoint(folder, grid_hw=(5, 4))


def test_broken_json_names_the_file(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        shape_from_checkpoint(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        shape_from_checkpoint(folder)


@pytest.mark.parametrize("number_type", ["float32", "float16"])
def test_reads_what_the_safetensors_library_wrote(tmp_path: Path, number_type: str) -> None:
    wanted = np.random.default_rng(0).standard_normal((5, 7)).astype(number_type)
    save_file({"a": wanted, "b": np.zeros((2,), number_type)}, tmp_path / "x.safetensors", {"types": "[]"})
    weights = weights_from_file(tmp_path / "x.safetensors")
    assert weights.names() == ["a", "b"]
    assert weights.metadata == {"types": "[]"}
    found = weights.read("a", (5, 7))
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted.astype(np.float32))
    assert np.array_equal(weights.rows("a", (5, 7), np.array([4, 0])), wanted[[4, 0]].astype(np.float32))


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 1.5e-39, -0.0, np.inf], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"v": {"dtype": "BF16", "shape": [6], "data_offsets": [0, 12]}}).encode()
    path = tmp_path / "v.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    found = weights_from_file(path).read("v", (6,))
    assert np.array_equal(found[[0, 1, 4, 5]], values[[0, 1, 4, 5]])
    assert found[2] == pytest.approx(3.0e38, rel=1 / 128)
    assert 0 < found[3] < 1.6e-39, "a subnormal stays one"


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_is_found_in_its_shard(tmp_path: Path, shards: int) -> None:
    sizes = TinySizes()
    weights = weights_from_folder(write_tiny_checkpoint(tmp_path, sizes, shards=shards))
    shapes = model_tensor_shapes(sizes)
    assert weights.names() == sorted(shapes)
    assert all(weights.read(name, shape).shape == shape for name, shape in shapes.items())
    assert weights.float32_bytes(NORM) == 4 * sizes.hidden


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing .*index\.json"):
        weights_from_folder(tmp_path)


def test_a_tensor_that_the_index_promises_is_named(tmp_path: Path) -> None:
    write_tiny_checkpoint(tmp_path, shards=2)
    index = tmp_path / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    document["weight_map"]["model.extra"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(document))
    with pytest.raises(
        CheckpointError, match=r"model-00001-of-00002\.safetensors has no tensor model\.extra"
    ):
        weights_from_folder(tmp_path)


def test_a_missing_tensor_and_a_wrong_shape_are_named(tmp_path: Path) -> None:
    weights = weights_from_folder(write_tiny_checkpoint(tmp_path))
    with pytest.raises(CheckpointError, match=r"model\.safetensors has no tensor model\.nowhere"):
        weights.read("model.nowhere", (1,))
    with pytest.raises(CheckpointError, match=r"norm\.weight is \[64\], but config\.json asks for \[65\]"):
        weights.read(NORM, (65,))


@pytest.mark.parametrize("keep", [0, 5, 500, -7])
def test_a_truncated_file_is_refused_before_anything_is_read(tmp_path: Path, keep: int) -> None:
    path = write_tiny_checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is truncated"):
        weights_from_folder(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"x" * 40)
    with pytest.raises(CheckpointError, match="header is not a JSON object"):
        weights_from_folder(tmp_path)


def test_another_number_type_is_named(tmp_path: Path) -> None:
    save_file({"a": np.zeros((2, 2), np.int8)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="a is stored as I8; supported are F32, F16 and BF16"):
        weights_from_folder(tmp_path)


def test_a_folder_without_safetensors_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"found pytorch_model\.bin, save the model as safetensors"):
        weights_from_folder(tmp_path)
