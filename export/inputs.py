"""What an export is made from, opened and checked as a whole before any long work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..calibration.ranges import Progress
from ..runtime.errors import RecipeError, UsageError
from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.shape import ModelShape
from ..runtime.recipe import Recipe, load_recipe
from .calibration_feeds import TilePatches, patches_from_source
from .graph.checkpoint import Weights
from .graph.graphs import checked_weights, shape_from_checkpoint
from .graph.vision import dense_types_from_weights
from .prompt import check_tokenizer, tokenizer_from_checkpoint
from .recipe_compile import (
    LEAST_FRAME_DIFFERENCE,
    check_compare,
    check_recipes,
    compiled_from_recipe,
    frame_difference,
)

PRECISIONS = ("int8", "float16", "float32")


@dataclass(frozen=True)
class Inputs:
    """A checkpoint and recipes that fit together.

    `recipes` say how they compare; `dense` is None without a dense head, then the words work alone.
    """

    checkpoint: Path
    recipes: tuple[Recipe, ...]
    shape: ModelShape
    weights: Weights
    dense: Weights | None
    tokenizer: Any
    frame_difference: float


def checked_inputs(checkpoint: str | Path, recipes: Sequence[Recipe]) -> Inputs:
    """Read headers, config.json and tokenizer; a second of work, nothing is written.

    CheckpointError names file and tensor; RecipeError names the recipe that this checkpoint cannot serve.
    """
    checkpoint = Path(checkpoint)
    check_recipes(list(recipes))
    shape = shape_from_checkpoint(checkpoint, tile_px=recipes[0].tiling.tile_px)
    weights, dense = checked_weights(checkpoint, shape)
    tokenizer = tokenizer_from_checkpoint(checkpoint)
    check_tokenizer(tokenizer, shape)
    difference = frame_difference(weights, shape)
    decided = [with_compare(recipe, difference, dense is not None) for recipe in recipes]
    check_compare(decided, difference)
    types = () if dense is None else dense_types_from_weights(dense)
    for recipe in decided:
        check_attention(recipe, shape)
        _check_runs(recipe, types)
    return Inputs(checkpoint, tuple(decided), shape, weights, dense, tokenizer, difference)


def _check_runs(recipe: Recipe, dense_types: Sequence[str]) -> None:
    """What the device would refuse when it opens the bundle is refused before the work."""
    if recipe.template != "frame":
        raise RecipeError(f"recipe {recipe.id}: template = {recipe.template!r} cannot run yet; use 'frame'")
    unknown = [name for name in recipe.types if dense_types and name not in dense_types]
    if unknown:
        raise RecipeError(
            f"recipe {recipe.id}: the checkpoint's dense head knows {', '.join(dense_types)}, not"
            f" {', '.join(unknown)}; use its types, or remove its file to inspect by words alone"
        )


def with_compare(recipe: Recipe, difference: float, has_dense_head: bool) -> Recipe:
    """The recipe with its way of comparing decided: what it says, else what the checkpoint was trained for.

    A dense head is the mark of a checkpoint that was trained on pairs in one patch, as examples/reference;
    every other one compares two images.
    """
    if recipe.mode != "compare" or recipe.compare is not None:
        return recipe
    is_temporal = has_dense_head and difference >= LEAST_FRAME_DIFFERENCE
    return dataclasses.replace(recipe, compare="temporal" if is_temporal else "two_images")


def check_attention(recipe: Recipe, shape: ModelShape) -> None:
    """RecipeError, naming the largest tile, when one picture's attention scores exceed `attention_mb`.

    So it does for the tokens of all pictures of a tile in the decoder; there it names the most pictures.
    """
    budget = recipe.tiling.attention_mb << 20
    if shape.vision_scores_bytes > budget:
        side = math.isqrt(math.isqrt(budget // (4 * shape.vision_heads))) // shape.merge * shape.merge
        raise RecipeError(
            f"recipe {recipe.id}: a grid of {shape.grid_hw[0]} x {shape.grid_hw[1]} patches needs"
            f" {shape.vision_scores_bytes / 2**20:.0f} MB for its attention scores, more than attention_mb ="
            f" {recipe.tiling.attention_mb}; the largest grid is {side} x {side},"
            f" tile_px = {side * shape.patch_px}"
        )
    needed = shape.decoder_scores_bytes(recipe.pictures * shape.tokens, 0)
    if needed > budget:
        most = math.isqrt(budget // (4 * shape.heads)) // shape.tokens
        raise RecipeError(
            f"recipe {recipe.id}: {recipe.pictures} pictures of {shape.tokens} tokens need"
            f" {needed / 2**20:.0f} MB for the decoder's attention scores, more than attention_mb ="
            f" {recipe.tiling.attention_mb}; show at most {most} pictures of this size, or smaller tiles"
        )


@dataclass(frozen=True)
class Job:
    """Everything that one export knows before its long work begins."""

    inputs: Inputs
    compiled: tuple[CompiledRecipe, ...]
    calibration: Mapping[str, str]  # recipe id -> source
    validation: Mapping[str, str] | None
    patches: tuple[TilePatches, ...]  # one a recipe; none for float32
    precision: str
    keep_float: tuple[str, ...]
    out: Path
    threads: int
    say: Progress

    @property
    def made_from(self) -> dict[str, Any]:
        """What the parts in the work folder rest on: other values start over. Not what is chosen later."""
        files = sorted(path for path in self.inputs.checkpoint.iterdir() if path.is_file())
        return {
            "orinspect": __version__,
            "checkpoint": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files],
            "recipes": [_asked_of_the_model(one) for one in self.compiled],
            "calibration": dict(self.calibration),
            "pictures": [hashlib.sha256(one.pixels.tobytes()).hexdigest() for one in self.patches],
            "embeddings": self.embeddings_type,
        }

    @property
    def embeddings_type(self) -> str:
        """How the bundle stores the token embeddings."""
        return "float32" if self.precision == "float32" else "float16"


def _asked_of_the_model(one: CompiledRecipe) -> list[Any]:
    """What of a recipe the graphs, answers and ranges rest on: thresholds and limits may change freely."""
    guide = hashlib.sha256(one.guide.to_json().encode()).hexdigest()
    texts = [list(one.prefix_ids), [list(ids) for ids in one.between_ids], list(one.suffix_ids)]
    tiling = one.recipe.tiling
    return [one.recipe.id, guide, texts, one.recipe.token_budget, tiling.tile_px, tiling.attention_mb]


def job_from_arguments(
    checkpoint: str | Path,
    recipes: Sequence[str | Path | Recipe],
    calibration: str | Mapping[str, str],
    out: Path,
    precision: str,
    validation: str | Mapping[str, str] | None,
    keep_float: Sequence[str],
    threads: int,
    progress: Progress | None,
) -> Job:
    """Read and check everything that can be wrong, so that it is said at once; nothing is written.

    The arguments are those of `export_checkpoint`. UsageError, RecipeError, CheckpointError, DataSetError.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"precision is {', '.join(PRECISIONS)}; got {precision!r}")
    if keep_float and precision != "int8":
        raise UsageError(f"linears are kept float in int8 only; precision is {precision!r}")
    say = progress or _silent
    loaded = [recipe if isinstance(recipe, Recipe) else load_recipe(recipe) for recipe in recipes]
    inputs = checked_inputs(checkpoint, loaded)
    ids = [recipe.id for recipe in inputs.recipes]
    pictures = source_of_each(calibration, ids, "--calibration")
    checked_on = None if validation is None else source_of_each(validation, ids, "--validation")
    compiled = []
    for index, recipe in enumerate(inputs.recipes):
        say("recipes", index, len(inputs.recipes))
        compiled.append(compiled_from_recipe(inputs.tokenizer, recipe))
    say("recipes", len(inputs.recipes), len(inputs.recipes))
    patches = [
        patches_from_source(pictures[recipe.id], recipe, inputs.shape, say)
        for recipe in inputs.recipes
        if precision != "float32"
    ]
    return Job(
        inputs,
        tuple(compiled),
        pictures,
        checked_on,
        tuple(patches),
        precision,
        tuple(keep_float),
        out,
        threads,
        say,
    )


