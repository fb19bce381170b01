"""A checkpoint and recipes to a bundle: the order of the export; each step lives in a file of its own.

checkpoint -> float graphs, embeddings      checkpoint.py, graphs.py
recipe     -> prompt ids, guide, prefix KV  prompt.py, recipe_compile.py
pictures   -> feeds of every graph          calibration_feeds.py
feeds      -> INT8 graphs, their errors     int8.py
all of it  -> bundle                        bundle.py
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from ..runtime.recipe import Recipe, load_recipe
from .bundle import (
    bundle_folder,
    copy_licences,
    manifest_entries,
    write_manifest,
    write_recipe,
    write_vocabulary,
)
from .calibration_feeds import (
    CalibrationTiles,
    EngineSet,
    attributes_feeds,
    decoder_feeds,
    patches_from_source,
    tiles_from_patches,
    vision_feeds,
)
from .graph.checkpoint import Weights, weights_from_folder
from .graph.decoder import word_head_to_file
from .graph.graphs import GraphFiles, graphs_from_checkpoint, shape_from_checkpoint
from .int8 import Int8Result, LinearBytes, int8_component, linear_bytes_of_file
from .prompt import tokenizer_from_checkpoint
from .recipe_compile import (
    check_compare,
    check_recipes,
    compiled_from_recipe,
    frame_difference,
    recipe_graph,
    with_prefix,
)

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) as the export goes on; total 0 where it is not known."""

GATE_TILES = 24
"""Tiles whose whole answers are compared between the float and the INT8 graphs."""


