"""decoder.onnx: embeddings of the new tokens + the past's keys and values -> hidden states + new keys and values.

The cache is split: the past comes in as a fixed buffer with a mask, only the new rows go out, and the host
copies them behind the past. So there is no Scatter and no aliasing, and going back is a smaller length.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..runtime.infer.shape import ModelShape
from .onnx_graph import Floats, OnnxGraph, graph_to_file, linear, rms_norm, rotate
from .weights import Weights

PREFIX = "model.language_model."
_MASKED = -1e4
_MASK_BOUND = -5e3


def decoder_to_file(path: Path, weights: Weights, shape: ModelShape) -> None:
    """Write the decoder without its head.

    embeds [B, K, H], deepstack [B, D, K, H] (zeros at text), cos and sin [B, K, hd], mask [B, K, P+K] (0 or
    -1e4), past_kv [B, L, 2, Hkv, P, hd] -> hidden [B, K, H] after the final norm, new_kv [B, L, 2, Hkv, K, hd].
    """
    with graph_to_file(path, weight_bytes=weights.float32_bytes(f"{PREFIX}layers.")) as graph:
        hidden = graph.input("embeds", ["batch", "k", shape.hidden])
        inputs = _shared_inputs(graph, shape)
        written: list[str] = []
        for layer in range(shape.layers):
            hidden, key, value = _layer(graph, hidden, layer, weights, shape, inputs)
            written += [key, value]
            if layer < len(shape.deepstack):
                hidden = graph.node("Add", [hidden, inputs.deepstack[layer]], f"layers.{layer}.deepstack.added")
        final = weights.read(f"{PREFIX}norm.weight", (shape.hidden,))
        graph.output(rms_norm(graph, hidden, "norm", final, shape.rms_norm_eps), "hidden",
                     ["batch", "k", shape.hidden])
        joined = graph.node("Concat", written, "new_kv.joined", axis=1)  # [B, L * 2 * Hkv, K, hd]
        graph.output(
            graph.reshape(joined, "new_kv.rows", 0, shape.layers, 2, shape.kv_heads, -1, shape.head_dim), "new_kv",
            ["batch", shape.layers, 2, shape.kv_heads, "k", shape.head_dim],
        )


@dataclass(frozen=True)
class _Inputs:
    """Values that every layer uses, computed once."""

    cos: str  # [B, K, 1, hd]
    signed_sin: str  # [B, K, 1, hd]
    is_masked: str  # bool [B, 1, G * K, P + K], G query heads a key head
    past: list[str]  # 2 * L times [B, Hkv, P, hd]: keys and values in turn
    deepstack: list[str]  # D times [B, K, H]


def _shared_inputs(graph: OnnxGraph, shape: ModelShape) -> _Inputs:
    """Declare the inputs beside embeds and prepare what all layers share."""
    depth, head_dim, group = len(shape.deepstack), shape.head_dim, shape.heads // shape.kv_heads
    stacked = graph.input("deepstack", ["batch", depth, "k", shape.hidden])
    cos = graph.input("cos", ["batch", "k", head_dim])
    sin = graph.input("sin", ["batch", "k", head_dim])
    past = graph.input("past_kv", ["batch", shape.layers, 2, shape.kv_heads, "p", head_dim])
    mask = graph.input("mask", ["batch", "k", "p_plus_k"])
    signs = np.repeat(np.array([-1, 1], np.float32), head_dim // 2)
    signed = graph.node("Mul", [sin, graph.initialiser("rope.signs", signs)], "rope.signed_sin")
    features = [graph.node("Gather", [stacked, graph.initialiser(f"deepstack.index.{tap}", np.array(tap, np.int64))],
                           f"deepstack.{tap}", axis=1) for tap in range(depth)]
    hidden_keys = graph.node("Less", [mask, graph.scalar(_MASK_BOUND)], "mask.is_masked")
    grouped = graph.node("Concat", [hidden_keys] * group, "mask.grouped", axis=1) if group > 1 else hidden_keys
    flat = graph.reshape(past, "past.flat", 0, shape.layers * 2 * shape.kv_heads, -1, head_dim)
    return _Inputs(
        cos=graph.node("Unsqueeze", [cos, graph.integers(2)], "rope.cos"),
        signed_sin=graph.node("Unsqueeze", [signed, graph.integers(2)], "rope.sin"),
        is_masked=graph.node("Unsqueeze", [grouped, graph.integers(1)], "mask.heads"),
        past=graph.nodes("Split", [flat], "past.parts", shape.layers * 2, axis=1),
        deepstack=features,
    )


def _layer(graph: OnnxGraph, hidden: str, layer: int, weights: Weights, shape: ModelShape,
           inputs: _Inputs) -> tuple[str, str, str]:
    """One decoder layer; returns hidden [B, K, H] and the new key and value, each [B, Hkv, K, hd]."""
    name, source = f"layers.{layer}", f"{PREFIX}layers.{layer}."

    def norm(value: str, which: str) -> str:
        weight = weights.read(f"{source}{which}.weight", (shape.hidden,))
        return rms_norm(graph, value, f"{name}.{which}", weight, shape.rms_norm_eps)

    def projected(value: str, which: str, outputs: int, inputs_count: int) -> str:
        has_bias = shape.has_attention_bias and which.startswith("self_attn")
        bias = weights.read(f"{source}{which}.bias", (outputs,)) if has_bias else None
        weight = weights.read(f"{source}{which}.weight", (outputs, inputs_count))
        return linear(graph, value, f"{name}.{which}", weight, bias)

    wide = shape.heads * shape.head_dim
    normed = norm(hidden, "input_layernorm")
    query = projected(normed, "self_attn.q_proj", wide, shape.hidden)
    key = projected(normed, "self_attn.k_proj", shape.kv_heads * shape.head_dim, shape.hidden)
    value = projected(normed, "self_attn.v_proj", shape.kv_heads * shape.head_dim, shape.hidden)
    # The softmax scale rides on the query norm's weight, which costs nothing.
    query_norm = weights.read(f"{source}self_attn.q_norm.weight", (shape.head_dim,)) * np.float32(shape.head_dim**-0.5)
    key_norm = weights.read(f"{source}self_attn.k_norm.weight", (shape.head_dim,))
    query = _rotated(graph, query, f"{name}.self_attn.q", query_norm, shape, inputs)
    key = _rotated(graph, key, f"{name}.self_attn.k", key_norm, shape, inputs)
    key = graph.node("Transpose", [key], f"{name}.self_attn.k.rows", perm=[0, 2, 1, 3])
    value = graph.node("Transpose", [graph.reshape(value, f"{name}.self_attn.v.heads", 0, 0, shape.kv_heads,
                                                   shape.head_dim)], f"{name}.self_attn.v.rows", perm=[0, 2, 1, 3])
    mixed = _attention(graph, f"{name}.self_attn", query, key, value, layer, shape, inputs)
    hidden = graph.node("Add", [hidden, projected(mixed, "self_attn.o_proj", shape.hidden, wide)],
                        f"{name}.self_attn.residual")
    normed = norm(hidden, "post_attention_layernorm")
    gate = projected(normed, "mlp.gate_proj", shape.intermediate, shape.hidden)
    active = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{name}.mlp.sigmoid")], f"{name}.mlp.silu")
    product = graph.node("Mul", [active, projected(normed, "mlp.up_proj", shape.intermediate, shape.hidden)],
                         f"{name}.mlp.product")
    down = projected(product, "mlp.down_proj", shape.hidden, shape.intermediate)
    return graph.node("Add", [hidden, down], f"{name}.mlp.residual"), key, value


def _rotated(graph: OnnxGraph, flat: str, name: str, weight: Floats, shape: ModelShape, inputs: _Inputs) -> str:
    """Heads [B, K, heads, hd] from [B, K, heads * hd], normalised per head, then turned."""
    heads = graph.reshape(flat, f"{name}.heads", 0, 0, -1, shape.head_dim)
    normed = rms_norm(graph, heads, f"{name}_norm", weight, shape.rms_norm_eps)
    return rotate(graph, normed, name, inputs.cos, inputs.signed_sin)


def _attention(graph: OnnxGraph, name: str, query: str, key: str, value: str, layer: int, shape: ModelShape,
               inputs: _Inputs) -> str:
    """Grouped-query attention over (past | new); query [B, K, heads, hd] -> [B, K, heads * hd].

    The query heads of one key head are stacked as rows, so keys and values are never repeated.
    """
    heads, kv_heads, head_dim = shape.heads, shape.kv_heads, shape.head_dim
    group = heads // kv_heads
    grouped = graph.reshape(query, f"{name}.grouped", 0, 0, kv_heads, group, head_dim)
    turned = graph.node("Transpose", [grouped], f"{name}.turned", perm=[0, 2, 3, 1, 4])
    rows = graph.reshape(turned, f"{name}.rows", 0, kv_heads, -1, head_dim)  # [B, Hkv, G * K, hd]
    keys = graph.node("Concat", [inputs.past[2 * layer], key], f"{name}.keys", axis=2)
    values = graph.node("Concat", [inputs.past[2 * layer + 1], value], f"{name}.values", axis=2)
    keys = graph.node("Transpose", [keys], f"{name}.keys.turned", perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", [rows, keys], f"{name}.scores")
    # Replaced, not added to: a stale slot may hold a key so large that -1e4 would not outweigh its score.
    visible = graph.node("Where", [inputs.is_masked, graph.scalar(_MASKED), scores], f"{name}.visible")
    mixed = graph.node("MatMul", [graph.node("Softmax", [visible], f"{name}.softmax", axis=-1), values],
                       f"{name}.mixed")
    heads_apart = graph.reshape(mixed, f"{name}.heads", 0, kv_heads, group, -1, head_dim)
    joined = graph.node("Transpose", [heads_apart], f"{name}.joined", perm=[0, 3, 1, 2, 4])
    return graph.reshape(joined, f"{name}.flat", 0, 0, heads * head_dim)
