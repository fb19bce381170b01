"""Keys and values of a batch in the GPU's memory, in the type of the engine's graph.

One allocation a decoder part, seen as [rows, layers, 2, kv_heads, slots, head_dim]: what one pass adds to a
row for all its layers is one strided copy, and going back is a smaller length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from ...errors import EngineError
from ..shape import ModelShape
from .device import CudaDevice, StridedCopy
from .engine import Engine, FloatArray
from .past import bucket_of
from .profile_choice import Profile, least_columns, left_padded


class ResidentEngine(Protocol):
    """What a past on the device needs of its engine."""

    device: CudaDevice
    profiles: tuple[Profile, ...]
    least_k: int

    def item_bytes(self, name: str) -> int:
        """Size of one number of a tensor."""

    def reserved(self, name: str, size: int) -> int:
        """Device memory of the engine under a name, at least `size` bytes, zeros when it is new."""

    def stage(self, name: str, array: FloatArray, pointer: int) -> None:
        """Upload an array in the type of tensor `name`."""

    def execute(
        self,
        feeds: Mapping[str, FloatArray],
        resident: Mapping[str, tuple[int, tuple[int, ...]]],
        kept: Sequence[str],
    ) -> tuple[dict[str, FloatArray], dict[str, int]]:
        """As TensorrtEngine.execute."""


class DevicePast:
    """The past of a batch, in memory that its engine keeps for it: a new past takes the old one's place."""

    def __init__(
        self, engine: ResidentEngine, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int
    ) -> None:
        """As `past_for`; prefix_kv [layers, 2, kv_heads, P0, head_dim] is uploaded once and copied to every
        row.
        """
        prefix = prefix_kv.shape[3]
        self._engine, self._shape = engine, shape
        self._capacity = bucket_of(max(capacity, prefix))
        self._slots = bucket_of(prefix)
        self._item = engine.item_bytes("past_kv")
        self.lengths = [prefix] * rows
        with engine.device.current():
            self._memory = engine.reserved("past_kv", rows * self._row_bytes(self._capacity))
            self._spare = engine.reserved("past_kv.spare", self._row_bytes(self._capacity))
            if prefix:
                engine.stage("past_kv", prefix_kv, self._spare)
                for row in range(rows):
                    engine.device.copy(self._columns(self._spare, prefix, 0, row, 0, prefix))
            engine.device.synchronise()

    @property
    def slots(self) -> int:
        """Columns that the next pass sees."""
        return self._slots

    def step(self, engine: Engine, feeds: Mapping[str, FloatArray], counts: Sequence[int]) -> FloatArray:
        """One decoder call over this past; hidden [rows, K, H]."""
        own, rows, columns = self._engine, len(self.lengths), feeds["embeds"].shape[1]
        wide = least_columns(own.profiles, rows, columns, self._slots, own.least_k)
        place = (self._memory, self._shape.past_kv_shape(rows, self._slots))
        with own.device.current():
            outputs, kept = own.execute(left_padded(feeds, wide), {"past_kv": place}, ["new_kv"])
            self._store(kept["new_kv"], wide, counts)
        return outputs["hidden"][:, wide - columns :]

    def drop(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.lengths) - 1
        if row != last:
            size = self._row_bytes(self._slots)
            with self._engine.device.current():
                self._engine.device.copy(
                    StridedCopy(self._memory + last * size, size, self._memory + row * size, size, size, 1)
                )
            self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def _store(self, new_kv: int, columns: int, counts: Sequence[int]) -> None:
        """Place the last counts[row] of `columns` new columns behind each row."""
        needed = max(length + count for length, count in zip(self.lengths, counts, strict=True))
        if needed > self._slots:
            self._grow(bucket_of(needed))
        size = self._row_bytes(columns)
        for row, (length, count) in enumerate(zip(self.lengths, counts, strict=True)):
            source = new_kv + row * size
            self._engine.device.copy(self._columns(source, columns, columns - count, row, length, count))
        self.lengths = [length + count for length, count in zip(self.lengths, counts, strict=True)]

    def _grow(self, slots: int) -> None:
        if slots > self._capacity:
            raise EngineError(
                f"a row needs {slots} past slots of {self._capacity}; raise the recipe's token_budget"
            )
        for copy in growth_copies(
            self._memory,
            self._spare,
            len(self.lengths),
            self._pieces,
            self._slots * self._column_bytes,
            slots * self._column_bytes,
        ):
            self._engine.device.copy(copy)
        self._slots = slots

    def _columns(
        self, source: int, source_slots: int, first: int, row: int, target: int, count: int
    ) -> StridedCopy:
        """`count` columns from column `first` of a row at `source` to column `target` of row `row`."""
        column = self._column_bytes
        return StridedCopy(
            source=source + first * column,
            source_pitch=source_slots * column,
            destination=self._memory + row * self._row_bytes(self._slots) + target * column,
            destination_pitch=self._slots * column,
            width=count * column,
            rows=self._pieces,
        )

    @property
    def _pieces(self) -> int:
        """Runs of slots in a row: one for every key head's keys and values, in every layer."""
        return self._shape.layers * 2 * self._shape.kv_heads

    @property
    def _column_bytes(self) -> int:
        return self._shape.head_dim * self._item

    def _row_bytes(self, slots: int) -> int:
        return int(np.prod(self._shape.past_kv_shape(1, slots))) * self._item


def growth_copies(
    memory: int, spare: int, rows: int, pieces: int, before: int, after: int
) -> Iterator[StridedCopy]:
    """The copies that widen every run of slots from `before` to `after` bytes, over one spare row.

    Last row first: a widened row covers only memory of itself and of rows that have moved already.
    """
    whole = pieces * before
    for row in reversed(range(rows)):
        yield StridedCopy(memory + row * whole, whole, spare, whole, whole, 1)
        yield StridedCopy(spare, before, memory + row * pieces * after, after, before, pieces)
