"""The shapes that TensorRT engines are built for, as data: `tensorrt.json` in the bundle.

    {"schema": "orinspect.tensorrt/1.0", "components": {"decoder": {
        "parts": {"1": ["decoder.tensorrt.onnx"], "2": [...]},     graph files, in the order they run
        "layers": {"1": [28], "2": [14, 14]},                       decoder only
        "least_k": 1,                                               decoder only
        "profiles": [{"name": "prefill", "inputs": {"embeds": {"min": [...], "opt": [...], "max": [...]}}}],
        "int8_linears": [...], "float_linears": [...]}}}            MatMul node names

The axis of past_kv that counts layers is the word "layers": a part puts its own number there, and leaves out
the inputs that its graph does not have. The profiles of a component cover every shape that the runtime makes,
without gaps, so a call takes the first one that holds it. A linear of `int8_linears` must become an Int8 GEMM
in each of them; `export/tensorrt/trial.py` proves it for tensorrt-rtx.

No profile fixes the batch. tensorrt-rtx 1.7 lays the weights of a shape that is fixed altogether (batch 1,
k 1) out in its own way and then stores them twice: two decoder layers of a 2B took 105 MB with k 1 at batch
1..16, 209 MB with k 1 at batch 1 beside another profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import onnx

from ...runtime.infer.bundle import CompiledRecipe
from ...runtime.infer.decode import rows_a_call
from ...runtime.infer.engines.past import bucket_of
from ...runtime.infer.pictures.views import pictures_a_call
from ...runtime.infer.shape import ModelShape

SCHEMA = "orinspect.tensorrt/1.0"
FILE_NAME = "tensorrt.json"
LAYERS = "layers"
LEAST_K = 1
"""Fewest tokens a row at which every INT8 linear is an Int8 GEMM; a decoder pass is padded up to it."""

DECODE_K = (1, 8, 16)
_WEIGHT_SUFFIX = ".weight"
_LEAST_PIECE = 256  # past slots; profiles of a shorter past would differ in nothing

Profile: TypeAlias = dict[str, Any]
_Dimension: TypeAlias = "int | str"
_Shapes: TypeAlias = "dict[str, list[_Dimension]]"


@dataclass(frozen=True)
class RecipeSizes:
    """What a recipe asks of the decoder, in tokens.

    prefix: behind every row from the start; first: fed in a row's first pass; run: most that a later pass
    feeds; longest: the longest past.
    """

    prefix: int
    first: int
    run: int
    longest: int


def sizes_from_recipe(compiled: CompiledRecipe, shape: ModelShape) -> RecipeSizes:
    """The sizes of one compiled recipe on one grid."""
    guide = compiled.guide
    forced, _ = guide.forced_run(guide.start)
    between = sum(len(ids) for ids in compiled.between_ids)
    text = between + len(compiled.suffix_ids) + len(forced)
    first = compiled.recipe.pictures * shape.tokens + text
    targets = {state for edges in guide.states if len(edges) > 1 for state in edges.values()}
    run = 1 + max((len(guide.forced_run(state)[0]) for state in targets), default=0)
    prefix = len(compiled.prefix_ids)
    return RecipeSizes(prefix, first, run, prefix + first + compiled.recipe.token_budget)


def part_files(component: str, parts: int) -> list[str]:
    """Graph files of a component cut into `parts`, in the order they run."""
    if parts == 1:
        return [f"{component}.tensorrt.onnx"]
    return [f"{component}.tensorrt.{part}of{parts}.onnx" for part in range(1, parts + 1)]


def part_layers(layers: int, parts: int) -> list[int]:
    """Layers of each part: as equal as they can be, the larger ones first."""
    return [layers // parts + (part < layers % parts) for part in range(parts)]


def linears_by_type(model: onnx.ModelProto) -> tuple[list[str], list[str]]:
    """Names of the linears of a TensorRT graph in graph order: (INT8, kept float).

    A linear is a MatMul `<name>` whose weight is the initialiser `<name>.weight`, read directly, through a
    DequantizeLinear or through a Cast.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    int8: list[str] = []
    kept: list[str] = []
    for node in model.graph.node:
        weight = types.get(node.name + _WEIGHT_SUFFIX) if node.op_type == "MatMul" else None
        if weight is not None:
            (int8 if weight == onnx.TensorProto.INT8 else kept).append(node.name)
    return int8, kept


