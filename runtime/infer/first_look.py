"""Vision encoder and dense head over the tiles of a part, a chunk of tiles at a time.

A chunk goes the whole way, pixels -> patches -> features -> votes, before the next one is cut, so that memory
is that of one chunk however many tiles a picture has: 100 tiles of 128 px are 40 MB of patches, and twelve
megapixels have thousands. What the decoder needs is held of the tiles that it may be asked about, no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..recipe import Recipe
from .candidates import Candidate, dense_candidates
from .engines.engine import Engine, FloatArray, check_finite
from .pictures.register import ByteArray
from .pictures.tiles import Tile
from .pictures.views import View, features_from_patches, last_picture, patches_from_view, pictures_a_call
from .shape import ModelShape

CHUNK_BYTES = 64 << 20
"""Pixels, patches and features of one chunk take about this much, or what one call of the encoder takes."""


@dataclass(frozen=True)
class Seen:
    """Some tiles as seen: `first` is the index of the first one in its part.

    features: image_tokens [tiles, pictures * T, H] and deepstack [tiles, D, pictures * T, H]; candidates: the
    dense head's in tile order, their `tile` counted in the part; none without a dense head.
    """

    first: int
    features: dict[str, FloatArray]
    candidates: list[Candidate]
    engine_calls: int


class FirstLook:
    """Sees tiles for one recipe. Holds references only: the engines belong to whoever opened them."""

    def __init__(
        self,
        vision: Engine,
        attributes: Engine | None,
        recipe: Recipe,
        shape: ModelShape,
        columns: Sequence[int],
        clock: Callable[[], float],
    ) -> None:
        """`attributes` None: no dense head; `columns`: its output column of each of the recipe's types;
        `clock` in seconds.
        """
        self._vision, self._attributes, self._recipe = vision, attributes, recipe
        self._shape, self._columns, self._clock = shape, tuple(columns), clock
        self.tiles_a_chunk = tiles_a_chunk(recipe, shape)

    def chunks(self, view: View, timings: dict[str, float]) -> Iterator[Seen]:
        """Every tile of a part in order; milliseconds of preprocess, vision and dense are added to `timings`.

        EngineError when an engine fails or gives numbers that are not finite.
        """
        for first in range(0, len(view.tiles), self.tiles_a_chunk):
            started = self._clock()
            indices = range(first, min(first + self.tiles_a_chunk, len(view.tiles)))
            pixels = view.cut(indices)
            timings["preprocess"] += (self._clock() - started) * 1e3
            tiles = view.tiles[first : first + self.tiles_a_chunk]
            yield self.see(tiles, pixels, view.picture_wh, timings, first)

    def see(
        self,
        tiles: Sequence[Tile],
        pixels: ByteArray,
        picture_wh: tuple[int, int],
        timings: dict[str, float],
        first: int = 0,
    ) -> Seen:
        """Tiles and their pixels [tiles, pictures, 3, 2, S, S]; timings and errors as in `chunks`."""
        started = self._clock()
        patches = patches_from_view(pixels, self._shape.patch_px, self._shape.merge)
        middle = self._clock()
        features, calls = features_from_patches(
            self._vision, patches, self._shape, pictures_a_call(self._recipe, self._shape)
        )
        for name, array in features.items():
            check_finite(array, f"the vision encoder's {name}")
        timings["preprocess"] += (middle - started) * 1e3
        timings["vision"] += (self._clock() - middle) * 1e3
        candidates = self._votes(tiles, features, picture_wh, timings)
        if first:
            candidates = [replace(one, tile=one.tile + first) for one in candidates]
        return Seen(first, features, candidates, calls + (self._attributes is not None))

    def _votes(
        self,
        tiles: Sequence[Tile],
        features: dict[str, FloatArray],
        picture_wh: tuple[int, int],
        timings: dict[str, float],
    ) -> list[Candidate]:
        """The dense head's candidates in the recipe's types. It votes on the last picture of a tile: the part
        beside its template, the newest frames of a clip.
        """
        if self._attributes is None:
            return []
        started = self._clock()
        tiling, thresholds = self._recipe.tiling, self._recipe.thresholds
        candidates = dense_candidates(
            tiles,
            self._attributes.run(last_picture(features, self._shape.tokens)),
            columns=self._columns,
            tile_px=tiling.tile_px,
            cell_px=self._shape.token_px,
            limit=thresholds.candidate,
            picture_wh=picture_wh,
            nms_iou=thresholds.nms_iou,
        )
        timings["dense"] += (self._clock() - started) * 1e3
        return candidates


class HeldFeatures:
    """Features of the tiles that may reach the decoder, copied out of their chunks."""

    def __init__(self) -> None:
        self._tiles: dict[int, dict[str, FloatArray]] = {}

    def __len__(self) -> int:
        return len(self._tiles)

    def hold(self, seen: Seen, tiles: Iterable[int]) -> None:
        """Copy the features of these tiles of the part; the rest of the chunk may go."""
        for tile in set(tiles):
            place = tile - seen.first
            self._tiles[tile] = {name: array[place].copy() for name, array in seen.features.items()}

    def taken(self, tiles: Sequence[int]) -> dict[str, FloatArray]:
        """The features of some held tiles, at least one, as the decoder takes them; they are held no more."""
        chosen = [self._tiles.pop(tile) for tile in tiles]
        return {name: np.stack([one[name] for one in chosen]) for name in chosen[0]}


def tiles_a_chunk(recipe: Recipe, shape: ModelShape) -> int:
    """Tiles whose pixels, patches and features take about CHUNK_BYTES, in whole calls of the encoder."""
    pixels = 3 * shape.temporal_patch * recipe.tiling.tile_px**2
    features = 4 * shape.tokens * shape.hidden * (1 + len(shape.deepstack))
    tile = recipe.pictures * (pixels + 4 * shape.patches * shape.patch_features + features)
    a_call = max(1, pictures_a_call(recipe, shape) // recipe.pictures)
    return max(CHUNK_BYTES // tile // a_call, 1) * a_call
