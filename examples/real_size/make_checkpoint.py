"""Writes a random-weight checkpoint of the real Qwen3-VL 2B, 4B or 8B sizes, or a slice of one, streamed.

python -m orinspect.examples.real_size.make_checkpoint 2b runs/2b
python -m orinspect.examples.real_size.make_checkpoint 2b runs/slice --layers 4 --vision-depth 3

For measuring time, memory and size where the pretrained weights are not at hand: every tensor has the name,
shape and type (bfloat16) of the real file, and activations keep a sane size, but the answers mean nothing.
The tokenizer is the repository's small one, so the special token ids in config.json are its ids, not Qwen's.
One piece of one tensor is in memory at a time.

Sizes: config.json of Qwen3-VL-4B-Instruct as published; 2B and 8B as pytorch/torchtitan has them
(torchtitan/experiments/qwen3_vl/__init__.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...tests.tiny_checkpoint import (
    TOKENIZER,
    TinySizes,
    config_from_sizes,
    model_tensor_shapes,
    special_ids,
)

_SMALL_VISION: dict[str, Any] = {
    "vision_hidden": 1024,
    "vision_depth": 24,
    "vision_heads": 16,
    "vision_intermediate": 4096,
    "deepstack": (5, 11, 17),
}
_LARGE_VISION: dict[str, Any] = {
    "vision_hidden": 1152,
    "vision_depth": 27,
    "vision_heads": 16,
    "vision_intermediate": 4304,
    "deepstack": (8, 16, 24),
}
_SHARED: dict[str, Any] = {
    "head_dim": 128,
    "kv_heads": 8,
    "mrope_section": (24, 20, 20),
    "rope_theta": 5_000_000.0,
    "position_side": 48,
    "vocab": 151_936,
}
SIZES: Mapping[str, TinySizes] = {
    "2b": TinySizes(hidden=2048, layers=28, heads=16, intermediate=6144, **_SHARED, **_SMALL_VISION),
    "4b": TinySizes(hidden=2560, layers=36, heads=32, intermediate=9728, **_SHARED, **_SMALL_VISION),
    "8b": TinySizes(
        hidden=4096, layers=36, heads=32, intermediate=12288, is_head_tied=False, **_SHARED, **_LARGE_VISION
    ),
}
"""The dense Qwen3-VL sizes by name."""

SHARD_BYTES = 5 * 10**9
"""Most bytes of one safetensors file, as save_pretrained splits them."""

_PIECE = 1 << 24  # numbers drawn at once
_PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 16,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

Progress = Callable[[str, int, int], None]
"""Called with (file, bytes written, bytes in all)."""


def sliced(
    sizes: TinySizes, *, layers: int | None = None, vision_depth: int | None = None, vocab: int | None = None
) -> TinySizes:
    """`sizes` with fewer decoder layers, vision blocks or tokens; DeepStack taps spread over what is left.

    A decoder of fewer layers than taps keeps as many taps as it has layers. ValueError: more than the model
    has, or less than one.
    """
    wanted = {"layers": layers, "vision_depth": vision_depth, "vocab": vocab}
    for name, value in wanted.items():
        if value is not None and not 1 <= value <= getattr(sizes, name):
            raise ValueError(f"{name} must lie within 1..{getattr(sizes, name)}, got {value}")
    cut = replace(
        sizes,
        layers=layers or sizes.layers,
        vision_depth=vision_depth or sizes.vision_depth,
        vocab=vocab or sizes.vocab,
    )
    taps = min(len(sizes.deepstack), cut.layers, cut.vision_depth)
    if cut.vision_depth == sizes.vision_depth and taps == len(sizes.deepstack):
        return cut
    if taps == cut.vision_depth:
        return replace(cut, deepstack=tuple(range(taps)))
    places = np.linspace(0, cut.vision_depth, taps + 2)[1:-1]
    return replace(cut, deepstack=tuple(int(place) for place in places))


def parameters(sizes: TinySizes) -> int:
    """How many numbers the checkpoint holds."""
    return sum(_count(shape) for shape in model_tensor_shapes(sizes).values())


def write_checkpoint(
    folder: Path,
    sizes: TinySizes,
    *,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda file, done, total: None,
) -> Path:
    """Write config.json, bfloat16 shards with their index, preprocessor and tokenizer; return `folder`.

    Memory stays under 300 MB whatever the size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config_from_sizes(sizes, special_ids(), "bfloat16", "4.57"))
    _write_json(folder / "preprocessor_config.json", _PREPROCESSOR)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    shards = list(_shards(model_tensor_shapes(sizes), shard_bytes))
    total, done = 2 * parameters(sizes), 0
    draw = np.random.Generator(np.random.SFC64(seed))
    weight_map: dict[str, str] = {}
    for index, shapes in enumerate(shards):
        single = len(shards) == 1
        file = "model.safetensors" if single else f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(shapes, file)
        with (folder / file).open("wb") as stream:
            stream.write(_header(shapes))
            for name, shape in shapes.items():
                for piece in _drawn(draw, name, shape, sizes):
                    stream.write(piece.data)
                    done += piece.nbytes
                    progress(file, done, total)
    if len(shards) > 1:
        listed = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", listed)
    return folder


