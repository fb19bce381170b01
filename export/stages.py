"""The stages of an export, in their order; `checkpoint_export.py` strings them together.

Each takes the job, the files of the stages before it and the work folder, where it leaves what took long.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ..calibration.calibrate import calibrate, calibration_report
from ..calibration.choice import LinearChoice
from ..calibration.linears import linears_of
from ..calibration.streamed import StreamedEngine
from ..evaluation.gate.gate import GateReport, gate
from ..evaluation.gate.pictures import GATE_PARTS, VALIDATION_PARTS, GateRows, gate_rows
from ..evaluation.gate.verdict import check
from ..runtime.errors import UsageError
from ..runtime.infer.bundle import Bundle, CompiledRecipe
from ..runtime.infer.engines.engine import Engine
from ..runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from .bundle import (
    copy_licences,
    manifest_entries,
    write_manifest,
    write_recipe,
    write_vocabulary,
)
from .calibration_feeds import (
    TILES_A_FEED,
    CalibrationTiles,
    EngineSet,
    FeedList,
    answers_to_json,
    attributes_feeds,
    decoder_feeds,
    surest_tiles,
    tiles_from_folder,
    tiles_from_patches,
    vision_feeds,
)
from .golden import write_golden
from .graph.decoder import word_head_to_file
from .graph.graphs import GraphFiles, graphs_from_checkpoint
from .inputs import Job
from .int8 import int8_to_files
from .recipe_compile import recipe_graph, with_prefix
from .tensorrt.files import write_tensorrt_files
from .work_folder import WorkFolder

COMPONENTS = ("vision", "attributes", "decoder", "embeddings")
FLOAT_IN_MEMORY_BYTES = 2 << 30
"""A float graph with more weights than this runs block by block instead of as a whole."""
STREAMED_GATE_PARTS = 6, 6
"""Calibration and validation parts of the gate then: each takes minutes."""
GOLDEN_TILE_BYTES = 4 << 20
"""Keys and values of a tile's pictures beyond which the golden frames hold one tile."""


def write_float_graphs(job: Job, work: WorkFolder) -> GraphFiles:
    """The float graphs in the work folder, one schema head a recipe; finished components are left alone."""
    folder = work.folder("float")
    shape = job.inputs.shape

    def layers(component: str, done: int, total: int) -> None:
        job.say(f"float graph: {component}", done, total)

    files = graphs_from_checkpoint(
        job.inputs.checkpoint,
        folder,
        tile_px=job.inputs.recipes[0].tiling.tile_px,
        embeddings_type=job.embeddings_type,
        # heads are written below, one a recipe
        done=["head_schema", *(name for name in COMPONENTS if work.has(f"graph {name}"))],
        finished=lambda component: work.finish(f"graph {component}"),
        layer_progress=layers,
    )
    for one in job.compiled:
        word_head_to_file(recipe_graph(folder, one), job.inputs.weights, shape, one.kept_ids)
    return files


def prefixed(job: Job, files: GraphFiles) -> tuple[CompiledRecipe, ...]:
    """The recipes with the keys and values of their prefixes, from the float decoder."""
    with _float_engine(files.decoder, job.threads) as decoder:
        return tuple(with_prefix(one, job.inputs.shape, decoder, _embeddings(files)) for one in job.compiled)


def answered_tiles(
    job: Job, compiled: Sequence[CompiledRecipe], files: GraphFiles, work: WorkFolder
) -> list[CalibrationTiles]:
    """The calibration tiles of each recipe with what the float graphs answer, kept from an earlier try."""
    place, found = work.folder("answers"), []
    for one, patches in zip(compiled, job.patches, strict=True):
        part = f"answers {one.recipe.id}"
        if work.has(part):
            found.append(tiles_from_folder(place, patches, one, work.facts(part)))
            continue
        with ExitStack() as stack:
            graphs = (files.vision, files.decoder, recipe_graph(files.decoder.parent, one))
            opened: list[Engine] = []
            for path in graphs:
                engine = _float_engine(path, job.threads)
                stack.callback(engine.close)
                opened.append(engine)
            engines = EngineSet(*opened)
            tiles = tiles_from_patches(
                patches, one, job.inputs.shape, engines, _embeddings(files), job.say, work=place
            )
        work.finish(part, answers_to_json(tiles.answers))
        found.append(tiles)
    return found


