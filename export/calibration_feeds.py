"""Calibration pictures to the inputs that each float graph really gets on the device.

Tiles are cut, registered and gated as the inspector does it, and the float model answers them itself. What it
wrote is then fed again in one pass behind the recipe's prefix (teacher forcing). The prefix stays in the past
and padding is masked out, so that neither counts in the ranges.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..calibration.ranges import Progress
from ..calibration.sessions import Feed, MaskedFeed
from ..evaluation.datasets import SCENE_PREFIX, rows_from_source
from ..runtime.errors import DataSetError
from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.decode import Answer, Decoder
from ..runtime.infer.engines.engine import Engine
from ..runtime.infer.pictures.tiles import compare_patches, tile_pairs
from ..runtime.infer.pictures.views import grey
from ..runtime.infer.sequence import Segment, mask_for, mrope_cos_sin, positions_for_segments
from ..runtime.infer.shape import ModelShape
from ..runtime.recipe import Recipe

Floats = npt.NDArray[np.float32]

PARTS = 12
"""Parts that tiles are taken from, spread over the source."""
TILES = 96
"""Tiles of one recipe; more change the ranges of the reference model by less than a percent."""
TILES_A_FEED = 4
TILES_A_CALL = 16


@dataclass(frozen=True)
class EngineSet:
    """The engines that an answer needs."""

    vision: Engine
    decoder: Engine
    head: Engine


@dataclass(frozen=True)
class CalibrationTiles:
    """Tiles of one recipe and what the float model makes of them."""

    compiled: CompiledRecipe
    patches: Floats  # [tiles, N, patch features]
    image_tokens: Floats  # [tiles, T, H]
    deepstack: Floats  # [tiles, D, T, H]
    answers: tuple[Answer, ...]


def patches_from_source(source: str, recipe: Recipe, shape: ModelShape, say: Progress) -> Floats:
    """[tiles, N, patch features]: at most TILES tiles that pass the gate, spread over at most PARTS parts.

    `source` is a DeepPCB folder (its training boards) or scenes:pcb?seed=...; DataSetError when no tile of it
    passes the gate.
    """
    split = None if source.startswith(SCENE_PREFIX) else "train"
    rows = rows_from_source(source, split=split, box_margin_px=recipe.box_margin_px)
    chosen = [rows[index] for index in _spread(len(rows), PARTS)]
    found: list[Floats] = []
    for index, row in enumerate(chosen):
        say("calibration pictures", index, len(chosen))
        example = row.read()
        pairs = tile_pairs(
            grey(example.template),
            grey(example.image),
            tile_px=recipe.tiling.tile_px,
            stride_px=recipe.tiling.stride_px,
            levels=recipe.tiling.levels,
            max_shift_px=recipe.registration.max_shift_px,
            tile_shift_px=recipe.registration.tile_shift_px,
            gate_difference=recipe.gate.difference,
            gate_pixels=recipe.gate.min_pixels,
        )
        kept = _spread(len(pairs.tiles), -(-TILES // len(chosen)))
        if kept:
            template, part = pairs.template[kept], pairs.part[kept]
            found.append(
                compare_patches(template, part, recipe.difference_channel, shape.patch_px, shape.merge)
            )
    say("calibration pictures", len(chosen), len(chosen))
    if not found:
        raise DataSetError(
            f"calibration source {source}: no tile of {len(chosen)} parts differs from its template;"
            " give pictures that contain defects"
        )
    return np.concatenate(found)[:TILES]


def tiles_from_patches(
    patches: Floats,
    compiled: CompiledRecipe,
    shape: ModelShape,
    engines: EngineSet,
    embeddings: npt.NDArray[Any],
    say: Progress,
) -> CalibrationTiles:
    """Run the float vision graph, and the decoder greedily under the guide, over `patches`."""
    image_tokens, deepstack = vision_features(engines.vision, patches)
    decoder = Decoder(shape, compiled, embeddings, engines.decoder, engines.head, clock=time.perf_counter)
    answers: list[Answer] = []
    for start in range(0, len(patches), TILES_A_CALL):
        say("calibration answers", start, len(patches))
        batch = slice(start, start + TILES_A_CALL)
        answers += decoder.answers(image_tokens[batch], deepstack[batch]).answers
    say("calibration answers", len(patches), len(patches))
    return CalibrationTiles(compiled, patches, image_tokens, deepstack, tuple(answers))


def vision_features(vision: Engine, patches: Floats, batch: int = TILES_A_CALL) -> tuple[Floats, Floats]:
    """image_tokens [tiles, T, H] and deepstack [tiles, D, T, H] of patches [tiles, N, features]."""
    runs = [
        vision.run({"patches": patches[start : start + batch]}) for start in range(0, len(patches), batch)
    ]
    image_tokens = np.concatenate([run["image_tokens"] for run in runs])
    return image_tokens, np.concatenate([run["deepstack"] for run in runs])


def vision_feeds(tiles: Sequence[CalibrationTiles]) -> list[Feed]:
    """Feeds of vision.onnx."""
    return [{"patches": one.patches[batch]} for one in tiles for batch in _batches(len(one.patches))]


def attributes_feeds(tiles: Sequence[CalibrationTiles]) -> list[Feed]:
    """Feeds of attributes.onnx."""
    return [
        {"image_tokens": one.image_tokens[batch], "deepstack": one.deepstack[batch]}
        for one in tiles
        for batch in _batches(len(one.patches))
    ]


def decoder_feeds(
    tiles: Sequence[CalibrationTiles], shape: ModelShape, embeddings: npt.NDArray[Any]
) -> list[Feed]:
    """Feeds of decoder.onnx: image, suffix and answer of each tile in one pass behind the prefix."""
    return [
        _decoder_feed(one, range(len(one.patches))[batch], shape, embeddings)
        for one in tiles
        for batch in _batches(len(one.patches))
    ]


def _decoder_feed(
    one: CalibrationTiles, indices: range, shape: ModelShape, embeddings: npt.NDArray[Any]
) -> MaskedFeed:
    """One ragged batch, padded on the left as on the device."""
    compiled = one.compiled
    # the last token of an answer is never fed: nothing is asked after it
    texts = [[*compiled.suffix_ids, *one.answers[index].ids[:-1]] for index in indices]
    counts = [shape.tokens + len(text) for text in texts]
    rows, columns = len(texts), max(counts)
    embeds = np.zeros((rows, columns, shape.hidden), np.float32)
    deepstack = np.zeros((rows, len(shape.deepstack), columns, shape.hidden), np.float32)
    positions = np.zeros((rows, 3, columns), np.int64)
    counted = np.zeros((rows, columns), np.bool_)
    for row, (index, text) in enumerate(zip(indices, texts, strict=True)):
        first, behind_image = columns - counts[row], columns - len(text)
        embeds[row, first:behind_image] = one.image_tokens[index]
        embeds[row, behind_image:] = embeddings[text]
        deepstack[row, :, first:behind_image] = one.deepstack[index]
        segments: list[Segment] = [shape.token_grid_hw, len(text)]
        positions[row, :, first:], _ = positions_for_segments(segments, compiled.next_position)
        counted[row, first:] = True
    cos, sin = mrope_cos_sin(positions, shape)
    prefix = compiled.prefix_kv.shape[3]
    inputs = {
        "embeds": embeds,
        "deepstack": deepstack,
        "cos": cos,
        "sin": sin,
        "past_kv": np.repeat(compiled.prefix_kv[None], rows, axis=0),
        "mask": mask_for([prefix] * rows, counts, prefix, columns),
    }
    return MaskedFeed(inputs, counted)


def _batches(count: int) -> Iterator[slice]:
    return (slice(start, min(start + TILES_A_FEED, count)) for start in range(0, count, TILES_A_FEED))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indices of 0..count-1, evenly spread."""
    if count <= most:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, most).round()]
