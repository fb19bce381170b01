"""Keys and values of the tokens that a batch of rows has behind it: what every past promises, and the one in
the host's memory.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from ...errors import EngineError
from ..sequence import store_new_kv
from ..shape import ModelShape
from .engine import Engine, FloatArray

BUCKET = 32
"""Past slots grow in steps of this many tokens, so that an engine sees few different shapes."""


class Past(Protocol):
    """Where a batch's keys and values lie, on the host or on the device; the decoder loop knows no more."""

    @property
    def lengths(self) -> list[int]:
        """Tokens behind each row."""

    @property
    def slots(self) -> int:
        """Columns of the past that the next pass sees, filled or stale; the mask's first columns."""

    def step(self, engine: Engine, feeds: Mapping[str, FloatArray], counts: Sequence[int]) -> FloatArray:
        """One decoder call over this past; hidden [rows, K, H].

        `feeds` are the decoder's inputs without past_kv; the keys and values of row r's last counts[r]
        columns are stored behind it. EngineError when the engine fails or the past is full.
        """

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place, so the caller must do the same to its list."""


@runtime_checkable
class KeepsPast(Protocol):
    """An engine that keeps the past in its own memory."""

    @property
    def most_rows(self) -> int:
        """The largest batch that it takes."""

    def past(self, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int) -> Past:
        """As `past_for`."""


def past_for(engine: Engine, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int) -> Past:
    """The past of `rows` rows that all begin with prefix_kv [layers, 2, kv_heads, P0, head_dim], where the
    engine wants it; `capacity` is the longest past in tokens.
    """
    if isinstance(engine, KeepsPast):
        return engine.past(shape, prefix_kv, rows, capacity)
    return PastBuffer(shape, prefix_kv, rows, capacity)


def most_rows_of(engine: Engine) -> int:
    """The largest batch that an engine takes in one call; one that keeps no past takes any."""
    return int(engine.most_rows) if isinstance(engine, KeepsPast) else sys.maxsize


class PastBuffer:
    """Keys and values of a batch: one allocation, seen as [rows, layers, 2, kv_heads, slots, head_dim].

    `slots` starts at the bucket that holds the prefix and grows bucket by bucket inside the same memory;
    rows that leave shrink the view. Slots behind a row's length are stale or zero and masked.
    """

    def __init__(self, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int) -> None:
        """prefix_kv [layers, 2, kv_heads, P0, head_dim] is copied into every row; `capacity` is the longest
        past.
        """
        prefix = prefix_kv.shape[3]
        self._shape = shape
        self._capacity = bucket_of(max(capacity, prefix))
        self._memory = np.zeros(int(np.prod(shape.past_kv_shape(rows, self._capacity))), np.float32)
        self.lengths = [prefix] * rows
        self.view = self._seen(rows, bucket_of(prefix))
        self.view[:, :, :, :, :prefix] = prefix_kv

    @property
    def slots(self) -> int:
        """Columns of the view."""
        return int(self.view.shape[4])

    def step(self, engine: Engine, feeds: Mapping[str, FloatArray], counts: Sequence[int]) -> FloatArray:
        """One decoder call over this past; hidden [rows, K, H]."""
        outputs = engine.run({**feeds, "past_kv": self.view})
        self.store(outputs["new_kv"], counts)
        return outputs["hidden"]

    def store(self, new_kv: FloatArray, counts: Sequence[int]) -> None:
        """Place the last counts[row] columns of new_kv [rows, layers, 2, kv_heads, K, head_dim] behind each
        past.
        """
        needed = max(length + count for length, count in zip(self.lengths, counts, strict=True))
        if needed > self.view.shape[4]:
            self._grow(bucket_of(needed))
        store_new_kv(self.view, new_kv, self.lengths, counts)
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place, so the caller must do the same to its list."""
        last = len(self.lengths) - 1
        if row != last:
            self.view[row] = self.view[last]
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        self.view = self._seen(last, self.view.shape[4])

    def _seen(self, rows: int, slots: int) -> FloatArray:
        dimensions = self._shape.past_kv_shape(rows, slots)
        return self._memory[: int(np.prod(dimensions))].reshape(dimensions)

    def _grow(self, slots: int) -> None:
        if slots > self._capacity:
            raise EngineError(
                f"a row needs {slots} past slots of {self._capacity}; raise the recipe's token_budget"
            )
        rows, before = len(self.lengths), self.view
        grown = self._seen(rows, slots)
        # Last row first: a grown row covers only memory of itself and of rows that have moved already.
        for row in reversed(range(rows)):
            kept = before[row].copy()
            grown[row] = 0.0
            grown[row, :, :, :, : kept.shape[3]] = kept
        self.view = grown


def bucket_of(slots: int) -> int:
    """The smallest positive multiple of BUCKET that holds `slots`."""
    return max(1, -(-slots // BUCKET)) * BUCKET