def measured_choices(
    job: Job, files: GraphFiles, tiles: Sequence[CalibrationTiles], work: WorkFolder
) -> tuple[dict[str, tuple[LinearChoice, ...]], dict[str, Any]]:
    """Component -> how each of its linears runs, measured block by block; and component -> what was found."""
    names = _linear_names(files)
    place = work.folder("calibration")
    choices = {
        name: calibrate(
            path,
            _feeds(job, files, tiles, name),
            place,
            keep_float=[linear for linear in job.keep_float if linear in names[name]],
            threads=job.threads,
            progress=job.say,
        )
        for name, path in quantised_graphs(files).items()
    }
    return choices, {name: calibration_report(path, place) for name, path in quantised_graphs(files).items()}


def check_kept_float(job: Job, files: GraphFiles) -> None:
    """UsageError for a linear to keep float that no component has."""
    names = _linear_names(files)
    unknown = set(job.keep_float).difference(*names.values())
    if unknown:
        raise UsageError(
            f"--keep-float {min(unknown)}: the model has no such linear; its names are like"
            f" {', '.join(linears[-1] for linears in names.values())}"
        )


def _linear_names(files: GraphFiles) -> dict[str, list[str]]:
    return {
        name: [linear.name for linear in linears_of(onnx.load(str(path), load_external_data=False))]
        for name, path in quantised_graphs(files).items()
    }


def _feeds(job: Job, files: GraphFiles, tiles: Sequence[CalibrationTiles], component: str) -> FeedList:
    if component == "decoder":
        return decoder_feeds(tiles, job.inputs.shape, _embeddings(files))
    return vision_feeds(tiles) if component == "vision" else attributes_feeds(tiles)


def write_rounded(
    job: Job,
    files: GraphFiles,
    compiled: Sequence[CompiledRecipe],
    choices: Mapping[str, Sequence[LinearChoice]],
    folder: Path,
) -> dict[str, Any]:
    """INT8 or float16 graphs for both engine libraries in `folder`; what the manifest says of them."""
    graphs = quantised_graphs(files) | {
        f"head_schema.{one.recipe.id}": recipe_graph(files.decoder.parent, one) for one in compiled
    }
    sizes = {
        name: int8_to_files(path, choices.get(name, ()), folder, name, progress=job.say).linears
        for name, path in graphs.items()
    }
    shutil.copyfile(files.embeddings, folder / files.embeddings.name)
    write_tensorrt_files(folder, job.inputs.shape, compiled, list(graphs))
    before = sum(size.float32 for size in sizes.values())
    after = sum(size.stored for size in sizes.values())
    return {
        "flavours": {"onnxruntime": "u8, zero point 128", "tensorrt": "s8, zero point 0"},
        "linears": {name: _modes(of_component) for name, of_component in choices.items()},
        "linears_float": [
            f"{name}/{choice.name}"
            for name, of_component in choices.items()
            for choice in of_component
            if choice.mode == "float"
        ],
        "linear_bytes": {"float32": before, "stored": after, "ratio": after / before},
        "choices": {name: [one.to_json() for one in choices[name]] for name in choices},
    }


def _modes(choices: Sequence[LinearChoice]) -> dict[str, int]:
    """How many linears run each way."""
    counts = dict.fromkeys(("static", "per_row", "smoothed", "float"), 0)
    for choice in choices:
        is_smoothed = choice.mode != "float" and choice.alpha is not None
        counts["smoothed" if is_smoothed else choice.mode] += 1
    return counts


