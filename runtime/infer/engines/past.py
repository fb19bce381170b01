"""Keys and values of the tokens that a batch of rows has behind it, in the host's memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import EngineError
from ..sequence import store_new_kv
from ..shape import ModelShape
from .engine import FloatArray

BUCKET = 32
"""Past slots grow in steps of this many tokens, so that an engine sees few different shapes."""


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
