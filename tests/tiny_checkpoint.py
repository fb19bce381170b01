"""Writes a small random Qwen3-VL checkpoint folder of any sizes, with numpy alone.

Weights are scaled so that activations keep their size through the layers and logits differ by several units:
with transformers' own 0.02 every logit is nearly the same and a parity test could not fail.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

TOKENIZER = Path(__file__).parents[1] / "examples" / "reference" / "tokenizer"
_STORED = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class TinySizes:
    """Sizes of the checkpoint; the defaults are small enough for tests that run in a second."""

    hidden: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    intermediate: int = 96
    mrope_section: tuple[int, int, int] = (6, 5, 5)
    rope_theta: float = 10000.0
    vision_hidden: int = 48
    vision_depth: int = 3
    vision_heads: int = 2
    vision_intermediate: int = 80
    position_side: int = 8
    deepstack: tuple[int, ...] = (0, 1)
    vocab: int = 1024
    is_head_tied: bool = True
    has_attention_bias: bool = False
    rms_norm_eps: float = 1e-6


REFERENCE_SIZES = TinySizes(
    hidden=192,
    layers=4,
    heads=3,
    kv_heads=1,
    head_dim=64,
    intermediate=512,
    mrope_section=(12, 10, 10),
    vision_hidden=192,
    vision_depth=6,
    vision_heads=3,
    vision_intermediate=768,
    deepstack=(1, 3),
)
"""The sizes of examples/reference."""


def write_tiny_checkpoint(
    folder: Path,
    sizes: TinySizes = TinySizes(),
    *,
    seed: int = 0,
    number_type: str = "bfloat16",
    shards: int = 1,
    config_dialect: str = "5",
    dense_types: tuple[str, ...] = ("open", "short", "mousebite", "spur", "copper", "pin-hole"),
) -> Path:
    """Write config.json, weights (bfloat16, float16, float32), tokenizer and preprocessor; return `folder`.

    `config_dialect` "4.57" writes rope_scaling and rope_theta, "5" writes rope_parameters. Without
    `dense_types` there is no dense_head.safetensors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    special = special_ids()
    _write_json(folder / "config.json", config_from_sizes(sizes, special, number_type, config_dialect))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(TOKENIZER / name, folder / name)
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "Qwen2VLImageProcessorFast",
            "patch_size": 16,
            "temporal_patch_size": 2,
            "merge_size": 2,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
    )
    draw = np.random.default_rng(seed)
    tensors = {name: _drawn(draw, name, shape) for name, shape in model_tensor_shapes(sizes).items()}
    _write_shards(folder, tensors, number_type, shards)
    if dense_types:
        dense = {
            name: _drawn(draw, name, shape) for name, shape in _dense_shapes(sizes, len(dense_types)).items()
        }
        _write_tensors(
            folder / "dense_head.safetensors", dense, "float32", {"types": json.dumps(list(dense_types))}
        )
    return folder


