"""vision.onnx: patches of pictures on the batch axis -> image tokens and DeepStack features.

One fixed grid a graph. Qwen3-VL's encoder attends within a picture only and has no windows, so pictures of
one grid stack on the batch axis; the position table and the axial rope of that grid are constants.
attributes.onnx, the dense head, sits on the encoder: one vote an image token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...runtime.errors import CheckpointError
from ...runtime.infer.shape import ModelShape
from .checkpoint import Weights
from .onnx_graph import (
    Floats,
    LayerProgress,
    OnnxGraph,
    gelu_exact,
    gelu_tanh,
    graph_to_file,
    layer_norm,
    linear,
    rotate,
    silent,
)

PREFIX = "model.visual."
_EPSILON = 1e-6  # fixed in transformers' Qwen3VLVisionBlock and Qwen3VLVisionPatchMerger
_DENSE_EPSILON = 1e-6
_BOX_SIDES = 4


def vision_to_file(
    path: Path, weights: Weights, shape: ModelShape, progress: LayerProgress = silent
) -> None:
    """Write the encoder: patches [B, N, features] -> image_tokens [B, T, H], deepstack [B, D, T, H].

    `progress` is called with ("vision", blocks written, blocks).
    """
    with graph_to_file(path, weight_bytes=weights.float32_bytes(PREFIX)) as graph:
        patches = graph.input("patches", ["batch", shape.patches, shape.patch_features])
        encoder = _Encoder(graph, weights, shape, *_rope_constants(graph, shape))
        hidden = _embedded(graph, patches, weights, shape)
        features: dict[int, str] = {}
        for block in range(shape.vision_depth):
            hidden = _block(encoder, hidden, block)
            if block in shape.deepstack:
                features[block] = _merger(encoder, hidden, shape.deepstack.index(block))
            progress("vision", block + 1, shape.vision_depth)
        # transformers hands features on in block order, whatever the order of the list.
        stacked = [
            graph.node("Unsqueeze", [features[block], graph.integers(1)], f"deepstack.stacked.{block}")
            for block in sorted(features)
        ]
        graph.output(
            _merger(encoder, hidden, None),
            "image_tokens",
            ["batch", shape.tokens, shape.hidden],
        )
        graph.output(
            graph.node("Concat", stacked, "deepstack.joined", axis=1),
            "deepstack",
            ["batch", len(stacked), shape.tokens, shape.hidden],
        )


def patch_places(grid_hw: tuple[int, int], merge: int) -> npt.NDArray[np.int64]:
    """Row and column [N, 2] of each patch, in merge-block order (block row, block column, row, column)."""
    rows, columns = grid_hw
    grid = np.indices((rows, columns), dtype=np.int64).reshape(
        2, rows // merge, merge, columns // merge, merge
    )
    return grid.transpose(1, 3, 2, 4, 0).reshape(-1, 2)


def interpolated_positions(table: Floats, grid_hw: tuple[int, int], merge: int) -> Floats:
    """The square position table [side * side, width] -> [N, width], bilinear with corners aligned."""
    side = round(table.shape[0] ** 0.5)
    places = patch_places(grid_hw, merge)
    result = np.zeros((places.shape[0], table.shape[1]), np.float32)
    taps = []
    for axis, count in enumerate(grid_hw):
        source = places[:, axis].astype(np.float32) * np.float32(side - 1) / np.float32(max(count - 1, 1))
        low = np.floor(source)
        taps.append(
            [
                (low.astype(np.int64), 1 - (source - low)),
                (np.minimum(low.astype(np.int64) + 1, side - 1), source - low),
            ]
        )
    for row, row_weight in taps[0]:
        for column, column_weight in taps[1]:
            result += table[row * side + column] * (row_weight * column_weight)[:, None]
    return result


def dense_types_from_weights(dense: Weights) -> tuple[str, ...]:
    """Defect types of a dense_head.safetensors, from its metadata key `types` (a JSON list of names)."""
    try:
        types = json.loads(dense.metadata["types"])
    except (KeyError, ValueError):
        raise CheckpointError(
            "dense_head.safetensors has no metadata key types with a JSON list of names"
        ) from None
    if not isinstance(types, list) or not types or not all(isinstance(name, str) for name in types):
        raise CheckpointError(f"dense_head.safetensors: types must be a list of names; found {types!r}")
    return tuple(types)


def dense_shapes(dense: Weights, shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the dense head, for the types and the width that it has."""
    features = (1 + len(shape.deepstack)) * shape.hidden
    inner = dense.shape("fc1.weight")[0]
    outputs = 1 + len(dense_types_from_weights(dense)) + _BOX_SIDES
    return {
        "norm.weight": (features,),
        "norm.bias": (features,),
        "fc1.weight": (inner, features),
        "fc1.bias": (inner,),
        "fc2.weight": (outputs, inner),
        "fc2.bias": (outputs,),
    }