def sources_from_texts(texts: Sequence[str], option: str) -> str | dict[str, str]:
    """The values of a repeated `option`: one SOURCE for all recipes, or RECIPE=SOURCE for each.

    A recipe's id is what stands before the first `=`, when neither `:`, `?` nor `/` comes before it.
    UsageError for a mixture, and for a recipe named twice.
    """
    named: dict[str, str] = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not equals or not source or set(name) & set(":?/"):
            if len(texts) > 1:
                raise UsageError(
                    f"{option} is given {len(texts)} times: write RECIPE=SOURCE each; got {text!r}"
                )
            return text
        if name in named:
            raise UsageError(f"{option} names recipe {name!r} twice; one source a recipe")
        named[name] = source
    return named


def source_of_each(
    sources: str | Mapping[str, str], recipe_ids: Sequence[str], option: str
) -> dict[str, str]:
    """Recipe id -> source. UsageError names a recipe that has none, and a source without its recipe."""
    if isinstance(sources, str):
        return dict.fromkeys(recipe_ids, sources)
    if missing := [name for name in recipe_ids if name not in sources]:
        raise UsageError(
            f"{option} has no source for recipe {missing[0]!r}; add {option} {missing[0]}=SOURCE"
        )
    if unknown := [name for name in sources if name not in recipe_ids]:
        raise UsageError(
            f"{option} {unknown[0]}=...: there is no such recipe; given are {', '.join(recipe_ids)}"
        )
    return {name: sources[name] for name in recipe_ids}


def _silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who gave none."""
