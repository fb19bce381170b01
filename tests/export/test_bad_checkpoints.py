"""Every way in which a checkpoint can be wrong is one sentence that names file and tensor, before any work.

Nothing is written; what is harmless is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from orinspect.export.graph.graphs import graphs_from_checkpoint, shape_from_checkpoint
from orinspect.export.graph.inventory import expected_tensors
from orinspect.export.inputs import checked_inputs
from orinspect.runtime.errors import CheckpointError
from orinspect.tests.small_bundle import small_recipe
from orinspect.tests.tiny_checkpoint import TinySizes, model_tensor_shapes, write_tiny_checkpoint

Header = dict[str, Any]
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
QUERY = "model.language_model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_checkpoint(tmp_path / "checkpoint", shards=2)


def rewritten(path: Path, change: Callable[[Header], object], tail: bytes = b"") -> None:
    """The file with its JSON header changed and bytes added behind the data."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :] + tail)


def changed(path: Path, change: Callable[[Header], object]) -> None:
    """A JSON file changed."""
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def added(folder: Path, name: str, file: str = FIRST, *, to_index: bool = True) -> None:
    """One more bfloat16 tensor [2] at the end of a shard."""
    path = folder / file
    data = path.stat().st_size - 8 - int.from_bytes(path.read_bytes()[:8], "little")
    entry = {"dtype": "BF16", "shape": [2], "data_offsets": [data, data + 4]}
    rewritten(path, lambda header: header.update({name: entry}), b"\0" * 4)
    if to_index:
        index = folder / "model.safetensors.index.json"
        changed(index, lambda document: document["weight_map"].update({name: file}))


def without(folder: Path, name: str) -> None:
    """One tensor gone from its shard and from the index."""
    index = folder / "model.safetensors.index.json"
    file = json.loads(index.read_text())["weight_map"][name]
    changed(index, lambda document: document["weight_map"].pop(name))
    rewritten(folder / file, lambda header: header.pop(name))


def shard_of(folder: Path, name: str) -> str:
    return str(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"][name])


def other(file: str) -> str:
    return SECOND if file == FIRST else FIRST


def refused(folder: Path) -> str:
    """The sentence, the same from the whole check and from the graphs alone; nothing is left of either."""
    before = sorted(path for path in folder.parent.rglob("*"))
    with pytest.raises(CheckpointError) as caught:
        checked_inputs(folder, [small_recipe()])
    assert sorted(path for path in folder.parent.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused_by_graphs(folder: Path) -> str:
    sentence = refused(folder)
    with pytest.raises(CheckpointError) as caught:
        graphs_from_checkpoint(folder, folder.parent / "graphs")
    assert str(caught.value) == sentence
    assert not (folder.parent / "graphs").exists()
    return sentence


def test_the_list_of_tensors_is_what_transformers_saves(tmp_path: Path) -> None:
    for sizes in (TinySizes(), TinySizes(is_head_tied=False, has_attention_bias=True, deepstack=(2,))):
        folder = write_tiny_checkpoint(tmp_path / str(sizes.is_head_tied), sizes)
        assert dict(expected_tensors(shape_from_checkpoint(folder))) == model_tensor_shapes(sizes)
        checked_inputs(folder, [small_recipe()])


def test_a_truncated_shard(folder: Path) -> None:
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:-100])
    sentence = refused_by_graphs(folder)
    assert sentence.startswith(f"{SECOND} is truncated: model.")


@pytest.mark.parametrize(("kind", "size"), [("I8", 1), ("F8_E4M3", 1), ("F64", 8)])
def test_another_number_type(folder: Path, kind: str, size: int) -> None:
    file = shard_of(folder, QUERY)

    def retyped(header: Header) -> None:
        entry = header[QUERY]
        begin = entry["data_offsets"][0]
        entry |= {"dtype": kind, "data_offsets": [begin, begin + size * int(np.prod(entry["shape"]))]}

    rewritten(folder / file, retyped)
    assert refused_by_graphs(folder).startswith(f"{file}: {QUERY} is stored as {kind}; supported are F32")


def test_a_missing_tensor(folder: Path) -> None:
    without(folder, QUERY)
    assert refused_by_graphs(folder).startswith(f"model.safetensors.index.json has no tensor {QUERY}; ")


def test_a_tensor_of_another_shape(folder: Path) -> None:
    file = shard_of(folder, QUERY)
    rewritten(folder / file, lambda header: header[QUERY].update(shape=[64, 128]))
    assert refused_by_graphs(folder) == f"{file}: {QUERY} is [64, 128], but config.json asks for [128, 64]"


@pytest.mark.parametrize(
    "name", ["model.language_model.layers.3.mlp.up_proj.weight", "base_model.q_proj.lora_A.weight"]
)
def test_a_tensor_that_the_configuration_does_not_explain(folder: Path, name: str) -> None:
    added(folder, name)
    assert refused_by_graphs(folder).startswith(f"{FIRST}: {name} is no tensor of the qwen3_vl that config")


