"""Tensors of a checkpoint folder, one at a time as float32, from safetensors with or without an index.

The file format is read here directly (8-byte header length, JSON header, raw bytes), because numpy has no
bfloat16 and because a memory map lets a row subset of a 2 GB head be read without loading the head.
Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import CheckpointError

_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_RAW_TYPES = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INDEX = "model.safetensors.index.json"


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
        self._origin = origin
        self.metadata = metadata

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def names(self) -> list[str]:
        """All tensor names, sorted."""
        return sorted(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor; CheckpointError when there is none of that name."""
        return self._entry(name).shape

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
                f"{self._origin} has no tensor {name}; "
                "a dense Qwen3-VL checkpoint as transformers saves it is needed"
            )
        return self._stored[name]

    def _map(self, name: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        entry = self._entry(name)
        if entry.shape != shape:
            raise CheckpointError(
                f"{entry.path.name}: {name} is {list(entry.shape)}, but config.json asks for {list(shape)}"
            )
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
        stored.update(entries)
    lost = sorted(set(weight_map) - set(stored))
    if lost:
        raise CheckpointError(f"{weight_map[lost[0]]} has no tensor {lost[0]}; {_INDEX} says it should")
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
            begin, end = entry["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{path.name} is not safetensors: its entry {name} is broken") from None
        if kind not in _ITEM_BYTES:
            raise CheckpointError(f"{path.name}: {name} is stored as {kind}; supported are F32, F16 and BF16")
        if end - begin != _ITEM_BYTES[kind] * int(np.prod(shape, dtype=np.int64)):
            raise CheckpointError(f"{path.name}: the bytes of {name} do not fit its shape {list(shape)}")
        if 8 + length + end > size:
            raise CheckpointError(f"{path.name} is truncated: {name} ends behind its {size} bytes")
        stored[name] = _Stored(path, kind, shape, 8 + length + begin)
    return stored, metadata
