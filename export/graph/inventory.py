"""Every tensor that a checkpoint must hold, and nothing else: checked before any long work starts.

Names and shapes follow from config.json, as Qwen3VLForConditionalGeneration of transformers saves them. A
tensor that config.json does not explain is refused: a graph that leaves it out would be another model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ...runtime.errors import CheckpointError
from ...runtime.infer.shape import ModelShape
from .checkpoint import Weights
from .decoder import PREFIX as TEXT
from .vision import PREFIX as VISION
from .vision import dense_shapes

Tensors = Iterator[tuple[str, tuple[int, ...]]]

# Buffers that older releases saved beside the weights; they are computed from config.json.
_COMPUTED = re.compile(r"(^|\.)rotary(_pos)?_emb\.inv_freq$")
_EXPERTS = re.compile(r"\.mlp\.(experts\b|gate\.weight$|shared_expert)")


def check_tensors(weights: Weights, shape: ModelShape) -> None:
    """CheckpointError that names file and tensor when one is missing, has another shape, or is one too many.

    Accepted beside the model's own: rotary frequencies, and the word head's matrix where it is tied to the
    embedding and therefore never read.
    """
    expected = dict(expected_tensors(shape))
    surplus = [
        name
        for name in weights.names()
        if name not in expected
        and not _COMPUTED.search(name)
        and not (shape.is_head_tied and name == "lm_head.weight")
    ]
    experts = [name for name in surplus if _EXPERTS.search(name)]
    if experts:
        raise CheckpointError(
            f"{weights.file(experts[0])}: {experts[0]} belongs to a mixture of experts; only the dense"
            " qwen3_vl is supported"
        )
    missing = [name for name in expected if name not in weights]
    if missing:
        found = f"; found {surplus[0]} in {weights.file(surplus[0])} instead" if surplus else ""
        raise CheckpointError(
            f"{weights.origin} has no tensor {missing[0]}{_and_others(missing)}{found}; a dense Qwen3-VL"
            " checkpoint as transformers saves it is needed"
        )
    if surplus:
        raise CheckpointError(
            f"{weights.file(surplus[0])}: {surplus[0]}{_and_others(surplus)} is no tensor of the qwen3_vl"
            " that config.json describes; merge adapters into the weights, or save the model again"
        )
    _check_shapes(weights, expected)


def check_dense_head(dense: Weights, shape: ModelShape) -> None:
    """The same for dense_head.safetensors."""
    expected = dense_shapes(dense, shape)
    missing = [name for name in expected if name not in dense]
    surplus = [name for name in dense.names() if name not in expected]
    if missing or surplus:
        what = f"has no tensor {missing[0]}" if missing else f"holds an unknown tensor {surplus[0]}"
        raise CheckpointError(
            f"{dense.origin} {what}; its tensors are {', '.join(expected)}, see examples/reference"
        )
    _check_shapes(dense, expected)


def expected_tensors(shape: ModelShape) -> Tensors:
    """Name and shape of every tensor of the model, in the order of the layers."""
    yield from _vision_tensors(shape)
    yield f"{TEXT}embed_tokens.weight", (shape.vocab, shape.hidden)
    for layer in range(shape.layers):
        yield from _layer_tensors(shape, f"{TEXT}layers.{layer}.")
    yield f"{TEXT}norm.weight", (shape.hidden,)
    if not shape.is_head_tied:
        yield "lm_head.weight", (shape.vocab, shape.hidden)


def _vision_tensors(shape: ModelShape) -> Tensors:
    width, wide, inner = shape.vision_hidden, shape.vision_hidden * shape.merge**2, shape.vision_intermediate
    kernel = (width, shape.channels, shape.temporal_patch, shape.patch_px, shape.patch_px)
    yield f"{VISION}patch_embed.proj.weight", kernel
    yield f"{VISION}patch_embed.proj.bias", (width,)
    yield f"{VISION}pos_embed.weight", (shape.position_side**2, width)
    for block in range(shape.vision_depth):
        name = f"{VISION}blocks.{block}."
        yield from _norm(f"{name}norm1", width)
        yield from _norm(f"{name}norm2", width)
        yield from _linear(f"{name}attn.qkv", 3 * width, width)
        yield from _linear(f"{name}attn.proj", width, width)
        yield from _linear(f"{name}mlp.linear_fc1", inner, width)
        yield from _linear(f"{name}mlp.linear_fc2", width, inner)
    mergers = [("merger.", width)]
    mergers += [(f"deepstack_merger_list.{tap}.", wide) for tap in range(len(shape.deepstack))]
    for name, normed in mergers:
        yield from _norm(f"{VISION}{name}norm", normed)
        yield from _linear(f"{VISION}{name}linear_fc1", wide, wide)
        yield from _linear(f"{VISION}{name}linear_fc2", shape.hidden, wide)


def _layer_tensors(shape: ModelShape, name: str) -> Tensors:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    has_bias = shape.has_attention_bias
    yield f"{name}input_layernorm.weight", (shape.hidden,)
    yield from _linear(f"{name}self_attn.q_proj", queries, shape.hidden, has_bias)
    yield from _linear(f"{name}self_attn.k_proj", keys, shape.hidden, has_bias)
    yield from _linear(f"{name}self_attn.v_proj", keys, shape.hidden, has_bias)
    yield from _linear(f"{name}self_attn.o_proj", shape.hidden, queries, has_bias)
    yield f"{name}self_attn.q_norm.weight", (shape.head_dim,)
    yield f"{name}self_attn.k_norm.weight", (shape.head_dim,)
    yield f"{name}post_attention_layernorm.weight", (shape.hidden,)
    yield from _linear(f"{name}mlp.gate_proj", shape.intermediate, shape.hidden, False)
    yield from _linear(f"{name}mlp.up_proj", shape.intermediate, shape.hidden, False)
    yield from _linear(f"{name}mlp.down_proj", shape.hidden, shape.intermediate, False)


def _linear(name: str, outputs: int, inputs: int, has_bias: bool = True) -> Tensors:
    yield f"{name}.weight", (outputs, inputs)
    if has_bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Tensors:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _check_shapes(weights: Weights, expected: dict[str, tuple[int, ...]]) -> None:
    for name, wanted in expected.items():
        weights.check_shape(name, wanted)


def _and_others(names: list[str]) -> str:
    return f" (and {len(names) - 1} others)" if len(names) > 1 else ""