def export_checkpoint(
    checkpoint: str | Path,
    recipes: Sequence[str | Path | Recipe],
    calibration: str,
    out: str | Path,
    *,
    precision: str = "int8",
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the bundle `out` and return its accuracy report as plain JSON values.

    `calibration` is a DeepPCB folder or scenes:pcb?seed=...; it is not read for `float32`. CheckpointError,
    RecipeError, DataSetError, EngineError and BundleError say what is wrong; `out` is then as it was.
    """
    started = time.monotonic()
    say = progress or _silent
    checkpoint, out = Path(checkpoint), Path(out)
    loaded = [recipe if isinstance(recipe, Recipe) else load_recipe(recipe) for recipe in recipes]
    check_recipes(loaded)
    shape = shape_from_checkpoint(checkpoint, tile_px=loaded[0].tiling.tile_px)
    weights = weights_from_folder(checkpoint)
    difference = frame_difference(weights, shape)
    check_compare(loaded, difference)
    tokenizer = tokenizer_from_checkpoint(checkpoint)
    compiled = []
    for index, recipe in enumerate(loaded):
        say("recipes", index, len(loaded))
        compiled.append(compiled_from_recipe(tokenizer, recipe))
    say("recipes", len(loaded), len(loaded))
    # the pictures come before the long work, so that a wrong source is said at once
    patches = [
        patches_from_source(calibration, recipe, shape, say) for recipe in loaded if precision == "int8"
    ]
    report: dict[str, Any] = {"precision": precision, "frame_difference": round(difference, 4)}
    with ExitStack() as stack:
        folder = stack.enter_context(bundle_folder(out))
        work = folder
        if precision == "int8":  # the float graphs are only a means then; on one disk, as they may be large
            parent, prefix = folder.parent, f".{out.name}.float."
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=parent, prefix=prefix)))
        files = _float_graphs(checkpoint, work, compiled, weights, precision, say)
        compiled = _with_prefixes(compiled, files, threads)
        if precision == "int8":
            report |= _quantised(files, compiled, patches, folder, threads, say)
        _write_rest(checkpoint, folder, files, compiled, report, say)
    say("bundle", 1, 1)
    return report | {"bundle": str(out), "seconds": round(time.monotonic() - started, 1)}


def _float_graphs(
    checkpoint: Path,
    work: Path,
    compiled: Sequence[CompiledRecipe],
    weights: Weights,
    precision: str,
    say: Progress,
) -> GraphFiles:
    """The float graphs in `work`, one schema head a recipe."""
    begun: list[str] = []

    def component(name: str) -> None:
        say("float graphs", len(begun), 5)
        begun.append(name)

    files = graphs_from_checkpoint(
        checkpoint,
        work,
        tile_px=compiled[0].recipe.tiling.tile_px,
        kept_ids=compiled[0].kept_ids,
        embeddings_type="float32" if precision == "float32" else "float16",
        progress=component,
    )
    files.head_schema.unlink()
    for one in compiled:
        word_head_to_file(recipe_graph(work, one), weights, files.shape, one.kept_ids)
    say("float graphs", 5, 5)
    return files


def _with_prefixes(
    compiled: Sequence[CompiledRecipe], files: GraphFiles, threads: int
) -> list[CompiledRecipe]:
    with OnnxruntimeEngine(files.decoder, threads=threads) as decoder:
        return [with_prefix(one, files.shape, decoder, _embeddings(files)) for one in compiled]


def _quantised(
    files: GraphFiles,
    compiled: Sequence[CompiledRecipe],
    patches: Sequence[npt.NDArray[np.float32]],
    folder: Path,
    threads: int,
    say: Progress,
) -> dict[str, Any]:
    """INT8 graphs, schema heads and embeddings in `folder`; returns the accuracy report."""
    work = files.decoder.parent
    tiles = [
        _answered(work, one, files, of_recipe, threads, say)
        for one, of_recipe in zip(compiled, patches, strict=True)
    ]
    sources = {"vision": vision_feeds(tiles)}
    if files.attributes is not None:
        sources["attributes"] = attributes_feeds(tiles)
    sources["decoder"] = decoder_feeds(tiles, files.shape, _embeddings(files))
    results = {
        name: int8_component(
            work / f"{name}.onnx",
            feeds,
            folder / f"{name}.onnx",
            threads=threads,
            progress=_named(name, say),
        )
        for name, feeds in sources.items()
    }
    shutil.copyfile(files.embeddings, folder / files.embeddings.name)
    for one in compiled:
        shutil.copyfile(recipe_graph(work, one), recipe_graph(folder, one))
    equal = [
        _equal_answers(
            folder, one, files, threads, lambda _, done, total: say("whole answers in INT8", done, total)
        )
        for one in tiles
    ]
    heads = {f"head_schema.{one.recipe.id}": recipe_graph(folder, one) for one in compiled}
    return _report(results, heads) | {
        "answers_equal": sum(same for same, _ in equal),
        "answers_compared": sum(count for _, count in equal),
        "calibration_tiles": sum(len(one.patches) for one in tiles),
    }


def _answered(
    graphs: Path,
    compiled: CompiledRecipe,
    files: GraphFiles,
    patches: npt.NDArray[np.float32],
    threads: int,
    say: Progress,
) -> CalibrationTiles:
    """What the graphs in one folder, float or INT8, answer to these tiles."""
    with ExitStack() as stack:
        vision, decoder, head = (
            stack.enter_context(OnnxruntimeEngine(path, threads=threads))
            for path in (graphs / "vision.onnx", graphs / "decoder.onnx", recipe_graph(graphs, compiled))
        )
        engines = EngineSet(vision, decoder, head)
        return tiles_from_patches(patches, compiled, files.shape, engines, _embeddings(files), say)


def _equal_answers(
    folder: Path, tiles: CalibrationTiles, files: GraphFiles, threads: int, say: Progress
) -> tuple[int, int]:
    """(equal, compared): tiles that the INT8 graphs answer token for token as the float graphs did."""
    count = min(GATE_TILES, len(tiles.patches))
    chosen = np.linspace(0, len(tiles.patches) - 1, count).round().astype(int)
    again = _answered(folder, tiles.compiled, files, tiles.patches[chosen], threads, say).answers
    same = sum(tiles.answers[index].ids == answer.ids for index, answer in zip(chosen, again, strict=True))
    return same, count


def _report(results: dict[str, Int8Result], heads: dict[str, Path]) -> dict[str, Any]:
    """The figures of every component, and the linears' bytes together; the schema heads stay float."""
    sizes = [linear_bytes_of_file(path) for path in heads.values()]
    sizes += [LinearBytes(result.bytes_before, result.bytes_after) for result in results.values()]
    before, after = sum(size.float32 for size in sizes), sum(size.stored for size in sizes)
    modes = {
        name: {
            mode: sum(choice.mode == mode for choice in result.choices)
            for mode in ("static", "per_row", "float")
        }
        for name, result in results.items()
    }
    return {
        "flavour": "u8",
        "flavour_rule": "s8: same scales, int8 zero point 0 in the one initialiser activation_zero_point",
        "accuracy": {
            name: {"cosine": result.cosine, "max_abs_error": result.max_abs_error}
            for name, result in results.items()
        },
        "linears": modes,
        "linears_float": [
            *(f"{name}/{linear}" for name, result in results.items() for linear in result.linears_float),
            *(f"{name}/lm_head" for name in heads),
        ],
        "linear_bytes": {"float32": before, "stored": after, "ratio": after / before},
        "int8": {name: result.to_json() for name, result in results.items()},
    }


def _write_rest(
    checkpoint: Path,
    folder: Path,
    files: GraphFiles,
    compiled: Sequence[CompiledRecipe],
    report: dict[str, Any],
    say: Progress,
) -> None:
    """Recipes, vocabulary, licences and, last, the manifest."""
    say("bundle", 0, 1)
    for one in compiled:
        write_recipe(folder, one)
    write_vocabulary(folder, {key: text for one in compiled for key, text in one.vocabulary.items()})
    copy_licences(checkpoint, folder)
    now = datetime.now(timezone.utc)
    entries = manifest_entries(checkpoint, folder, files.shape, files.dense_types, compiled, now)
    write_manifest(folder, entries | report)


def _embeddings(files: GraphFiles) -> npt.NDArray[Any]:
    return np.asanyarray(np.load(files.embeddings, mmap_mode="r", allow_pickle=False))


def _named(component: str, say: Progress) -> Progress:
    return lambda what, done, total: say(f"{component}: {what}", done, total)


def _silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who gave none."""
