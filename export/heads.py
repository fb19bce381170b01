"""The heads, each a graph of its own: the dense head on image tokens, the word head on decoder states."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..runtime.errors import CheckpointError
from ..runtime.infer.shape import ModelShape
from .decoder import PREFIX
from .onnx_graph import gelu_tanh, graph_to_file, layer_norm, linear
from .weights import Weights

_DENSE_EPSILON = 1e-6
_BOX_SIDES = 4


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


def attributes_to_file(path: Path, dense: Weights, shape: ModelShape) -> None:
    """Write the dense head: image_tokens [B, T, H], deepstack [B, D, T, H] -> one vote a token.

    presence [B, T] and type [B, T, C] are logits; box [B, T, 4] holds the distances left, top, right, bottom
    from the token's centre, in token sides.
    """
    types = len(dense_types_from_weights(dense))
    depth = len(shape.deepstack)
    features = (1 + depth) * shape.hidden
    inner = dense.shape("fc1.weight")[0]
    outputs = 1 + types + _BOX_SIDES
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
            dense.read("norm.weight", (features,)),
            dense.read("norm.bias", (features,)),
            _DENSE_EPSILON,
        )
        hidden = linear(
            graph,
            normed,
            "dense.fc1",
            dense.read("fc1.weight", (inner, features)),
            dense.read("fc1.bias", (inner,)),
        )
        result = linear(
            graph,
            gelu_tanh(graph, hidden, "dense.act"),
            "dense.fc2",
            dense.read("fc2.weight", (outputs, inner)),
            dense.read("fc2.bias", (outputs,)),
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
