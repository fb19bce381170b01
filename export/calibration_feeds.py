"""Calibration pictures to the inputs that each float graph really gets on the device.

Tiles are cut, registered and gated as the inspector does it, and the float model answers them itself. What it
wrote is then fed again in one pass behind the recipe's prefix (teacher forcing). The prefix stays in the past
and padding is masked out, so that neither counts in the ranges.

At the size of a 2B model the inputs of one component are gigabytes. So pictures stay bytes, what the vision
encoder made of them may lie in a memory-mapped file, and a feed is built when it is asked for.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ..calibration.ranges import Progress
from ..calibration.sessions import Feed, MaskedFeed
from ..evaluation.sets.scene_rows import SCENE_PREFIX
from ..evaluation.sets.source import rows_from_source
from ..runtime.errors import DataSetError
from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.decode import Answer, Decision, Decoder
from ..runtime.infer.engines.engine import Engine
from ..runtime.infer.pictures.views import (
    features_from_patches,
    last_picture,
    patches_from_view,
    pictures_a_call,
    view_from_frame,
)
from ..runtime.infer.sequence import mask_for, mrope_cos_sin, run_from_pictures
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


class TilePatches:
    """Patches of tiles, [tiles, pictures * N, features] float32 where they are indexed, bytes where they lie.

    `pixels` [tiles, pictures, 3, 2, S, S] uint8; `names`: the rows of the source that the tiles are from.
    """

    def __init__(self, pixels: npt.NDArray[np.uint8], shape: ModelShape, names: Sequence[str] = ()) -> None:
        self.pixels, self.names = pixels, tuple(names)
        self._shape = shape

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, chosen: slice | npt.NDArray[np.int64] | list[int]) -> Floats:
        return patches_from_view(self.pixels[chosen], self._shape.patch_px, self._shape.merge)


class FeedList(Sequence[Feed]):
    """Feeds that are built on `feeds[i]` and kept by nobody."""

    def __init__(self, builders: Sequence[Callable[[], Feed]]) -> None:
        self._builders = tuple(builders)

    def __len__(self) -> int:
        return len(self._builders)

    @overload
    def __getitem__(self, index: int) -> Feed: ...

    @overload
    def __getitem__(self, index: slice) -> FeedList: ...

    def __getitem__(self, index: int | slice) -> Feed | FeedList:
        if isinstance(index, slice):
            return FeedList(self._builders[index])
        return self._builders[index]()


@dataclass(frozen=True)
class CalibrationTiles:
    """Tiles of one recipe and what the float model makes of them."""

    compiled: CompiledRecipe
    patches: TilePatches | Floats  # [tiles, pictures * N, patch features]
    image_tokens: Floats  # [tiles, pictures * T, H]
    deepstack: Floats  # [tiles, D, pictures * T, H]
    answers: tuple[Answer, ...]


def patches_from_source(
    source: str, recipe: Recipe, shape: ModelShape, say: Progress, *, parts: int = PARTS, tiles: int = TILES
) -> TilePatches:
    """At most `tiles` tiles that pass the gate, spread over at most `parts` parts of `source`.

    `source` is a DeepPCB folder (its training boards), scenes:pcb?seed=..., or a folder of pictures: `X_test`
    beside `X_temp`, parts alone for mode single, frames in order for mode clip. DataSetError when no tile of
    it passes the gate.
    """
    rows = rows_from_source(
        source,
        split=None if source.startswith(SCENE_PREFIX) else "train",
        box_margin_px=recipe.box_margin_px,
        unlabelled=True,
        clip_frames=recipe.clip.frames if recipe.mode == "clip" else 1,
    )
    if not source.startswith(SCENE_PREFIX):  # of a small folder something is left for the gate to look at
        parts = min(parts, max(1, len(rows) * 3 // 4))
    chosen = [rows[index] for index in _spread(len(rows), parts)]
    found: list[npt.NDArray[np.uint8]] = []
    names: list[str] = []
    for index, row in enumerate(chosen):
        say("calibration pictures", index, len(chosen))
        view = view_from_frame(recipe, row.read().frame(index + 1))
        kept = _spread(len(view.tiles), -(-tiles // len(chosen)))
        if kept:
            found.append(view.cut(kept))
            names.append(row.name)
    say("calibration pictures", len(chosen), len(chosen))
    if not found:
        raise DataSetError(
            f"calibration source {source}: no tile of {len(chosen)} parts differs from its template;"
            " give pictures that contain defects"
        )
    return TilePatches(np.concatenate(found)[:tiles], shape, names)


def tiles_from_patches(
    patches: TilePatches | Floats,
    compiled: CompiledRecipe,
    shape: ModelShape,
    engines: EngineSet,
    embeddings: npt.NDArray[Any],
    say: Progress,
    *,
    work: Path | None = None,
) -> CalibrationTiles:
    """Run the float vision graph, and the decoder greedily under the guide, over `patches`.

    With `work` the features lie in `work`/<recipe>.image_tokens.npy and .deepstack.npy instead of memory.
    """
    decoder = Decoder(shape, compiled, embeddings, engines.decoder, engines.head, clock=time.perf_counter)
    count, tokens = len(patches), compiled.recipe.pictures * shape.tokens
    image_tokens = _room(work, f"{compiled.recipe.id}.image_tokens", (count, tokens, shape.hidden))
    stacked = (count, len(shape.deepstack), tokens, shape.hidden)
    deepstack = _room(work, f"{compiled.recipe.id}.deepstack", stacked)
    answers: list[Answer] = []
    for start in range(0, count, TILES_A_CALL):
        say("calibration answers", start, count)
        batch = slice(start, start + TILES_A_CALL)
        features, _ = features_from_patches(
            engines.vision, patches[batch], shape, pictures_a_call(compiled.recipe, shape)
        )
        image_tokens[batch], deepstack[batch] = features["image_tokens"], features["deepstack"]
        answers += decoder.answers(features["image_tokens"], features["deepstack"]).answers
    say("calibration answers", count, count)
    return CalibrationTiles(compiled, patches, image_tokens, deepstack, tuple(answers))


def vision_feeds(tiles: Sequence[CalibrationTiles]) -> FeedList:
    """Feeds of vision.onnx; every picture of a tile is a row."""
    return _feeds(tiles, _vision_feed)


def attributes_feeds(tiles: Sequence[CalibrationTiles]) -> FeedList:
    """Feeds of attributes.onnx: the last picture of every tile."""
    return _feeds(tiles, _attributes_feed)


def decoder_feeds(
    tiles: Sequence[CalibrationTiles], shape: ModelShape, embeddings: npt.NDArray[Any]
) -> FeedList:
    """Feeds of decoder.onnx: pictures, suffix and answer of each tile in one pass behind the prefix."""
    return _feeds(tiles, partial(_decoder_feed, shape=shape, embeddings=embeddings))


def _feeds(tiles: Sequence[CalibrationTiles], build: Callable[[CalibrationTiles, range], Feed]) -> FeedList:
    return FeedList([partial(build, one, batch) for one in tiles for batch in _batches(one)])


def _vision_feed(one: CalibrationTiles, indices: range) -> Feed:
    patches = one.patches[indices.start : indices.stop]
    pictures = one.compiled.recipe.pictures
    return {"patches": patches.reshape(len(indices) * pictures, -1, patches.shape[-1])}


def _attributes_feed(one: CalibrationTiles, indices: range) -> Feed:
    batch = slice(indices.start, indices.stop)
    tokens = one.image_tokens.shape[1] // one.compiled.recipe.pictures
    return last_picture({"image_tokens": one.image_tokens[batch], "deepstack": one.deepstack[batch]}, tokens)


def _decoder_feed(
    one: CalibrationTiles, indices: range, shape: ModelShape, embeddings: npt.NDArray[Any]
) -> MaskedFeed:
    """One ragged batch, padded on the left as on the device."""
    compiled = one.compiled

    def embedded(ids: Sequence[int]) -> Floats:
        return np.asarray(embeddings[list(ids)], np.float32).reshape(len(ids), shape.hidden)

    between = [embedded(ids) for ids in compiled.between_ids]
    runs = [
        run_from_pictures(
            one.image_tokens[index],
            one.deepstack[index],
            # the last token of an answer is never fed: nothing is asked after it
            [*between, embedded([*compiled.suffix_ids, *one.answers[index].ids[:-1]])],
            shape.token_grid_hw,
            compiled.next_position,
        )
        for index in indices
    ]
    counts = [len(run.embeds) for run in runs]
    rows, columns = len(runs), max(counts)
    embeds = np.zeros((rows, columns, shape.hidden), np.float32)
    deepstack = np.zeros((rows, len(shape.deepstack), columns, shape.hidden), np.float32)
    positions = np.zeros((rows, 3, columns), np.int64)
    counted = np.zeros((rows, columns), np.bool_)
    for row, run in enumerate(runs):
        first = columns - counts[row]
        embeds[row, first:] = run.embeds
        deepstack[row, :, first:] = run.deepstack
        positions[row, :, first:] = run.positions
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


def tiles_from_folder(
    work: Path, patches: TilePatches, compiled: CompiledRecipe, answers: Sequence[Mapping[str, Any]]
) -> CalibrationTiles:
    """What `tiles_from_patches` left in `work`; `answers` as `answers_to_json` noted them."""
    features = [
        np.load(work / f"{compiled.recipe.id}.{name}.npy", mmap_mode="r", allow_pickle=False)
        for name in ("image_tokens", "deepstack")
    ]
    return CalibrationTiles(compiled, patches, features[0], features[1], tuple(map(_answer, answers)))


def answers_to_json(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Answers as plain JSON values."""
    return [dataclasses.asdict(answer) for answer in answers]


