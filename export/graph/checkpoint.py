"""A Qwen3-VL checkpoint folder, read without torch: config.json -> ModelShape, and tensors one at a time.

Two dialects of config.json are read: transformers 4.57 (`rope_theta` beside `rope_scaling`) and 5.x
(`rope_parameters`). What the graphs could not reproduce is refused, a checkpoint without M-RoPE section too:
with plain rope it would run and answer nonsense.
Tensors come as float32 from safetensors, with or without an index. The file format is read here directly
(8-byte header length, JSON header, raw bytes), because numpy has no bfloat16 and because a memory map lets a
row subset of a 2 GB head be read without loading the head.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.errors import CheckpointError
from ...runtime.infer.shape import ModelShape

# Defaults that transformers 4.57 and 5.x share, for keys that a saved configuration may leave out.
_TEXT_DEFAULTS: dict[str, Any] = {
    "head_dim": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
}
_VISION_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "patch_size": 16,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "hidden_act": "gelu_pytorch_tanh",
}
_VISION_ROPE_THETA = 10000.0

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_RAW_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INDEX = "model.safetensors.index.json"


def shape_from_folder(
    folder: Path, *, tile_px: int = 128, grid_hw: tuple[int, int] | None = None
) -> ModelShape:
    """Sizes of the checkpoint in `folder`, for square tiles of `tile_px` or pictures of `grid_hw` patches.

    CheckpointError: another architecture, mixture of experts, quantised weights, a rope that is not
    interleaved M-RoPE, sizes that do not fit each other, or a grid that cannot be merged.
    """
    document = json_from_file(folder / "config.json")
    _check_architecture(document)
    text = _TEXT_DEFAULTS | _section(document, "text_config")
    vision = _VISION_DEFAULTS | _section(document, "vision_config")
    theta, section = _text_rope(text)
    shape = ModelShape(
        hidden=_size(text, "text_config", "hidden_size"),
        layers=_size(text, "text_config", "num_hidden_layers"),
        heads=_size(text, "text_config", "num_attention_heads"),
        kv_heads=_size(text, "text_config", "num_key_value_heads"),
        head_dim=_size(text, "text_config", "head_dim"),
        intermediate=_size(text, "text_config", "intermediate_size"),
        vocab=_size(text, "text_config", "vocab_size"),
        rms_norm_eps=float(text["rms_norm_eps"]),
        rope_theta=theta,
        mrope_section=section,
        is_head_tied=bool(document.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        has_attention_bias=bool(text["attention_bias"]),
        vision_hidden=_size(vision, "vision_config", "hidden_size"),
        vision_depth=_size(vision, "vision_config", "depth"),
        vision_heads=_size(vision, "vision_config", "num_heads"),
        vision_intermediate=_size(vision, "vision_config", "intermediate_size"),
        vision_rope_theta=float((vision.get("rope_parameters") or {}).get("rope_theta", _VISION_ROPE_THETA)),
        channels=_size(vision, "vision_config", "in_channels"),
        patch_px=_size(vision, "vision_config", "patch_size"),
        temporal_patch=_size(vision, "vision_config", "temporal_patch_size"),
        merge=_size(vision, "vision_config", "spatial_merge_size"),
        position_side=round(_size(vision, "vision_config", "num_position_embeddings") ** 0.5),
        deepstack=tuple(int(index) for index in vision.get("deepstack_visual_indexes") or ()),
        grid_hw=grid_hw or _square_grid(vision, tile_px),
        image_token_id=_size(document, "config.json", "image_token_id", least=0),
        vision_start_token_id=_size(document, "config.json", "vision_start_token_id", least=0),
        vision_end_token_id=_size(document, "config.json", "vision_end_token_id", least=0),
    )
    _check_activations(text, vision)
    _check_sizes(shape, vision)
    return shape


@dataclass(frozen=True)
class _Stored:
    """Where one tensor lies: file, type of its items, shape, first byte."""

    path: Path
    kind: str
    shape: tuple[int, ...]
    offset: int


class Weights:
    """Read-only view of named tensors; every read opens a memory map and returns a new float32 array."""

    def __init__(self, stored: dict[str, _Stored], origin: str, metadata: dict[str, str]) -> None:
        self._stored = stored
        self.origin = origin  # the file that lists the tensors: the index, or the one file
        self.metadata = metadata

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor; CheckpointError when there is none of that name."""
        return self._entry(name).shape

    def file(self, name: str) -> str:
        """Name of the file that holds one tensor; CheckpointError when there is none of that name."""
        return self._entry(name).path.name

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """CheckpointError when a tensor is missing or not of the shape expected; reads no data."""
        entry = self._entry(name)
        if entry.shape != shape:
            raise CheckpointError(
                f"{entry.path.name}: {name} is {list(entry.shape)}, but config.json asks for {list(shape)}"
            )

    def float32_bytes(self, prefix: str) -> int:
        """Bytes that all tensors under a name prefix take as float32."""
        return sum(
            4 * int(np.prod(entry.shape, dtype=np.int64))
            for name, entry in self._stored.items()
            if name.startswith(prefix)
        )

    def read(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """One whole tensor, C-contiguous; CheckpointError when it is missing or not of the shape expected."""
        return self._as_float32(self._map(name, shape), self._entry(name).kind)

    def rows(self, name: str, shape: tuple[int, ...], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Rows `ids` of a matrix, without reading the others."""
        return self._as_float32(self._map(name, shape)[ids], self._entry(name).kind)

    def _entry(self, name: str) -> _Stored:
        if name not in self._stored:
            raise CheckpointError(
                f"{self.origin} has no tensor {name}; "
                "a dense Qwen3-VL checkpoint as transformers saves it is needed"
            )
        return self._stored[name]

    def _map(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        self.check_shape(name, shape)
        entry = self._entry(name)
        raw: Any = np.dtype(_RAW_TYPES[entry.kind])
        mapped: npt.NDArray[Any] = np.memmap(entry.path, raw, "r", entry.offset, entry.shape)
        return mapped

    @staticmethod
    def _as_float32(raw: npt.NDArray[Any], kind: str) -> npt.NDArray[np.float32]:
        if kind != "BF16":
            return np.array(raw, np.float32, order="C")
        # bfloat16 is the upper half of a float32, so widening is a shift by 16 bits.
        wide = np.array(raw, np.uint32, order="C")
        np.left_shift(wide, 16, out=wide)
        return wide.view(np.float32)


def weights_from_folder(folder: Path) -> Weights:
    """The model's tensors: all shards that the index names, or the one model.safetensors."""
    index_path = folder / _INDEX
    if not index_path.exists():
        single = folder / "model.safetensors"
        if not single.exists():
            found = sorted(path.name for path in folder.glob("*.bin"))
            raise CheckpointError(
                f"{folder}: neither model.safetensors nor {_INDEX} is here"
                + (f"; found {', '.join(found)}, save the model as safetensors instead" if found else "")
            )
        return weights_from_file(single)
    document = json_from_file(index_path)
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{_INDEX} has no weight_map object; download or save the checkpoint again")
    stored: dict[str, _Stored] = {}
    for shard in sorted(set(weight_map.values())):
        path = folder / shard
        if not path.exists():
            raise CheckpointError(f"{shard} is missing from {folder}; {_INDEX} names it")
        entries, _ = _header(path)
        for name in entries:
            if name in stored:
                raise CheckpointError(
                    f"{shard}: {name} stands in {stored[name].path.name} too; save or download the shards"
                    " again"
                )
        stored.update(entries)
    for name in sorted(weight_map):
        if name not in stored or stored[name].path.name != weight_map[name]:
            raise CheckpointError(f"{weight_map[name]} has no tensor {name}; {_INDEX} says it should")
    return Weights(stored, _INDEX, {})


def weights_from_file(path: Path) -> Weights:
    """The tensors of one safetensors file, with its metadata."""
    stored, metadata = _header(path)
    return Weights(stored, path.name, metadata)


def json_from_file(path: Path) -> dict[str, Any]:
    """A JSON object of the checkpoint; CheckpointError names the file when it is missing or is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.name} is missing from {path.parent}; a Hugging Face checkpoint folder is needed"
        ) from None
    except (OSError, ValueError) as fault:
        raise CheckpointError(f"{path.name} cannot be read as JSON: {fault}") from None
    if not isinstance(document, dict):
        raise CheckpointError(f"{path.name} holds a {type(document).__name__}, not a JSON object")
    return document


def _check_architecture(document: Mapping[str, Any]) -> None:
    kind = document.get("model_type")
    if kind == "qwen3_vl_moe" or "num_experts" in (document.get("text_config") or {}):
        raise CheckpointError(
            f"config.json: model_type {kind!r} is a mixture of experts; only the dense qwen3_vl is supported"
        )
    if kind != "qwen3_vl":
        raise CheckpointError(
            f"config.json: model_type {kind!r} is not supported; only the dense qwen3_vl is"
        )
    if document.get("quantization_config"):
        raise CheckpointError(
            "config.json has a quantization_config; export from the float checkpoint instead"
        )


def _section(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = document.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(
            f"config.json has no {name} object; a qwen3_vl configuration has text_config and vision_config"
        )
    return section


def _size(section: Mapping[str, Any], where: str, key: str, *, least: int = 1) -> int:
    value = section.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise CheckpointError(
            f"config.json: {where}.{key} must be a whole number, {least} or more; found {value!r}"
        )
    return value


def _square_grid(vision: Mapping[str, Any], tile_px: int) -> tuple[int, int]:
    patch_px = _size(vision, "vision_config", "patch_size")
    token_px = patch_px * _size(vision, "vision_config", "spatial_merge_size")
    if tile_px <= 0 or tile_px % token_px:
        raise CheckpointError(f"a tile of {tile_px} px does not divide into tokens of {token_px} px")
    return tile_px // patch_px, tile_px // patch_px


def _text_rope(text: Mapping[str, Any]) -> tuple[float, tuple[int, int, int]]:
    """Theta and M-RoPE section from `rope_parameters` (5.x) or `rope_scaling` + `rope_theta` (4.57)."""
    # The order in which transformers looks when both are there.
    rope = text.get("rope_scaling") or text.get("rope_parameters") or {}
    theta = rope.get("rope_theta", text.get("rope_theta"))
    section = rope.get("mrope_section")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if not isinstance(section, list) or len(section) != 3:
        raise CheckpointError(
            "config.json: text_config has no mrope_section in rope_parameters or rope_scaling; "
            f"found {section!r}, and without it image positions would be lost"
        )
    if not isinstance(theta, (int, float)):
        raise CheckpointError(
            "config.json: text_config has no rope_theta, whose default differs between releases; "
            f"found {theta!r}"
        )
    # transformers 4.57 knew the type as "mrope" or "default"; anything else rescales the frequencies.
    if kind not in ("default", "mrope"):
        raise CheckpointError(
            f"config.json: rope type {kind!r} is not supported; only default with M-RoPE is"
        )
    if rope.get("mrope_interleaved", True) is not True:
        raise CheckpointError(
            "config.json: mrope_interleaved is false; Qwen3-VL uses the interleaved form only"
        )
    return float(theta), (int(section[0]), int(section[1]), int(section[2]))


def _check_activations(text: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    for name, section, wanted in (
        ("text_config", text, "silu"),
        ("vision_config", vision, "gelu_pytorch_tanh"),
    ):
        if section["hidden_act"] != wanted:
            raise CheckpointError(
                f"config.json: {name}.hidden_act {section['hidden_act']!r} is not supported; only {wanted} is"
            )


def _check_sizes(shape: ModelShape, vision: Mapping[str, Any]) -> None:
    """Refuse sizes that contradict each other, each with the two numbers in the message."""
    rows, columns = shape.grid_hw
    if rows % shape.merge or columns % shape.merge or min(rows, columns) < shape.merge:
        raise CheckpointError(
            f"a grid of {rows} x {columns} patches cannot be merged {shape.merge} x {shape.merge}"
        )
    if shape.heads % shape.kv_heads:
        raise CheckpointError(
            f"config.json: {shape.heads} heads cannot share {shape.kv_heads} key/value heads"
        )
    if sum(shape.mrope_section) != shape.head_dim // 2:
        raise CheckpointError(
            f"config.json: mrope_section {list(shape.mrope_section)} must add up to half of head_dim "
            f"{shape.head_dim}"
        )
    if shape.vision_hidden % (4 * shape.vision_heads):
        raise CheckpointError(
            f"config.json: vision hidden_size {shape.vision_hidden} must be a multiple of 4 x "
            f"{shape.vision_heads} heads"
        )
    if vision.get("out_hidden_size") != shape.hidden:
        raise CheckpointError(
            f"config.json: vision out_hidden_size {vision.get('out_hidden_size')} differs from "
            f"text hidden_size {shape.hidden}"
        )
    if shape.position_side**2 != vision["num_position_embeddings"]:
        raise CheckpointError(
            f"config.json: num_position_embeddings {vision['num_position_embeddings']} is not a square number"
        )
    taps = shape.deepstack
    if (
        not taps
        or len(taps) > shape.layers
        or len(set(taps)) != len(taps)
        or not all(0 <= tap < shape.vision_depth for tap in taps)
    ):
        raise CheckpointError(
            f"config.json: deepstack_visual_indexes {list(taps)} must name 1..{shape.layers} different "
            f"blocks of 0..{shape.vision_depth - 1}"
        )


def _header(path: Path) -> tuple[dict[str, _Stored], dict[str, str]]:
    """Tensor entries and metadata of a file; a file shorter than its header says is refused here."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise CheckpointError(f"{path.name} is truncated or not safetensors: {size} bytes")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise CheckpointError(f"{path.name} is not safetensors: its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    stored = {}
    for name, entry in header.items():
        try:
            kind, shape = entry["dtype"], tuple(entry["shape"])
            begin, end = (int(offset) for offset in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path.name} is not safetensors: its entry {name} is broken") from None
        if kind not in _ITEM_BYTES:
            raise CheckpointError(
                f"{path.name}: {name} is stored as {kind}; supported are F32, F16 and BF16, so save the float"
                " model"
            )
        if begin < 0 or end - begin != _ITEM_BYTES[kind] * int(np.prod(shape, dtype=np.int64)):
            raise CheckpointError(f"{path.name}: the bytes of {name} do not fit its shape {list(shape)}")
        if 8 + length + end > size:
            raise CheckpointError(f"{path.name} is truncated: {name} ends behind its {size} bytes")
        stored[name] = _Stored(path, kind, shape, 8 + length + begin)
    return stored, metadata
