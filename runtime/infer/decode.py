"""Guided greedy decoding of many tiles at once, with as few decoder passes as the recipe's guide allows.

A row is one tile's sequence: prefix (stored keys and values) | image tokens | suffix | answer, where further
pictures of the tile (a template's, a clip's) stand before the suffix with their own text between. One row in
one decoder call is a row-pass, prefill included. A pass always ends where the model has a choice; tokens
that the guide forces join the next pass of their row, and those behind the last choice are never run at
all. Rows that have ended leave the batch. What a row answers does not depend on the rows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import EngineError
from .engines.engine import Engine, FloatArray, check_finite
from .engines.past import Past, most_rows_of, past_for
from .sequence import TokenRun, mask_for, mrope_cos_sin, positions_for_segments, run_from_pictures
from .shape import ModelShape

if TYPE_CHECKING:
    from .bundle import CompiledRecipe


MOST_ROWS = 16
"""Rows in one decoder call, where their attention scores allow as many."""


@dataclass(frozen=True)
class Decision:
    """One choice of the model: which answer token it is, and its probability among the tokens the guide
    allowed.
    """

    index: int
    probability: float


@dataclass(frozen=True)
class Answer:
    """The tokens of one tile's answer, end token included, and the choices among them.

    `is_cut`: the token budget ended it; a cut answer says nothing, least of all that the tile is clean.
    """

    ids: tuple[int, ...]
    decisions: tuple[Decision, ...]
    row_passes: int
    is_cut: bool


@dataclass(frozen=True)
class Decoded:
    """The answers in the order of the tiles, and what they cost."""

    answers: tuple[Answer, ...]
    row_passes: int = 0
    engine_calls: int = 0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass
class _Row:
    """One sequence under way: where the guide stands, what the next pass must feed, what was answered so
    far.
    """

    tile: int
    state: int
    position: int
    pending: list[int]
    ids: list[int]
    decisions: list[Decision] = field(default_factory=list)
    row_passes: int = 0


Select = Callable[[int, "np.ndarray[tuple[int, ...], np.dtype[np.float64]]"], int]
"""(tile, logits of the allowed tokens [edges]) -> which of them is taken."""


def likeliest(tile: int, logits: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> int:
    """Greedy, the device's rule; the accuracy gate records here, or leads along an answer given before."""
    return int(np.argmax(logits))