def _answer(document: Mapping[str, Any]) -> Answer:
    decisions = tuple(Decision(**decision) for decision in document["decisions"])
    return Answer(tuple(document["ids"]), decisions, document["row_passes"], document["is_cut"])


def surest_tiles(tiles: CalibrationTiles, most: int = TILES_A_FEED) -> CalibrationTiles:
    """The tiles of one feed whose least sure choice is the surest; whole answers that say something first."""
    count = max(1, most // tiles.compiled.recipe.pictures)

    def doubt(index: int) -> tuple[bool, bool, float]:
        answer = tiles.answers[index]
        least = min((one.probability for one in answer.decisions), default=0.0)
        return answer.is_cut, len(answer.decisions) < 2, -least

    chosen = sorted(sorted(range(len(tiles.answers)), key=doubt)[:count])
    return CalibrationTiles(
        tiles.compiled,
        tiles.patches[chosen],
        np.asarray(tiles.image_tokens[chosen]),
        np.asarray(tiles.deepstack[chosen]),
        tuple(tiles.answers[index] for index in chosen),
    )


def _room(work: Path | None, name: str, size: tuple[int, ...]) -> Floats:
    """Space for an array of this size, in memory or in a file of `work`."""
    if work is None:
        return np.zeros(size, np.float32)
    work.mkdir(parents=True, exist_ok=True)
    return np.lib.format.open_memmap(work / f"{name}.npy", "w+", np.dtype(np.float32), size)


def _batches(one: CalibrationTiles) -> Iterator[range]:
    """Tiles of each feed: as many pictures in every feed, whatever a tile shows."""
    count, step = len(one.patches), max(1, TILES_A_FEED // one.compiled.recipe.pictures)
    return (range(start, min(start + step, count)) for start in range(0, count, step))


def _spread(count: int, most: int) -> list[int]:
    """At most `most` indices of 0..count-1, evenly spread."""
    if count <= most:
        return list(range(count))
    return [int(index) for index in np.linspace(0, count - 1, most).round()]
