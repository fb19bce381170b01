"""A decoder in several parts, each an engine of its own, that looks like one.

A board whose memory cannot hold the build of the whole decoder builds it as groups of layers. The residual
stream leaves one part as `hidden` and enters the next as `embeds`; each part keeps its own layers' past.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ...errors import EngineError
from ..shape import ModelShape
from .engine import Dimensions, Engine, FloatArray
from .past import Past, most_rows_of, past_for

PAST, NEW, STREAM_IN, STREAM_OUT = "past_kv", "new_kv", "embeds", "hidden"


class PartedEngine:
    """Decoder parts in the order of their layers, behind the `Engine` Protocol. Closes what it was given."""

    def __init__(self, parts: Sequence[Engine]) -> None:
        """EngineError when a part does not say how many layers its past holds."""
        if not parts:
            raise EngineError("a decoder has at least one part")
        self._parts = tuple(parts)
        self.layers = tuple(_layers(part) for part in self._parts)
        depth = sum(self.layers)
        self._inputs: dict[str, Dimensions] = {}
        for part in self._parts:
            self._inputs |= part.inputs
        self._inputs[STREAM_IN] = self._parts[0].inputs[STREAM_IN]
        self._inputs[PAST] = _with_layers(self._inputs[PAST], depth)
        self._outputs = dict(self._parts[-1].outputs)
        self._outputs[NEW] = _with_layers(self._outputs[NEW], depth)

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Those of the whole decoder."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Those of the whole decoder."""
        return self._outputs

    @property
    def most_rows(self) -> int:
        """The largest batch that every part takes."""
        return min(most_rows_of(part) for part in self._parts)

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """hidden [B, K, H] and new_kv [B, L, 2, Hkv, K, hd], as the whole decoder gives them."""
        if set(feeds) != set(self._inputs):
            raise EngineError(f"the decoder takes {sorted(self._inputs)}, got {sorted(feeds)}")
        stream, new, first = feeds[STREAM_IN], [], 0
        for part, layers in zip(self._parts, self.layers, strict=True):
            own = _own(part, feeds, stream)
            own[PAST] = np.ascontiguousarray(feeds[PAST][:, first : first + layers])
            outputs = part.run(own)
            stream, first = outputs[STREAM_OUT], first + layers
            new.append(outputs[NEW])
        return {STREAM_OUT: stream, NEW: np.concatenate(new, axis=1)}

    def past(self, shape: ModelShape, prefix_kv: FloatArray, rows: int, capacity: int) -> Past:
        """One past a part, each where that part's engine wants it."""
        return PartedPast(self._parts, self.layers, shape, prefix_kv, rows, capacity)

    def close(self) -> None:
        """Free the parts, the last first; twice is fine."""
        for part in reversed(self._parts):
            part.close()


class PartedPast:
    """The pasts of all parts, advanced together."""

    def __init__(
        self,
        parts: Sequence[Engine],
        layers: Sequence[int],
        shape: ModelShape,
        prefix_kv: FloatArray,
        rows: int,
        capacity: int,
    ) -> None:
        """prefix_kv [layers of all parts, 2, kv_heads, P0, head_dim]."""
        self._pasts: list[tuple[Engine, Past]] = []
        first = 0
        for part, count in zip(parts, layers, strict=True):
            own_shape = dataclasses.replace(shape, layers=count)
            own = past_for(part, own_shape, prefix_kv[first : first + count], rows, capacity)
            self._pasts.append((part, own))
            first += count

    @property
    def lengths(self) -> list[int]:
        """Tokens behind each row, the same in every part."""
        return self._pasts[0][1].lengths

    @property
    def slots(self) -> int:
        """As in every part."""
        return self._pasts[0][1].slots

    def step(self, engine: Engine, feeds: Mapping[str, FloatArray], counts: Sequence[int]) -> FloatArray:
        """One pass through all parts; hidden [rows, K, H] of the last."""
        stream = feeds[STREAM_IN]
        for part, past in self._pasts:
            stream = past.step(part, _own(part, feeds, stream), counts)
        return stream

    def drop(self, row: int) -> None:
        """Remove a row from every part; the last row takes its place."""
        for _, past in self._pasts:
            past.drop(row)


def _own(part: Engine, feeds: Mapping[str, FloatArray], stream: FloatArray) -> dict[str, FloatArray]:
    """What a part takes, its past left out: only a part with a tapped layer takes DeepStack features."""
    shared = {name: array for name, array in feeds.items() if name in part.inputs and name != PAST}
    return shared | {STREAM_IN: stream}


def _layers(part: Engine) -> int:
    layers = part.inputs[PAST][1]
    if not isinstance(layers, int) or layers < 1:
        raise EngineError(f"a decoder part has {layers!r} layers in {PAST}; export the bundle again")
    return layers


def _with_layers(dimensions: Dimensions, layers: int) -> Dimensions:
    return (dimensions[0], layers, *dimensions[2:])