def rows_a_call(compiled: CompiledRecipe, shape: ModelShape) -> int:
    """Rows in one decoder call whose attention scores stay within the recipe's attention_mb, at least 1."""
    recipe, past = compiled.recipe, len(compiled.prefix_ids)
    texts = sum(map(len, compiled.between_ids)) + len(compiled.suffix_ids)
    scores = shape.decoder_scores_bytes(recipe.pictures * shape.tokens + texts, past)
    return max(1, min(MOST_ROWS, (recipe.tiling.attention_mb << 20) // scores))


class Decoder:
    """Answers tiles with one recipe. Holds references only: the engines belong to whoever opened them."""

    def __init__(
        self,
        shape: ModelShape,
        recipe: CompiledRecipe,
        embeddings: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
        decoder: Engine,
        head: Engine,
        *,
        clock: Callable[[], float],
        max_rows: int | None = None,
        select: Select = likeliest,
    ) -> None:
        """`embeddings` [vocab, H]; `clock` in seconds; `max_rows` tiles share a decoder call, None: as many
        as the recipe's attention_mb allows, up to MOST_ROWS; `select` decides, a tile counted within one call
        of `answers`.
        """
        self._shape, self._compiled, self._guide = shape, recipe, recipe.guide
        self._embeddings, self._decoder, self._head = embeddings, decoder, head
        self._clock, self._select = clock, select
        most = rows_a_call(recipe, shape) if max_rows is None else max_rows
        self.max_rows = min(most, most_rows_of(decoder))
        self._suffix = self._embedded(recipe.suffix_ids)
        self._between = [self._embedded(ids) for ids in recipe.between_ids]

    def answers(self, image_tokens: FloatArray, deepstack: FloatArray, first_tile: int = 0) -> Decoded:
        """Answer every tile: image_tokens [tiles, pictures * T, H], deepstack [tiles, D, pictures * T, H].

        `first_tile`: where `select` begins to count, for a part that is answered in several calls.

        EngineError when an engine fails or a logit is not a number.
        """
        answers: list[Answer] = []
        calls, prefill_ms, decode_ms = 0, 0.0, 0.0
        for first in range(0, len(image_tokens), self.max_rows):
            batch = slice(first, first + self.max_rows)
            decoded = self._batch(image_tokens[batch], deepstack[batch], first_tile + first)
            answers += decoded.answers
            calls += decoded.engine_calls
            prefill_ms += decoded.prefill_ms
            decode_ms += decoded.decode_ms
        passes = sum(answer.row_passes for answer in answers)
        return Decoded(tuple(answers), passes, calls, prefill_ms, decode_ms)

    def _batch(self, image_tokens: FloatArray, deepstack: FloatArray, first: int) -> Decoded:
        forced, state = self._guide.forced_run(self._guide.start)
        feeds = [
            self._first_feed(image, features, forced)
            for image, features in zip(image_tokens, deepstack, strict=True)
        ]
        first_length = len(feeds[0].embeds)
        position = int(feeds[0].positions[0, -1]) + 1  # the suffix is text, one position a token
        rows = [_Row(first + tile, state, position, [], list(forced)) for tile in range(len(feeds))]
        if not self._guide.is_choice(state):  # a recipe whose only answer is forced: nothing to ask the model
            return Decoded(tuple(self._closed(row) for row in rows))
        prefix_kv = self._compiled.prefix_kv
        capacity = prefix_kv.shape[3] + first_length + self._compiled.recipe.token_budget
        past = past_for(self._decoder, self._shape, prefix_kv, len(rows), capacity)
        answers: dict[int, Answer] = {}
        calls, started, prefill_ms = 0, self._clock(), 0.0
        while rows:
            logits = self._pass(rows, feeds, past)
            calls += 2
            if not prefill_ms:
                prefill_ms = (self._clock() - started) * 1e3
            for row, row_logits in zip(rows, logits, strict=True):
                self._choose(row, row_logits)
            for index in reversed(range(len(rows))):
                if self._has_ended(rows[index]):
                    answers[rows[index].tile] = self._closed(rows[index])
                    past.drop(index)
                    rows[index] = rows[-1]
                    rows.pop()
            feeds = [self._next_feed(row) for row in rows]
        decode_ms = (self._clock() - started) * 1e3 - prefill_ms
        return Decoded(tuple(answers[tile] for tile in sorted(answers)), 0, calls, prefill_ms, decode_ms)

    def _pass(self, rows: Sequence[_Row], feeds: Sequence[TokenRun], past: Past) -> FloatArray:
        """One decoder call over ragged rows; returns the kept logits [rows, kept] behind each row's last
        token.
        """
        for row in rows:
            if not self._guide.is_choice(row.state):
                raise EngineError(f"tile {row.tile}: a decoder pass for forced tokens only; please report it")
            row.row_passes += 1
        counts = [len(feed.embeds) for feed in feeds]
        columns, width = max(counts), self._shape.hidden
        embeds = np.zeros((len(rows), columns, width), np.float32)
        deepstack = np.zeros((len(rows), len(self._shape.deepstack), columns, width), np.float32)
        positions = np.zeros((len(rows), 3, columns), np.int64)
        for index, feed in enumerate(feeds):  # padding stands on the left
            embeds[index, columns - counts[index] :] = feed.embeds
            positions[index, :, columns - counts[index] :] = feed.positions
            if feed.deepstack is not None:
                deepstack[index, :, columns - counts[index] :] = feed.deepstack
        cos, sin = mrope_cos_sin(positions, self._shape)
        mask = mask_for(past.lengths, counts, past.slots, columns)
        feeds_of_pass = {"embeds": embeds, "deepstack": deepstack, "cos": cos, "sin": sin, "mask": mask}
        final = past.step(self._decoder, feeds_of_pass, counts)  # [rows, K, H]
        logits = self._head.run({"hidden": np.ascontiguousarray(final[:, -1])})["logits"]
        check_finite(logits, "the decoder's logits")
        return logits

    def _choose(self, row: _Row, logits: FloatArray) -> None:
        """Take the selected token of those that the guide allows, and with it the forced run behind it."""
        choice = self._guide.choice(row.state)
        allowed = logits[choice.rows].astype(np.float64)
        best = self._select(row.tile, allowed)
        probability = float(1.0 / np.exp(allowed - allowed[best]).sum())
        forced, state = self._guide.forced_run(int(choice.next_states[best]))
        row.decisions.append(Decision(len(row.ids), probability))
        row.pending = [int(choice.token_ids[best]), *forced]
        row.ids += row.pending
        row.state = state

    def _has_ended(self, row: _Row) -> bool:
        return row.state == self._guide.terminal or len(row.ids) > self._compiled.recipe.token_budget

    def _closed(self, row: _Row) -> Answer:
        # An answer that reaches its end token is whole, also when its last forced tokens pass the budget.
        is_cut = row.state != self._guide.terminal
        return Answer(tuple(row.ids), tuple(row.decisions), row.row_passes, is_cut)

    def _first_feed(self, image: FloatArray, features: FloatArray, forced: Sequence[int]) -> TokenRun:
        """All pictures of a tile, [pictures * T, H] with their DeepStack features [D, pictures * T, H], the
        texts between them, the suffix and the first forced tokens.
        """
        last = np.concatenate([self._suffix, self._embedded(forced)])
        return run_from_pictures(
            image,
            features,
            [*self._between, last],
            self._shape.token_grid_hw,
            self._compiled.next_position,
        )

    def _next_feed(self, row: _Row) -> TokenRun:
        positions, row.position = positions_for_segments([len(row.pending)], row.position)
        return TokenRun(self._embedded(row.pending), None, positions)

    def _embedded(self, ids: Sequence[int]) -> FloatArray:
        """[len(ids), H] float32, whatever the embeddings are stored in."""
        return np.asarray(self._embeddings[np.asarray(ids, np.int64)], dtype=np.float32).reshape(
            len(ids), self._shape.hidden
        )
