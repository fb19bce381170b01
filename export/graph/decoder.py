"""decoder.onnx: new tokens' embeddings + the past's keys and values -> hidden states + new keys and values.

The cache is split: the past comes in as a fixed buffer with a mask, only the new rows go out, and the host
copies them behind the past. So there is no Scatter and no aliasing, and going back is a smaller length.
head_schema.onnx, the word head on its hidden states, is a graph of its own, with the kept token ids only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.errors import CheckpointError
from ...runtime.infer.shape import ModelShape
from .checkpoint import Weights
from .onnx_graph import Floats, LayerProgress, OnnxGraph, graph_to_file, linear, rms_norm, rotate, silent

PREFIX = "model.language_model."
_MASKED = -1e4
_MASK_BOUND = -5e3
_TO_THE_END = 2**31 - 1  # TensorRT counts in int32


def decoder_to_file(
    path: Path, weights: Weights, shape: ModelShape, progress: LayerProgress = silent
) -> None:
    """Write the decoder without its head.

    In: embeds [B, K, H], deepstack [B, D, K, H] (zeros at text), cos and sin [B, K, hd],
    past_kv [B, L, 2, Hkv, P, hd], mask [B, K, P+K] (0 or -1e4).
    Out: hidden [B, K, H] after the final norm, new_kv [B, L, 2, Hkv, K, hd] with the keys after rope.
    `progress` is called with ("decoder", layers written, layers).
    """
    with graph_to_file(path, weight_bytes=weights.float32_bytes(f"{PREFIX}layers.")) as graph:
        hidden = graph.input("embeds", ["batch", "k", shape.hidden])
        inputs = _shared_inputs(graph, shape)
        written: list[str] = []
        for index in range(shape.layers):
            layer = _Layer(graph, weights, shape, inputs, index)
            hidden, key, value = _self_attention(layer, hidden)
            hidden = _mlp(layer, hidden)
            written += [key, value]
            if index < len(shape.deepstack):
                hidden = graph.node("Add", [hidden, inputs.deepstack[index]], f"{layer.name}.deepstack")
            progress("decoder", index + 1, shape.layers)
        final = weights.read(f"{PREFIX}norm.weight", (shape.hidden,))
        hidden = rms_norm(graph, hidden, "norm", final, shape.rms_norm_eps)
        graph.output(hidden, "hidden", ["batch", "k", shape.hidden])
        joined = graph.node("Concat", written, "new_kv.joined", axis=1)  # [B, L * 2 * Hkv, K, hd]
        graph.output(
            graph.reshape(joined, "new_kv.rows", 0, shape.layers, 2, shape.kv_heads, -1, shape.head_dim),
            "new_kv",
            ["batch", shape.layers, 2, shape.kv_heads, "k", shape.head_dim],
        )


def word_head_to_file(
    path: Path, weights: Weights, shape: ModelShape, kept_ids: npt.NDArray[np.int64] | None = None
) -> None:
    """Write hidden [B, H] -> logits [B, V_kept]: column i is token kept_ids[i] (all tokens when None)."""
    source = f"{PREFIX}embed_tokens.weight" if shape.is_head_tied else "lm_head.weight"
    ids = np.arange(shape.vocab) if kept_ids is None else np.asarray(kept_ids, np.int64)
    if ids.ndim != 1 or ids.size == 0 or ids.min() < 0 or ids.max() >= shape.vocab:
        raise CheckpointError(
            f"the kept token ids must lie within 0..{shape.vocab - 1}; found {ids.size} ids "
            f"up to {ids.max(initial=-1)}"
        )
    with graph_to_file(path, weight_bytes=4 * ids.size * shape.hidden) as graph:
        hidden = graph.input("hidden", ["batch", shape.hidden])
        rows = weights.rows(source, (shape.vocab, shape.hidden), ids)
        graph.output(linear(graph, hidden, "lm_head", rows), "logits", ["batch", ids.size])


@dataclass(frozen=True)
class _Inputs:
    """Values that every layer uses, computed once."""

    cos: str  # [B, K, 1, hd]
    signed_sin: str  # [B, K, 1, hd]
    is_masked: str  # bool [B, 1, G * K, P + K], G query heads a key head
    past: list[str]  # 2 * L times [B, Hkv, P, hd]: keys and values in turn
    deepstack: list[str]  # D times [B, K, H]
    past_bounds: tuple[str, str]  # first column of the past and the one behind its last, along P + K
    new_bounds: tuple[str, str]


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
    taps = [graph.initialiser(f"deepstack.index.{tap}", np.array(tap)) for tap in range(depth)]
    is_masked = graph.node("Less", [mask, graph.scalar(_MASK_BOUND)], "mask.is_masked")
    if group > 1:
        is_masked = graph.node("Concat", [is_masked] * group, "mask.grouped", axis=1)
    flat = graph.reshape(past, "past.flat", 0, shape.layers * 2 * shape.kv_heads, -1, head_dim)
    # Gather, not Shape's start and end: parsers before TensorRT 10.6 may ignore those two (9.2's does).
    extent = graph.node("Shape", [past], "past.extent")
    slots = graph.node("Gather", [extent, graph.integers(4)], "past.slots", axis=0)
    return _Inputs(
        cos=graph.node("Unsqueeze", [cos, graph.integers(2)], "rope.cos"),
        signed_sin=graph.node("Unsqueeze", [signed, graph.integers(2)], "rope.sin"),
        is_masked=graph.node("Unsqueeze", [is_masked, graph.integers(1)], "mask.heads"),
        past=graph.nodes("Split", [flat], "past.parts", shape.layers * 2, axis=1),
        deepstack=[graph.node("Gather", [stacked, tap], tap + ".taken", axis=1) for tap in taps],
        past_bounds=(graph.integers(0), slots),
        new_bounds=(slots, graph.integers(_TO_THE_END)),
    )


@dataclass(frozen=True)
class _Layer:
    """One decoder layer being written: where its tensors come from and what its nodes are called."""

    graph: OnnxGraph
    weights: Weights
    shape: ModelShape
    inputs: _Inputs
    index: int

    @property
    def name(self) -> str:
        return f"layers.{self.index}"

    def vector(self, which: str, count: int) -> Floats:
        return self.weights.read(f"{PREFIX}{self.name}.{which}.weight", (count,))

    def norm(self, value: str, which: str) -> str:
        weight = self.vector(which, self.shape.hidden)
        return rms_norm(self.graph, value, f"{self.name}.{which}", weight, self.shape.rms_norm_eps)

    def linear(self, value: str, which: str, outputs: int, inputs: int, *, has_bias: bool = False) -> str:
        source = f"{PREFIX}{self.name}.{which}"
        bias = self.weights.read(f"{source}.bias", (outputs,)) if has_bias else None
        weight = self.weights.read(f"{source}.weight", (outputs, inputs))
        return linear(self.graph, value, f"{self.name}.{which}", weight, bias)

    def heads(self, value: str, which: str, count: int) -> str:
        """Project `value` [B, K, H] to [B, K, count, hd]."""
        shape = self.shape
        flat = self.linear(
            value,
            f"self_attn.{which}_proj",
            count * shape.head_dim,
            shape.hidden,
            has_bias=shape.has_attention_bias,
        )
        return self.graph.reshape(flat, f"{self.name}.self_attn.{which}.heads", 0, 0, count, shape.head_dim)

    def turned(self, heads: str, which: str, weight: Floats) -> str:
        """Normalise each head, then turn it to its position."""
        name = f"{self.name}.self_attn.{which}"
        normed = rms_norm(self.graph, heads, f"{name}_norm", weight, self.shape.rms_norm_eps)
        return rotate(self.graph, normed, name, self.inputs.cos, self.inputs.signed_sin)


def _self_attention(layer: _Layer, hidden: str) -> tuple[str, str, str]:
    """Residual attention [B, K, H]; also the new key and value, each [B, Hkv, K, hd]."""
    graph, shape, name = layer.graph, layer.shape, f"{layer.name}.self_attn"
    normed = layer.norm(hidden, "input_layernorm")
    # The softmax scale rides on the query norm's weight, which costs nothing.
    query_norm = layer.vector("self_attn.q_norm", shape.head_dim) * np.float32(shape.head_dim**-0.5)
    query = layer.turned(layer.heads(normed, "q", shape.heads), "q", query_norm)
    key_norm = layer.vector("self_attn.k_norm", shape.head_dim)
    key = layer.turned(layer.heads(normed, "k", shape.kv_heads), "k", key_norm)
    key = graph.node("Transpose", [key], f"{name}.k.rows", perm=[0, 2, 1, 3])
    value = layer.heads(normed, "v", shape.kv_heads)
    value = graph.node("Transpose", [value], f"{name}.v.rows", perm=[0, 2, 1, 3])
    scores = _scores(layer, query, key)
    # Replaced, not added to: a stale slot may hold a key so large that -1e4 would not outweigh its score.
    masked = [layer.inputs.is_masked, graph.scalar(_MASKED), scores]
    weights = graph.node(
        "Softmax", [graph.node("Where", masked, f"{name}.visible")], f"{name}.softmax", axis=-1
    )
    mixed = _mixed(layer, weights, value)
    output = layer.linear(
        mixed,
        "self_attn.o_proj",
        shape.hidden,
        shape.heads * shape.head_dim,
        has_bias=shape.has_attention_bias,
    )
    return graph.node("Add", [hidden, output], f"{name}.residual"), key, value


def _scores(layer: _Layer, query: str, key: str) -> str:
    """query [B, K, heads, hd] against past and new keys -> [B, Hkv, G * K, P + K].

    The query heads of one key head stand as rows, so keys are never repeated. The past is read where it lies:
    joining scores is cheap, joining keys would copy the whole past.
    """
    graph, shape, name = layer.graph, layer.shape, f"{layer.name}.self_attn"
    group = shape.heads // shape.kv_heads
    grouped = graph.reshape(query, f"{name}.grouped", 0, 0, shape.kv_heads, group, shape.head_dim)
    apart = graph.node("Transpose", [grouped], f"{name}.turned", perm=[0, 2, 3, 1, 4])
    rows = graph.reshape(apart, f"{name}.rows", 0, shape.kv_heads, -1, shape.head_dim)
    parts = []
    for when, keys in (("past", layer.inputs.past[2 * layer.index]), ("new", key)):
        columns = graph.node("Transpose", [keys], f"{name}.{when}.turned", perm=[0, 1, 3, 2])
        parts.append(graph.node("MatMul", [rows, columns], f"{name}.{when}.scores"))
    return graph.node("Concat", parts, f"{name}.scores", axis=3)


def _mixed(layer: _Layer, weights: str, value: str) -> str:
    """Weights [B, Hkv, G * K, P + K] over past and new values -> [B, K, heads * hd]."""
    graph, shape, inputs, name = layer.graph, layer.shape, layer.inputs, f"{layer.name}.self_attn"
    parts = []
    for when, bounds, values in (
        ("past", inputs.past_bounds, inputs.past[2 * layer.index + 1]),
        ("new", inputs.new_bounds, value),
    ):
        share = graph.node("Slice", [weights, *bounds, graph.integers(3)], f"{name}.{when}.weights")
        parts.append(graph.node("MatMul", [share, values], f"{name}.{when}.mixed"))
    total = graph.node("Add", parts, f"{name}.mixed")
    group = shape.heads // shape.kv_heads
    apart = graph.reshape(total, f"{name}.heads", 0, shape.kv_heads, group, -1, shape.head_dim)
    joined = graph.node("Transpose", [apart], f"{name}.joined", perm=[0, 3, 1, 2, 4])
    return graph.reshape(joined, f"{name}.flat", 0, 0, shape.heads * shape.head_dim)


def _mlp(layer: _Layer, hidden: str) -> str:
    """Residual SiLU-gated MLP."""
    graph, shape, name = layer.graph, layer.shape, f"{layer.name}.mlp"
    normed = layer.norm(hidden, "post_attention_layernorm")
    gate = layer.linear(normed, "mlp.gate_proj", shape.intermediate, shape.hidden)
    active = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{name}.sigmoid")], f"{name}.silu")
    up = layer.linear(normed, "mlp.up_proj", shape.intermediate, shape.hidden)
    product = graph.node("Mul", [active, up], f"{name}.product")
    down = layer.linear(product, "mlp.down_proj", shape.hidden, shape.intermediate)
    return graph.node("Add", [hidden, down], f"{name}.residual")
