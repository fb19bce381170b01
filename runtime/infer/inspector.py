"""One part to candidate defects: tiles, vision, dense head, guided decoder, and the two detectors joined.

Where the checkpoint has no dense head the words look at every tile and report alone, by their own threshold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import BundleError, RecipeError, UsageError
from ..recipe import Recipe
from .bundle import Bundle, CompiledRecipe
from .candidates import Candidate, Words, words_from_answers
from .decode import Decoded, Decoder, Select, likeliest
from .engines.engine import Engine, FloatArray, OpenEngine, engine_from_bundle, engines_from_bundle
from .first_look import FirstLook, HeldFeatures
from .fuse import (
    DENSE_SLACK_PX,
    WORDS_SLACK_PX,
    CandidateDefect,
    defect_from_candidate,
    fused,
    is_near_owned,
    owned,
    strongest_unreported,
    tiles_to_decode,
)
from .golden_frames import Mismatch, check_golden, golden_components
from .inspection import Inspection, Passes
from .judgement import Judgement, judgement_of
from .pictures.tiles import Tile
from .pictures.views import View, view_from_frame
from .signals.novelty import NoveltyMeter, NoveltyModel
from .signals.second_look import SecondLook, second_look

if TYPE_CHECKING:
    from ..capture.frame import Frame

__all__ = ["CandidateDefect", "Inspection", "Inspector", "Passes"]

ByteArray = npt.NDArray[np.uint8]
DETECTORS = ("dense", "words")


class Inspector:
    """A bundle's engines, opened for one recipe; a context manager that closes them.

    Deterministic: the same frame gives the same inspection. Not thread-safe: one inspection at a time.
    """

    def __init__(
        self,
        bundle: Bundle,
        recipe_id: str | None = None,
        threads: int = 2,
        detectors: tuple[str, ...] | None = None,
        *,
        backend: str = "onnxruntime",
        plans: Path | None = None,
        clock: Callable[[], float] = time.perf_counter,
        open_engine: Callable[..., Engine] = engine_from_bundle,
        select: Select = likeliest,
        gated: bool = True,
        looks_again: bool = True,
    ) -> None:
        """`recipe_id` None: the bundle's first; `detectors`: dense, words or both, None: what the bundle
        has; `backend` and `plans` as in `engines_from_bundle`. BundleError, RecipeError or EngineError when
        bundle, recipe and detectors do not fit together. `open_engine` and `select` are for the accuracy
        gate, which listens. Not `gated`: the network sees every tile of the grid, whatever the recipe says.
        """
        self._bundle, self._compiled = bundle, bundle.recipe(recipe_id)
        if not gated:
            self._compiled = _ungated(self._compiled)
        if detectors is None:
            detectors = DETECTORS if bundle.dense_types else ("words",)
        self._detectors, self._clock = tuple(detectors), clock
        _check_fit(bundle, self._compiled, self._detectors)
        self._judgement = judgement_of(bundle, self.recipe.id)
        self._novelty = _novelty_model(self._judgement, bundle.shape.hidden)
        self._looks_again = looks_again and self.recipe.review.second_look and "dense" in self._detectors
        self._decoder: Decoder | None = None
        self._used, self._rows = _Used(), 1  # rows of one decoder call
        with ExitStack() as opened:
            engine = opened.enter_context(
                engines_from_bundle(
                    bundle, backend=backend, threads=threads, plans=plans, open_engine=open_engine
                )
            )
            vision = self._used.open("vision", engine)
            has_dense = "dense" in self._detectors
            self._look = FirstLook(
                vision,
                self._used.open("attributes", engine) if has_dense else None,
                self.recipe,
                bundle.shape,
                [bundle.dense_types.index(name) for name in self.recipe.types] if has_dense else [],
                clock,
            )
            if "words" in self._detectors:
                self._decoder = Decoder(
                    bundle.shape,
                    self._compiled,
                    bundle.embeddings,
                    self._used.open("decoder", engine),
                    self._used.open(f"head_schema.{self.recipe.id}", engine),
                    clock=clock,
                    select=select,
                )
                self._rows = self._decoder.max_rows
            self._engines = opened.pop_all()

    @property
    def recipe(self) -> Recipe:
        """The recipe that is inspected."""
        return self._compiled.recipe

    @property
    def judgement(self) -> Judgement:
        """What the bundle knows of this recipe's confidences and pictures, for the judge."""
        return self._judgement

    @property
    def detectors(self) -> tuple[str, ...]:
        """Who looks: dense, words or both."""
        return self._detectors

    def golden_mismatches(self) -> tuple[int, tuple[Mismatch, ...]]:
        """How many golden frames ran through the engines of this recipe, and what left its tolerance.

        EngineError when an engine fails, BundleError for a broken frame.
        """
        frames = [name for name in golden_components(self._bundle) if name in self._used]
        return len(frames), check_golden(self._bundle, self._used.__getitem__, frames)

    def inspect(self, frame: Frame) -> Inspection:
        """Inspect one frame: against its template, alone, or as the end of a clip, as the recipe says.

        PictureError when the template or the earlier frames are missing; EngineError when an engine fails or
        gives numbers that are not finite.
        """
        started = self._clock()
        view = view_from_frame(self.recipe, frame)
        timings = dict.fromkeys(("preprocess", "vision", "dense", "prefill", "decode"), 0.0)
        if not view.tiles:  # the gate found the part equal to its template
            timings["preprocess"] = (self._clock() - started) * 1e3
            return Inspection(
                (),
                (),
                (),
                (),
                timings,
                Passes(tiles=view.total, tiles_gated=view.total),
                None,
                novelty=NoveltyMeter(self._novelty).novelty,
            )
        timings["preprocess"] = (self._clock() - started) * 1e3
        meter = NoveltyMeter(self._novelty)
        dense, held, answered, calls = self._seen(view, timings, meter)
        chosen = tiles_to_decode(dense)
        for first in range(0, len(chosen) if self._decoder else 0, self._rows):
            tiles = chosen[first : first + self._rows]
            answered.append((tiles, self._answers(held.taken(tiles), timings, first)))
        words = self._words(view, answered, timings)
        again = self._again(view, dense, words, timings)
        passes = Passes(
            row_passes=sum(decoded.row_passes for _, decoded in answered),
            engine_calls=calls + again.engine_calls + sum(decoded.engine_calls for _, decoded in answered),
            tiles=view.total,
            tiles_gated=view.total - len(view.tiles),
            tiles_decoded=sum(len(tiles) for tiles, _ in answered),
            canonical_tokens=sum(len(one.ids) for _, decoded in answered for one in decoded.answers),
        )
        found = self._inspection(again.defects, dense, words, timings, passes)
        return replace(found, novelty=meter.novelty, looked_again=again.tiles)

    def _seen(
        self, view: View, timings: dict[str, float], meter: NoveltyMeter
    ) -> tuple[list[Candidate], HeldFeatures, list[tuple[list[int], Decoded]], int]:
        """Every tile looked at: the dense head's candidates that their tiles own, the features of the tiles
        that may hold one, and the calls. Without a dense head every tile is answered as it comes.
        """
        candidates: list[Candidate] = []
        held, calls = HeldFeatures(), 0
        answered: list[tuple[list[int], Decoded]] = []
        for seen in self._look.chunks(view, timings):
            calls += seen.engine_calls
            meter.see(seen.features["image_tokens"][:, -self._bundle.shape.tokens :])
            if "dense" in self._detectors:
                candidates += seen.candidates
                if self._decoder is not None:
                    held.hold(seen, self._asked_about(seen.candidates, view))
            elif self._decoder is not None:
                tiles = list(range(seen.first, seen.first + len(seen.features["image_tokens"])))
                answered.append((tiles, self._answers(seen.features, timings, seen.first)))
        if "dense" in self._detectors:
            started = self._clock()
            candidates = self._owned(candidates, view, DENSE_SLACK_PX)
            timings["dense"] += (self._clock() - started) * 1e3
        return candidates, held, answered, calls

    def _asked_about(self, candidates: Sequence[Candidate], view: View) -> list[int]:
        """Tiles that the decoder may be asked about: those with a candidate near what they own."""
        return [
            one.tile for one in candidates if is_near_owned(one, view.tiles[one.tile], DENSE_SLACK_PX)
        ]

    def _answers(
        self, features: dict[str, FloatArray], timings: dict[str, float], first: int = 0
    ) -> Decoded:
        """The decoder's answers for the tiles of these features."""
        assert self._decoder is not None
        started = self._clock()
        decoded = self._decoder.answers(features["image_tokens"], features["deepstack"], first)
        timings["prefill"] += decoded.prefill_ms
        timings["decode"] += (self._clock() - started) * 1e3 - decoded.prefill_ms
        return decoded

    def _words(
        self, view: View, answered: Sequence[tuple[list[int], Decoded]], timings: dict[str, float]
    ) -> Words:
        """The answers of some tiles, read, with the candidates that their tiles own."""
        started = self._clock()
        words = words_from_answers(
            [pair for tiles, decoded in answered for pair in zip(tiles, decoded.answers, strict=True)],
            view.tiles,
            self._compiled.vocabulary,
            self.recipe.types,
            coordinates=self.recipe.coordinates,
            tile_px=self.recipe.tiling.tile_px,
            picture_wh=view.picture_wh,
            token_budget=self.recipe.token_budget,
        )
        kept = self._owned(words.candidates, view, WORDS_SLACK_PX)
        timings["decode"] += (self._clock() - started) * 1e3
        return Words(tuple(kept), words.dropped, words.failures)

    def _owned(self, candidates: Sequence[Candidate], view: View, slack_px: float) -> list[Candidate]:
        tiling = self.recipe.tiling
        return owned(
            candidates,
            view.tiles,
            tile_px=tiling.tile_px,
            stride_px=tiling.stride_px,
            slack_px=slack_px,
            nms_iou=self.recipe.thresholds.nms_iou,
        )

    def _again(
        self, view: View, dense: list[Candidate], words: Words, timings: dict[str, float]
    ) -> SecondLook:
        """Both detectors joined, and the uncertain defects looked at again where the recipe wants it."""
        defects = fused(
            dense, words.candidates, self.recipe.types, self.recipe.thresholds, detectors=self._detectors
        )
        if not self._looks_again:
            return SecondLook(defects)

        def see(tiles: Sequence[Tile], pixels: ByteArray) -> tuple[list[Candidate], int]:
            seen = self._look.see(tiles, pixels, view.picture_wh, timings)
            return seen.candidates, seen.engine_calls

        return second_look(defects, view.tiles, view.cut, see)

    def _inspection(
        self,
        defects: tuple[CandidateDefect, ...],
        dense: list[Candidate],
        words: Words,
        timings: dict[str, float],
        passes: Passes,
    ) -> Inspection:
        types = self.recipe.types
        seen = (*dense, *words.candidates)
        return Inspection(
            defects=defects,
            dense=tuple(defect_from_candidate(candidate, types, "dense") for candidate in dense),
            words=tuple(defect_from_candidate(candidate, types, "words") for candidate in words.candidates),
            dropped=tuple(
                CandidateDefect(one.type, one.box_xyxy, one.confidence, "words", one.reason)
                for one in words.dropped
            ),
            timings_ms=timings,
            passes=passes,
            failed="; ".join(words.failures) or None,
            strongest_rejected=strongest_unreported(seen, defects, self.recipe.thresholds.nms_iou),
        )

    def close(self) -> None:
        """Free the engines; twice is fine."""
        self._engines.close()

    def __enter__(self) -> Inspector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Used(dict[str, Engine]):
    """The engines of one recipe by component."""

    def open(self, component: str, opener: OpenEngine) -> Engine:
        """Open and remember one."""
        self[component] = opener(component)
        return self[component]