def test_many_surplus_tensors_are_counted(folder: Path) -> None:
    for index in range(3):
        added(folder, f"extra.{index}")
    assert "extra.0 (and 2 others) is no tensor" in refused_by_graphs(folder)


def test_a_renamed_tensor_says_both_names(folder: Path) -> None:
    without(folder, QUERY)
    added(folder, "language_model.model.layers.1.self_attn.q_proj.weight")
    sentence = refused_by_graphs(folder)
    assert f"has no tensor {QUERY}; found language_model.model.layers.1" in sentence
    assert FIRST in sentence


@pytest.mark.parametrize(
    "name",
    ["model.language_model.rotary_emb.inv_freq", "model.visual.rotary_pos_emb.inv_freq", "lm_head.weight"],
)
def test_computed_buffers_and_a_tied_head_are_harmless(folder: Path, name: str) -> None:
    added(folder, name)
    checked_inputs(folder, [small_recipe()])


def test_a_mixture_of_experts_by_its_configuration_and_by_its_tensors(folder: Path) -> None:
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    added(folder, name)
    assert refused_by_graphs(folder).startswith(f"{FIRST}: {name} belongs to a mixture of experts; only")
    changed(folder / "config.json", lambda document: document.update(model_type="qwen3_vl_moe"))
    assert refused_by_graphs(folder).startswith("config.json: model_type 'qwen3_vl_moe' is a mixture of exp")


def test_qwen2_5_vl(folder: Path) -> None:
    changed(folder / "config.json", lambda document: document.update(model_type="qwen2_5_vl"))
    assert refused_by_graphs(folder) == (
        "config.json: model_type 'qwen2_5_vl' is not supported; only the dense qwen3_vl is"
    )


def test_a_shard_of_the_index_that_is_not_there(folder: Path) -> None:
    (folder / FIRST).unlink()
    assert refused_by_graphs(folder).startswith(f"{FIRST} is missing from ")


def test_a_tensor_in_two_shards(folder: Path) -> None:
    file = shard_of(folder, QUERY)
    added(folder, QUERY, other(file), to_index=False)
    sentence = refused_by_graphs(folder)
    assert f"{QUERY} stands in " in sentence
    assert FIRST in sentence
    assert SECOND in sentence


def test_a_tensor_in_another_shard_than_the_index_says(folder: Path) -> None:
    file = shard_of(folder, QUERY)
    index = folder / "model.safetensors.index.json"
    changed(index, lambda document: document["weight_map"].update({QUERY: other(file)}))
    assert refused_by_graphs(folder).startswith(f"{other(file)} has no tensor {QUERY}; model.safetensors.i")


def test_a_token_behind_the_end_of_the_embedding(folder: Path) -> None:
    def grown(document: Header) -> None:
        document["added_tokens"].append({**document["added_tokens"][-1], "id": 1024, "content": "<|new|>"})

    changed(folder / "tokenizer.json", grown)
    assert refused(folder).startswith(
        "tokenizer.json: '<|new|>' has the id 1024, but model.language_model.embed_tokens.weight has 1024 row"
    )


@pytest.mark.parametrize(
    ("key", "token"),
    [
        ("image_token_id", "<|image_pad|>"),
        ("vision_start_token_id", "<|vision_start|>"),
        ("vision_end_token_id", "<|vision_end|>"),
    ],
)
def test_special_tokens_of_another_tokenizer(folder: Path, key: str, token: str) -> None:
    was = json.loads((folder / "config.json").read_text())[key]
    changed(folder / "config.json", lambda document: document.update({key: 7}))
    assert refused(folder).startswith(
        f"tokenizer.json: {token} has the id {was}, but config.json says {key} = 7, so it does not match"
    )


def test_a_damaged_dense_head(folder: Path) -> None:
    path = folder / "dense_head.safetensors"
    rewritten(path, lambda header: header["fc1.weight"].update(shape=[192, 40]))
    assert "dense_head.safetensors: " in refused_by_graphs(folder)
    rewritten(path, lambda header: header.pop("fc1.bias"))
    assert refused_by_graphs(folder).startswith("dense_head.safetensors has no tensor fc1.bias; its")


def test_bytes_before_the_data_are_no_tensor(folder: Path) -> None:
    file = shard_of(folder, QUERY)

    def moved(header: Header) -> None:
        begin, end = header[QUERY]["data_offsets"]
        header[QUERY]["data_offsets"] = [-8, end - begin - 8]

    rewritten(folder / file, moved)
    assert refused_by_graphs(folder) == f"{file}: the bytes of {QUERY} do not fit its shape [128, 64]"
