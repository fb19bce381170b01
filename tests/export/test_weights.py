"""Reading tensors from safetensors without torch: number types, shards, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from orinspect.export.weights import weights_from_file, weights_from_folder
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.tiny_checkpoint import TinySizes, model_tensor_shapes, write_tiny_checkpoint

NORM = "model.language_model.norm.weight"
HEAD = "model.language_model.embed_tokens.weight"


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
