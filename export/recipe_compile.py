"""A recipe, a tokenizer and a decoder to what the device runs: ids, guide, prefix keys and values."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import RecipeError
from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.engine import Engine
from ..runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments
from ..runtime.infer.shape import ModelShape
from ..runtime.recipe import Recipe
from .guide import compile_guide, vocabulary_from_guide
from .prompt import between_ids, prompt_ids
from .weights import Weights

LEAST_FRAME_DIFFERENCE = 0.1
"""Below this ratio the two frames' patch weights are too equal to tell template from part."""

PATCH_WEIGHT = "model.visual.patch_embed.proj.weight"


def compiled_from_recipe(tokenizer: Any, recipe: Recipe) -> CompiledRecipe:
    """Prompt ids, proven guide and vocabulary; the prefix is still empty, see `with_prefix`.

    RecipeError when the tokenizer cannot write the recipe's answers.
    """
    guide = compile_guide(tokenizer, recipe)
    prefix, suffix = prompt_ids(tokenizer, recipe)
    return CompiledRecipe(
        recipe=recipe,
        guide=guide,
        prefix_kv=np.zeros((0, 2, 0, 0, 0), np.float32),
        prefix_ids=tuple(prefix),
        suffix_ids=tuple(suffix),
        between_ids=tuple(between_ids(tokenizer)),
        next_position=len(prefix),
        kept_ids=guide.kept_ids,
        vocabulary=vocabulary_from_guide(tokenizer, guide),
    )


def with_prefix(
    compiled: CompiledRecipe, shape: ModelShape, decoder: Engine, embeddings: npt.NDArray[Any]
) -> CompiledRecipe:
    """The recipe with the keys and values of its prefix, from one run of the float decoder.

    `embeddings` is [V, H]; the keys and values are [layers, 2, kv_heads, prefix tokens, head_dim] float32.
    """
    count = len(compiled.prefix_ids)
    positions, following = positions_for_segments([count])
    cos, sin = mrope_cos_sin(positions[None], shape)
    feeds = {
        "embeds": embeddings[list(compiled.prefix_ids)][None].astype(np.float32),
        "deepstack": np.zeros((1, len(shape.deepstack), count, shape.hidden), np.float32),
        "cos": cos,
        "sin": sin,
        # one past slot that nobody sees: an empty axis is the one shape that engines disagree about
        "past_kv": np.zeros(shape.past_kv_shape(1, 1), np.float32),
        "mask": mask_for([0], [count], 1, count),
    }
    return dataclasses.replace(compiled, prefix_kv=decoder.run(feeds)["new_kv"][0], next_position=following)


def frame_difference(weights: Weights, shape: ModelShape) -> float:
    """||W0 - W1|| / ||W0 + W1|| of the patch weights' first and last frame."""
    size = (shape.vision_hidden, shape.channels, shape.temporal_patch, shape.patch_px, shape.patch_px)
    kernel = weights.read(PATCH_WEIGHT, size)
    first, last = kernel[:, :, 0], kernel[:, :, -1]
    return float(np.linalg.norm(first - last) / max(float(np.linalg.norm(first + last)), 1e-30))


def check_recipes(recipes: list[Recipe]) -> None:
    """RecipeError unless the recipes can share one bundle: one tile size, different ids, at least one."""
    if not recipes:
        raise RecipeError("no recipe is given; add at least one --recipe R.toml")
    sizes = sorted({recipe.tiling.tile_px for recipe in recipes})
    if len(sizes) > 1:
        raise RecipeError(f"the recipes' tiling.tile_px are {sizes}; one bundle has one tile size")
    ids = [recipe.id for recipe in recipes]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise RecipeError(f"two recipes have the id {twice[0]!r}; give each its own")


def check_compare(recipes: list[Recipe], difference: float) -> None:
    """RecipeError for a way of comparing that a checkpoint with this frame difference cannot do."""
    for recipe in recipes:
        if recipe.compare == "two_images":
            raise RecipeError(f"recipe {recipe.id}: compare = 'two_images' cannot run yet; use 'temporal'")
        if difference < LEAST_FRAME_DIFFERENCE:
            raise RecipeError(
                f"recipe {recipe.id}: compare = 'temporal', but the frame weights of this checkpoint differ"
                f" by {difference:.3f}, less than {LEAST_FRAME_DIFFERENCE}: it cannot tell template from part"
            )


def recipe_graph(folder: Path, compiled: CompiledRecipe) -> Path:
    """Where the schema head of a recipe lies in a folder of graphs."""
    return folder / f"head_schema.{compiled.recipe.id}.onnx"