def write_golden_frames(
    job: Job, files: GraphFiles, tiles: Sequence[CalibrationTiles], folder: Path
) -> dict[str, Any]:
    """Golden frames of the first recipe: of one feed, or of one tile where its keys and values are large."""
    shape, pictures = job.inputs.shape, tiles[0].compiled.recipe.pictures
    tile_bytes = 4 * math.prod(shape.past_kv_shape(1, pictures * shape.tokens))
    one = surest_tiles(tiles[0], TILES_A_FEED if tile_bytes <= GOLDEN_TILE_BYTES else pictures)
    feeds = {name: _feeds(job, files, [one], name)[0] for name in quantised_graphs(files)}

    def exact(component: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        with _float_engine(files.decoder.parent / f"{component}.onnx", job.threads) as engine:
            return engine.run(inputs)

    return write_golden(folder, feeds, one, exact, threads=job.threads, progress=job.say)


def pass_gate(
    job: Job,
    files: GraphFiles,
    compiled: Sequence[CompiledRecipe],
    choices: Mapping[str, Sequence[LinearChoice]],
    folder: Path,
) -> tuple[dict[str, Any], dict[str, GateRows]]:
    """Hold the bundle in `folder` against the float graphs under every recipe, and note it in the manifest.

    The note, and recipe -> the pictures used. AccuracyError when a recipe's limits do not hold.
    """
    exact = files.decoder.parent
    write_rest(job, exact, files, compiled, {"precision": "float32"})
    reports, used_rows = list[GateReport](), dict[str, GateRows]()
    parts = STREAMED_GATE_PARTS if _is_streamed(files.decoder) else (GATE_PARTS, VALIDATION_PARTS)
    for one, patches in zip(compiled, job.patches, strict=True):
        rows = gate_rows(
            job.calibration[one.recipe.id],
            set(patches.names),
            validation=None if job.validation is None else job.validation[one.recipe.id],
            parts=parts,
            box_margin_px=one.recipe.box_margin_px,
            clip_frames=one.recipe.clip.frames if one.recipe.mode == "clip" else 1,
        )
        used_rows[one.recipe.id] = rows
        reports.append(
            gate(
                exact,
                folder,
                one.recipe.id,
                {"calibration": rows.calibration, "validation": rows.validation},
                choices,
                threads=job.threads,
                progress=job.say,
                open_float=_gate_engine,
            )
        )
    for each in reports:
        check(each, job.keep_float)
    noted = {
        each.recipe: each.to_json() | {"validation": used_rows[each.recipe].validation_source}
        for each in reports
    }
    write_manifest(folder, {**Bundle.open(folder, verify=False).manifest, "gate": noted})
    return noted, used_rows


def write_rest(
    job: Job,
    folder: Path,
    files: GraphFiles,
    compiled: Sequence[CompiledRecipe],
    report: Mapping[str, Any],
) -> None:
    """Recipes, vocabulary, licences and, last, the manifest."""
    job.say("bundle", 0, 1)
    for one in compiled:
        write_recipe(folder, one)
    write_vocabulary(folder, {key: text for one in compiled for key, text in one.vocabulary.items()})
    copy_licences(job.inputs.checkpoint, folder)
    now = datetime.now(timezone.utc)
    entries = manifest_entries(job.inputs.checkpoint, folder, files.shape, files.dense_types, compiled, now)
    write_manifest(folder, {**entries, **report})


def quantised_graphs(files: GraphFiles) -> dict[str, Path]:
    """Component -> float graph, without the schema heads."""
    found = {"vision": files.vision, "decoder": files.decoder}
    return found if files.attributes is None else found | {"attributes": files.attributes}


def move_graphs(files: GraphFiles, folder: Path, work: WorkFolder) -> None:
    """The float graphs into the bundle; the work folder is given up with it."""
    work.forget()  # what stops the export from here on takes the graphs along
    for path in sorted(files.decoder.parent.iterdir()):
        os.replace(path, folder / path.name)


def _embeddings(files: GraphFiles) -> npt.NDArray[Any]:
    return np.asanyarray(np.load(files.embeddings, mmap_mode="r", allow_pickle=False))


def _float_engine(path: Path, threads: int) -> OnnxruntimeEngine | StreamedEngine:
    """The whole graph in memory, or block by block where its weights are too large for that."""
    return (StreamedEngine if _is_streamed(path) else OnnxruntimeEngine)(path, threads=threads)


def _is_streamed(path: Path) -> bool:
    weights = path.with_name(path.name + ".data")
    return weights.exists() and weights.stat().st_size > FLOAT_IN_MEMORY_BYTES


def _gate_engine(bundle: Bundle, component: str, *, threads: int = 2, **_: Any) -> Engine:
    return _float_engine(bundle.graph(component), threads)