def attributes_to_file(path: Path, dense: Weights, shape: ModelShape) -> None:
    """Write the dense head: image_tokens [B, T, H], deepstack [B, D, T, H] -> one vote a token.

    presence [B, T] and type [B, T, C] are logits; box [B, T, 4] holds the distances left, top, right, bottom
    from the token's centre, in token sides.
    """
    types = len(dense_types_from_weights(dense))
    depth = len(shape.deepstack)
    shapes = dense_shapes(dense, shape)
    with graph_to_file(path, weight_bytes=dense.float32_bytes("")) as graph:
        tokens = graph.input("image_tokens", ["batch", shape.tokens, shape.hidden])
        stacked = graph.input("deepstack", ["batch", depth, shape.tokens, shape.hidden])
        turned = graph.node("Transpose", [stacked], "deepstack.turned", perm=[0, 2, 1, 3])
        flat = graph.reshape(turned, "deepstack.flat", 0, 0, depth * shape.hidden)
        joined = graph.node("Concat", [tokens, flat], "features", axis=2)
        normed = layer_norm(
            graph,
            joined,
            "dense.norm",
            dense.read("norm.weight", shapes["norm.weight"]),
            dense.read("norm.bias", shapes["norm.bias"]),
            _DENSE_EPSILON,
        )
        hidden = linear(
            graph,
            normed,
            "dense.fc1",
            dense.read("fc1.weight", shapes["fc1.weight"]),
            dense.read("fc1.bias", shapes["fc1.bias"]),
        )
        result = linear(
            graph,
            gelu_tanh(graph, hidden, "dense.act"),
            "dense.fc2",
            dense.read("fc2.weight", shapes["fc2.weight"]),
            dense.read("fc2.bias", shapes["fc2.bias"]),
        )
        sizes = graph.integers(1, types, _BOX_SIDES)
        presence, kind, box = graph.nodes("Split", [result, sizes], "dense.parts", 3, axis=2)
        graph.output(
            graph.node("Squeeze", [presence, graph.integers(2)], "dense.presence"),
            "presence",
            ["batch", shape.tokens],
        )
        graph.output(kind, "type", ["batch", shape.tokens, types])
        graph.output(box, "box", ["batch", shape.tokens, _BOX_SIDES])


def _embedded(graph: OnnxGraph, patches: str, weights: Weights, shape: ModelShape) -> str:
    """Patch embedding as one linear (a Conv3d whose stride is its kernel) plus this grid's positions."""
    width = shape.vision_hidden
    kernel = weights.read(
        f"{PREFIX}patch_embed.proj.weight",
        (width, shape.channels, shape.temporal_patch, shape.patch_px, shape.patch_px),
    )
    bias = weights.read(f"{PREFIX}patch_embed.proj.bias", (width,))
    embedded = linear(graph, patches, "patch_embed", kernel.reshape(width, -1), bias)
    table = weights.read(f"{PREFIX}pos_embed.weight", (shape.position_side**2, width))
    positions = graph.initialiser("positions", interpolated_positions(table, shape.grid_hw, shape.merge))
    return graph.node("Add", [embedded, positions], "positions.added")


def _rope_constants(graph: OnnxGraph, shape: ModelShape) -> tuple[str, str]:
    """cos and signed sin [N, head_dim] of the axial rope: each half head is (row pairs, column pairs)."""
    quarter = shape.vision_hidden // shape.vision_heads // 4
    frequencies = np.float32(1.0) / np.power(
        np.float32(shape.vision_rope_theta), np.arange(quarter, dtype=np.float32) / np.float32(quarter)
    )
    places = patch_places(shape.grid_hw, shape.merge).astype(np.float32)
    half = (places[:, :, None] * frequencies).reshape(places.shape[0], 2 * quarter)
    cos = np.concatenate([np.cos(half), np.cos(half)], axis=1)
    signed_sin = np.concatenate([-np.sin(half), np.sin(half)], axis=1)
    return graph.initialiser("rope.cos", cos), graph.initialiser("rope.signed_sin", signed_sin)