def profiles_for(
    shape: ModelShape,
    recipes: Sequence[CompiledRecipe],
    graphs: Mapping[str, onnx.ModelProto],
    *,
    parts: Sequence[int] = (1,),
) -> dict[str, Any]:
    """`tensorrt.json` for the components of `graphs`: vision, attributes, decoder, head_schema.<recipe>.

    `graphs` are the TensorRT graphs (external data need not be loaded). `parts`: into how many the decoder is
    there cut. A call takes as many rows and pictures as the recipes' attention_mb allows, or two, because one
    alone would fix the batch.
    """
    rows = max(2, *(rows_a_call(compiled, shape) for compiled in recipes))
    pictures = max(2, *(pictures_a_call(compiled.recipe, shape) for compiled in recipes))
    sizes = [sizes_from_recipe(compiled, shape) for compiled in recipes]
    components: dict[str, Any] = {}
    for name, model in graphs.items():
        int8, kept = linears_by_type(model)
        components[name] = {
            "parts": {"1": part_files(name, 1)},
            "profiles": _profiles(name, model, shape, sizes, rows, pictures),
            "int8_linears": int8,
            "float_linears": kept,
        }
        if name == "decoder":
            components[name] |= {
                "parts": {str(count): part_files(name, count) for count in parts},
                LAYERS: {str(count): part_layers(shape.layers, count) for count in parts},
                "least_k": LEAST_K,
            }
    return {"schema": SCHEMA, "components": components}


def _profiles(
    name: str,
    model: onnx.ModelProto,
    shape: ModelShape,
    sizes: Sequence[RecipeSizes],
    rows: int,
    pictures: int,
) -> list[Profile]:
    if name == "decoder":
        return decoder_profiles(shape, sizes, rows)
    if name not in ("vision", "attributes"):
        return [batch_profile("rows", model, 1, min(4, rows), rows)]
    few = min(2, pictures)
    profiles = [batch_profile("pictures-1", model, 1, 1, few)]
    if name == "vision" and pictures > few:
        profiles.append(batch_profile(f"pictures-{pictures}", model, few + 1, pictures, pictures))
    return profiles if name == "vision" else [batch_profile("pictures", model, 1, min(4, pictures), pictures)]


def batch_profile(name: str, model: onnx.ModelProto, least: int, best: int, most: int) -> Profile:
    """A profile of a graph whose only open axis is the batch, the first one of every input."""
    inputs = {}
    for value in model.graph.input:
        fixed = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim[1:]]
        inputs[value.name] = {
            key: [batch, *fixed] for key, batch in (("min", least), ("opt", best), ("max", most))
        }
    return {"name": name, "inputs": inputs}


def decoder_profiles(shape: ModelShape, sizes: Sequence[RecipeSizes], rows: int) -> list[Profile]:
    """Prefill, then decoding with k 1, 2..8, 9..16 (and on to the longest forced run) by size of the past.

    One engine serves all recipes. A profile's largest past is about twice its smallest, or up to 384 slots.
    """
    prefix = bucket_of(min(size.prefix for size in sizes)), bucket_of(max(size.prefix for size in sizes))
    longest = bucket_of(max(size.longest for size in sizes))
    first = min(size.first for size in sizes), max(size.first for size in sizes)
    prefill = _decoder_profile(
        "prefill", shape, (1, min(4, rows), rows), (first[0], first[1], first[1]), (*prefix, prefix[1])
    )
    profiles = []
    edges = [*DECODE_K]
    longest_run = max(size.run for size in sizes)
    if longest_run > edges[-1]:
        edges.append(longest_run)
    least = min(bucket_of(size.prefix + size.first) for size in sizes)
    for low, high in _doublings(min(least, longest), longest):
        for before, k in zip([0, *edges], edges, strict=False):
            tokens = (before + 1, k, k)
            name = f"decode-k{k}-past{high}"
            profiles.append(_decoder_profile(name, shape, (1, min(4, rows), rows), tokens, (low, high, high)))
    return [*profiles, prefill]


def _doublings(low: int, high: int) -> list[tuple[int, int]]:
    """low..high in pieces that end at twice their smallest bucket or at 256, a short rest with the last."""
    pieces = []
    while high > 1.5 * (end := bucket_of(max(2 * low, _LEAST_PIECE))):
        pieces.append((low, end))
        low = bucket_of(end + 1)
    return [*pieces, (low, high)]


def _decoder_profile(
    name: str,
    shape: ModelShape,
    rows: tuple[int, int, int],
    tokens: tuple[int, int, int],
    slots: tuple[int, int, int],
) -> Profile:
    """One decoder profile from (min, opt, max) of batch, new tokens and past slots."""
    inputs: dict[str, dict[str, list[_Dimension]]] = {}
    for key, batch, k, past in zip(("min", "opt", "max"), rows, tokens, slots, strict=True):
        for value, dimensions in _decoder_shapes(shape, batch, k, past).items():
            inputs.setdefault(value, {})[key] = dimensions
    return {"name": name, "inputs": inputs}


def _decoder_shapes(shape: ModelShape, batch: int, k: int, past: int) -> _Shapes:
    return {
        "embeds": [batch, k, shape.hidden],
        "deepstack": [batch, len(shape.deepstack), k, shape.hidden],
        "cos": [batch, k, shape.head_dim],
        "sin": [batch, k, shape.head_dim],
        "past_kv": [batch, LAYERS, 2, shape.kv_heads, past, shape.head_dim],
        "mask": [batch, k, past + k],
    }