def model_tensor_shapes(sizes: TinySizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of every tensor that Qwen3VLForConditionalGeneration.save_pretrained writes."""
    shapes: dict[str, tuple[int, ...]] = {}
    width, wide, visual = sizes.vision_hidden, 4 * sizes.vision_hidden, "model.visual."
    shapes[f"{visual}patch_embed.proj.weight"] = (width, 3, 2, 16, 16)
    shapes[f"{visual}patch_embed.proj.bias"] = (width,)
    shapes[f"{visual}pos_embed.weight"] = (sizes.position_side**2, width)

    def linear(name: str, outputs: int, inputs: int, *, bias: bool) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs)
        if bias:
            shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, count: int, *, bias: bool) -> None:
        shapes[f"{name}.weight"] = (count,)
        if bias:
            shapes[f"{name}.bias"] = (count,)

    for block in range(sizes.vision_depth):
        name = f"{visual}blocks.{block}."
        norm(f"{name}norm1", width, bias=True)
        norm(f"{name}norm2", width, bias=True)
        linear(f"{name}attn.qkv", 3 * width, width, bias=True)
        linear(f"{name}attn.proj", width, width, bias=True)
        linear(f"{name}mlp.linear_fc1", sizes.vision_intermediate, width, bias=True)
        linear(f"{name}mlp.linear_fc2", width, sizes.vision_intermediate, bias=True)
    mergers = [f"{visual}merger."] + [
        f"{visual}deepstack_merger_list.{tap}." for tap in range(len(sizes.deepstack))
    ]
    for index, name in enumerate(mergers):
        norm(f"{name}norm", width if index == 0 else wide, bias=True)
        linear(f"{name}linear_fc1", wide, wide, bias=True)
        linear(f"{name}linear_fc2", sizes.hidden, wide, bias=True)
    text, has_bias = "model.language_model.", sizes.has_attention_bias
    shapes[f"{text}embed_tokens.weight"] = (sizes.vocab, sizes.hidden)
    for layer in range(sizes.layers):
        name = f"{text}layers.{layer}."
        norm(f"{name}input_layernorm", sizes.hidden, bias=False)
        norm(f"{name}post_attention_layernorm", sizes.hidden, bias=False)
        norm(f"{name}self_attn.q_norm", sizes.head_dim, bias=False)
        norm(f"{name}self_attn.k_norm", sizes.head_dim, bias=False)
        linear(f"{name}self_attn.q_proj", sizes.heads * sizes.head_dim, sizes.hidden, bias=has_bias)
        linear(f"{name}self_attn.k_proj", sizes.kv_heads * sizes.head_dim, sizes.hidden, bias=has_bias)
        linear(f"{name}self_attn.v_proj", sizes.kv_heads * sizes.head_dim, sizes.hidden, bias=has_bias)
        linear(f"{name}self_attn.o_proj", sizes.hidden, sizes.heads * sizes.head_dim, bias=has_bias)
        linear(f"{name}mlp.gate_proj", sizes.intermediate, sizes.hidden, bias=False)
        linear(f"{name}mlp.up_proj", sizes.intermediate, sizes.hidden, bias=False)
        linear(f"{name}mlp.down_proj", sizes.hidden, sizes.intermediate, bias=False)
    norm(f"{text}norm", sizes.hidden, bias=False)
    if not sizes.is_head_tied:
        shapes["lm_head.weight"] = (sizes.vocab, sizes.hidden)
    return shapes


def _dense_shapes(sizes: TinySizes, types: int) -> dict[str, tuple[int, ...]]:
    features, inner = (1 + len(sizes.deepstack)) * sizes.hidden, 40
    return {
        "norm.weight": (features,),
        "norm.bias": (features,),
        "fc1.weight": (inner, features),
        "fc1.bias": (inner,),
        "fc2.weight": (1 + types + 4, inner),
        "fc2.bias": (1 + types + 4,),
    }


def _drawn(draw: np.random.Generator, name: str, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    noise = draw.standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        return 0.1 * noise + (0.0 if name.endswith("bias") else 1.0)
    if "embed_tokens" in name or "pos_embed" in name:
        return 0.25 * noise
    fan_in = int(np.prod(shape[1:]))
    return noise * np.float32(1.5 / np.sqrt(fan_in))


def special_ids() -> dict[str, int]:
    """Special tokens of the reference tokenizer: text -> id."""
    document = json.loads((TOKENIZER / "tokenizer.json").read_text(encoding="utf-8"))
    return {entry["content"]: entry["id"] for entry in document["added_tokens"]}


def config_from_sizes(
    sizes: TinySizes, special: dict[str, int], number_type: str, dialect: str
) -> dict[str, Any]:
    """config.json in the words of transformers 4.57 or 5; `special` gives the ids of its special tokens."""
    multiaxis = {
        "mrope_section": list(sizes.mrope_section),
        "mrope_interleaved": True,
        "rope_type": "default",
    }
    rope: dict[str, Any]
    if dialect == "4.57":
        rope = {"rope_scaling": multiaxis, "rope_theta": sizes.rope_theta}
    else:
        rope = {"rope_parameters": multiaxis | {"rope_theta": sizes.rope_theta}}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "dtype" if dialect == "5" else "torch_dtype": number_type,
        "model_type": "qwen3_vl",
        "image_token_id": special["<|image_pad|>"],
        "video_token_id": special["<|video_pad|>"],
        "vision_start_token_id": special["<|vision_start|>"],
        "vision_end_token_id": special["<|vision_end|>"],
        "tie_word_embeddings": sizes.is_head_tied,
        "transformers_version": "4.57.0" if dialect == "4.57" else "5.0.0",
        "text_config": {
            "model_type": "qwen3_vl_text",
            "hidden_size": sizes.hidden,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.kv_heads,
            "head_dim": sizes.head_dim,
            "intermediate_size": sizes.intermediate,
            "vocab_size": sizes.vocab,
            "hidden_act": "silu",
            "rms_norm_eps": sizes.rms_norm_eps,
            "attention_bias": sizes.has_attention_bias,
            "max_position_embeddings": 4096,
            "pad_token_id": None,
            **rope,
        },
        "vision_config": {
            "model_type": "qwen3_vl" if dialect == "4.57" else "qwen3_vl_vision",
            "depth": sizes.vision_depth,
            "hidden_size": sizes.vision_hidden,
            "num_heads": sizes.vision_heads,
            "intermediate_size": sizes.vision_intermediate,
            "out_hidden_size": sizes.hidden,
            "in_channels": 3,
            "patch_size": 16,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "hidden_act": "gelu_pytorch_tanh",
            "num_position_embeddings": sizes.position_side**2,
            "deepstack_visual_indexes": list(sizes.deepstack),
        },
    }


def _write_shards(
    folder: Path, tensors: dict[str, npt.NDArray[np.float32]], number_type: str, shards: int
) -> None:
    if shards == 1:
        _write_tensors(folder / "model.safetensors", tensors, number_type, {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for index in range(shards):
        file = f"model-{index + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in list(tensors)[index::shards]}
        _write_tensors(folder / file, part, number_type, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})


def _write_tensors(
    path: Path, tensors: dict[str, npt.NDArray[np.float32]], number_type: str, metadata: dict[str, str]
) -> None:
    """One safetensors file. numpy has no bfloat16: an item is the rounded upper half of a float32."""
    header: dict[str, Any] = {"__metadata__": metadata}
    items: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        if number_type == "bfloat16":
            words = np.ascontiguousarray(array).view(np.uint32)
            items.append(((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype(np.uint16).tobytes())
        else:
            items.append(array.astype(number_type).tobytes())
        end = offset + len(items[-1])
        header[name] = {
            "dtype": _STORED[number_type],
            "shape": list(array.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(items))


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2), encoding="utf-8")