def _shards(shapes: Mapping[str, tuple[int, ...]], most: int) -> Iterator[dict[str, tuple[int, ...]]]:
    """The tensors in order, cut into files of at most `most` bytes (a larger tensor has one of its own)."""
    shard: dict[str, tuple[int, ...]] = {}
    size = 0
    for name, shape in shapes.items():
        if shard and size + 2 * _count(shape) > most:
            yield shard
            shard, size = {}, 0
        shard[name] = shape
        size += 2 * _count(shape)
    yield shard


def _header(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """The length and the JSON header of a safetensors file of bfloat16 tensors that follow each other."""
    document: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + 2 * _count(shape)
        document[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _drawn(
    draw: np.random.Generator, name: str, shape: tuple[int, ...], sizes: TinySizes
) -> Iterator[npt.NDArray[np.uint16]]:
    """The tensor's numbers as bfloat16 bits, piece by piece."""
    left, centre, spread = _count(shape), *_centre_and_spread(name, shape, sizes)
    while left:
        piece = draw.standard_normal(min(left, _PIECE), dtype=np.float32)
        left -= len(piece)
        piece *= np.float32(spread)
        piece += np.float32(centre)
        bits = piece.view(np.uint32)
        # bfloat16 is the upper half of a float32, rounded to even.
        bits += 0x7FFF + ((bits >> 16) & 1)
        yield (bits >> 16).astype("<u2")


def _centre_and_spread(name: str, shape: tuple[int, ...], sizes: TinySizes) -> tuple[float, float]:
    """Mean and deviation of a tensor's numbers.

    A linear keeps the size of what it reads; those that write to the residual stream are smaller by
    sqrt(2 x layers), so that the stream ends about as large as it began (as GPT-2 is initialised).
    """
    if len(shape) == 1:
        return (0.0 if name.endswith("bias") else 1.0), 0.1
    if "embed_tokens" in name or "pos_embed" in name or name == "lm_head.weight":
        return 0.0, 0.1
    spread = _count(shape[1:]) ** -0.5
    if name.endswith(("o_proj.weight", "down_proj.weight")):
        spread *= (2 * sizes.layers) ** -0.5
    elif "visual.blocks" in name and name.endswith(("attn.proj.weight", "linear_fc2.weight")):
        spread *= (2 * sizes.vision_depth) ** -0.5
    return 0.0, spread


def _count(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="A random-weight checkpoint of real Qwen3-VL sizes.")
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--layers", type=int, help="decoder layers (all)")
    parser.add_argument("--vision-depth", type=int, help="vision blocks (all)")
    parser.add_argument("--vocab", type=int, help="tokens (all 151936)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    try:
        sizes = sliced(
            SIZES[options.size], layers=options.layers, vision_depth=options.vision_depth, vocab=options.vocab
        )
    except ValueError as problem:
        parser.error(str(problem))
    write_checkpoint(options.out, sizes, seed=options.seed)
    print(f"{options.out}: {parameters(sizes) / 1e9:.2f} billion parameters, random")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