@dataclass(frozen=True)
class _Encoder:
    """The encoder being written; `name` is ours, `source` the checkpoint's."""

    graph: OnnxGraph
    weights: Weights
    shape: ModelShape
    cos: str  # [N, head_dim]
    signed_sin: str  # [N, head_dim]

    def linear(self, value: str, name: str, source: str, outputs: int, inputs: int) -> str:
        weight = self.weights.read(f"{PREFIX}{source}.weight", (outputs, inputs))
        return linear(
            self.graph, value, name, weight, self.weights.read(f"{PREFIX}{source}.bias", (outputs,))
        )

    def norm(self, value: str, name: str, source: str, width: int) -> str:
        weight, bias = (
            self.weights.read(f"{PREFIX}{source}.{part}", (width,)) for part in ("weight", "bias")
        )
        return layer_norm(self.graph, value, name, weight, bias, _EPSILON)


def _block(encoder: _Encoder, hidden: str, index: int) -> str:
    """One pre-norm encoder block, [B, N, width] -> [B, N, width]."""
    graph, name, width = encoder.graph, f"blocks.{index}", encoder.shape.vision_hidden
    inner = encoder.shape.vision_intermediate
    normed = encoder.norm(hidden, f"{name}.norm1", f"{name}.norm1", width)
    qkv = encoder.linear(normed, f"{name}.attn.qkv", f"{name}.attn.qkv", 3 * width, width)
    mixed = _attention(encoder, qkv, f"{name}.attn")
    projected = encoder.linear(mixed, f"{name}.attn.proj", f"{name}.attn.proj", width, width)
    hidden = graph.node("Add", [hidden, projected], f"{name}.attn.residual")
    normed = encoder.norm(hidden, f"{name}.norm2", f"{name}.norm2", width)
    wide = encoder.linear(normed, f"{name}.mlp.fc1", f"{name}.mlp.linear_fc1", inner, width)
    active = gelu_tanh(graph, wide, f"{name}.mlp.act")
    narrow = encoder.linear(active, f"{name}.mlp.fc2", f"{name}.mlp.linear_fc2", width, inner)
    return graph.node("Add", [hidden, narrow], f"{name}.mlp.residual")


def _attention(encoder: _Encoder, qkv: str, name: str) -> str:
    """Full attention within a picture: [B, N, 3 * width] -> [B, N, width]."""
    graph, shape = encoder.graph, encoder.shape
    heads = shape.vision_heads
    head_dim = shape.vision_hidden // heads
    split = graph.reshape(qkv, f"{name}.heads", 0, 0, 3 * heads, head_dim)
    rows = graph.node("Transpose", [split], f"{name}.rows", perm=[0, 2, 1, 3])  # [B, 3 heads, N, hd]
    query, key, value = graph.nodes("Split", [rows], f"{name}.parts", 3, axis=1)
    query = rotate(graph, query, f"{name}.query", encoder.cos, encoder.signed_sin)
    key = rotate(graph, key, f"{name}.key", encoder.cos, encoder.signed_sin)
    turned = graph.node("Transpose", [key], f"{name}.key.turned", perm=[0, 1, 3, 2])
    scores = graph.node("MatMul", [query, turned], f"{name}.scores")
    scaled = graph.node("Mul", [scores, graph.scalar(head_dim**-0.5)], f"{name}.scaled")
    weights = graph.node("Softmax", [scaled], f"{name}.softmax", axis=-1)
    mixed = graph.node("MatMul", [weights, value], f"{name}.mixed")
    joined = graph.node("Transpose", [mixed], f"{name}.joined", perm=[0, 2, 1, 3])
    return graph.reshape(joined, f"{name}.flat", 0, 0, shape.vision_hidden)


def _merger(encoder: _Encoder, hidden: str, tap: int | None) -> str:
    """Patches to tokens, [B, N, width] -> [B, T, H]; a DeepStack merger normalises after the shuffle."""
    graph, shape = encoder.graph, encoder.shape
    name = "merger" if tap is None else f"deepstack.{tap}"
    source = "merger" if tap is None else f"deepstack_merger_list.{tap}"
    wide = shape.vision_hidden * shape.merge**2
    if tap is None:
        hidden = encoder.norm(hidden, f"{name}.norm", f"{source}.norm", shape.vision_hidden)
    tokens = graph.reshape(hidden, f"{name}.merged", 0, shape.tokens, wide)
    if tap is not None:
        tokens = encoder.norm(tokens, f"{name}.norm", f"{source}.norm", wide)
    inner = encoder.linear(tokens, f"{name}.fc1", f"{source}.linear_fc1", wide, wide)
    active = gelu_exact(graph, inner, f"{name}.act")
    return encoder.linear(active, f"{name}.fc2", f"{source}.linear_fc2", shape.hidden, wide)