def _ungated(compiled: CompiledRecipe) -> CompiledRecipe:
    recipe = compiled.recipe
    return replace(compiled, recipe=replace(recipe, gate=replace(recipe.gate, min_pixels=0)))


def _novelty_model(judgement: Judgement, hidden: int) -> NoveltyModel | None:
    return None if judgement.novelty is None else NoveltyModel.from_json(judgement.novelty, hidden)


def _check_fit(bundle: Bundle, compiled: CompiledRecipe, detectors: tuple[str, ...]) -> None:
    """Whatever would only fail on the first part is refused when the service starts."""
    recipe = compiled.recipe
    if not detectors or not set(detectors) <= set(DETECTORS):
        raise UsageError(f"detectors are {' and '.join(DETECTORS)}, got {list(detectors)}")
    if recipe.mode == "compare" and recipe.compare is None:
        raise BundleError(f"recipe {recipe.id} does not say how to compare; export the bundle again")
    if len(compiled.between_ids) != recipe.pictures - 1:
        raise BundleError(
            f"recipe {recipe.id} shows {recipe.pictures} pictures a tile, its prompt in the bundle has room"
            f" for {len(compiled.between_ids) + 1}; export the bundle again"
        )
    if recipe.template != "frame":
        raise RecipeError(f"recipe {recipe.id}: template = {recipe.template!r} cannot run yet; use 'frame'")
    if recipe.tiling.tile_px != bundle.shape.tile_px:
        raise BundleError(
            f"recipe {recipe.id} cuts tiles of {recipe.tiling.tile_px} px, the bundle's vision graph takes "
            f"{bundle.shape.tile_px} px; export it again with this recipe"
        )
    missing = [name for name in recipe.types if name not in bundle.dense_types]
    if "dense" in detectors and missing:
        raise BundleError(
            f"the bundle's dense head knows {', '.join(bundle.dense_types) or 'no type'}, not "
            f"{', '.join(missing)} of recipe {recipe.id}; inspect with the words alone"
        )
