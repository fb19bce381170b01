"""Writes a real float32 bundle of a small random checkpoint in about a second: real graphs, real guide, no
sense.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from orinspect.export.bundle import bundle_folder, write_manifest, write_recipe, write_vocabulary
from orinspect.export.graph.graphs import graphs_from_checkpoint, shape_from_checkpoint
from orinspect.export.prompt import between_ids, prompt_ids, tokenizer_from_checkpoint
from orinspect.export.recipe_compile import compile_guide, vocabulary_from_guide
from orinspect.runtime.infer.bundle import Bundle, CompiledRecipe
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments
from orinspect.runtime.infer.shape import ModelShape
from orinspect.runtime.recipe import Recipe, load_recipe
from orinspect.tests.tiny_checkpoint import TinySizes, write_tiny_checkpoint

RECIPE = Path(__file__).parents[1] / "examples" / "reference" / "pcb-compare.toml"


def write_small_bundle(
    folder: Path,
    recipe: Recipe | None = None,
    *,
    sizes: TinySizes | None = None,
    seed: int = 0,
    has_dense_head: bool = True,
    dense_types: tuple[str, ...] | None = None,
) -> Bundle:
    """A bundle in `folder`/bundle for one recipe, the shipped one for None; its dense head knows the shipped
    recipe's types, or `dense_types`.
    """
    recipe = load_recipe(RECIPE) if recipe is None else recipe
    types = (dense_types or load_recipe(RECIPE).types) if has_dense_head else ()
    checkpoint = write_tiny_checkpoint(
        folder / "checkpoint", sizes or TinySizes(), seed=seed, dense_types=types
    )
    tokenizer = tokenizer_from_checkpoint(checkpoint)
    guide = compile_guide(tokenizer, recipe, proofs=50)
    vocabulary = vocabulary_from_guide(tokenizer, guide)
    prefix, suffix = prompt_ids(tokenizer, recipe)
    out = folder / "bundle"
    with bundle_folder(out) as place:
        files = graphs_from_checkpoint(checkpoint, place, kept_ids=guide.kept_ids)
        files.head_schema.rename(place / f"head_schema.{recipe.id}.onnx")
        kv, position = _prefix_kv(files.decoder, np.load(files.embeddings)[prefix], files.shape)
        write_recipe(
            place,
            CompiledRecipe(
                recipe,
                guide,
                kv,
                tuple(prefix),
                tuple(suffix),
                between_ids(tokenizer, recipe),
                position,
                guide.kept_ids,
                vocabulary,
            ),
        )
        write_vocabulary(place, vocabulary)
        write_manifest(
            place,
            {
                "precision": "float32",
                "model": shape_from_checkpoint(checkpoint).to_json(),
                "recipes": [recipe.id],
                "dense_types": list(files.dense_types),
            },
        )
    return Bundle.open(out)


def small_recipe(**changes: object) -> Recipe:
    """The shipped recipe with some fields replaced."""
    return dataclasses.replace(load_recipe(RECIPE), **changes)  # type: ignore[arg-type]


def _prefix_kv(decoder: Path, embeds: FloatArray, shape: ModelShape) -> tuple[FloatArray, int]:
    """Keys and values of the prefix, run on an empty past, and the position behind it."""
    tokens = len(embeds)
    positions, following = positions_for_segments([tokens])
    cos, sin = mrope_cos_sin(positions[None], shape)
    with OnnxruntimeEngine(decoder, threads=1) as engine:
        outputs = engine.run(
            {
                "embeds": embeds[None].astype(np.float32),
                "deepstack": np.zeros((1, len(shape.deepstack), tokens, shape.hidden), np.float32),
                "cos": cos,
                "sin": sin,
                "past_kv": np.zeros(shape.past_kv_shape(1, 0), np.float32),
                "mask": mask_for([0], [tokens], 0, tokens),
            }
        )
    return outputs["new_kv"][0], following
