"""What goes into every linear, measured over calibration feeds in one streaming pass.

The magnitudes go into a logarithmic histogram whose bins are the top bits of the float itself (128 a power of
two, so a bin is 0.8 % wide): it needs no range in advance, never rescales, and gives percentiles and the clip
with the least squared error without a second pass. Memory a tensor: the histogram (256 KB) and at most
`rows_kept` rows.

Every `HELD_EVERY`-th feed is held back: its rows do not count in the ranges, they are the sample on which
`choice.py` measures output errors. Rows under a feed's mask (padding, the recipe prefix) count nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..runtime.errors import EngineError
from .linears import Linear, linears_by_input, probe_from_model
from .sessions import Array, Feed, Floats, Session, counted_rows, inputs_of, is_held

Progress: TypeAlias = Callable[[str, int, int], None]  # (what, done, total); total 0 where it is not known

PERCENTILE = 99.99
QUANTISED_MAX = 127  # int8 symmetric: a clip maps to 127
ROWS_KEPT = 256  # rows of each tensor on which choices are measured
_SHIFT = 16  # keeps sign (0), 8 exponent and 7 mantissa bits of |x|
_BINS = 1 << (31 - _SHIFT)
_MSE_CANDIDATES = 64
_SLICE_VALUES = 1 << 17


@dataclass(frozen=True)
class InputStatistics:
    """The values of one tensor that linears read.

    `abs_max`, `percentile` (99.99) and `mse` are candidate clips (positive, or all 0 where nothing but zeros
    came); `row_max_*` describe max|row|: where the largest is far above the median, one static scale cannot
    fit all rows. `sample` is [rows, features] float32 from held feeds. `channel_max` [features] is the
    largest magnitude of each feature over the same rows as the ranges: where few are far above the others,
    smoothing helps.
    """

    tensor: str
    linears: tuple[Linear, ...]
    rows: int
    abs_max: float
    percentile: float
    mse: float
    row_max_median: float
    row_max_largest: float
    sample: Floats
    channel_max: Floats

    def clips(self) -> dict[str, float]:
        """Candidate clips by name, without repeats and zeros."""
        named = {"abs_max": self.abs_max, "percentile": self.percentile, "mse": self.mse}
        unique: dict[str, float] = {}
        for name, clip in named.items():
            if clip > 0 and clip not in unique.values():
                unique[name] = clip
        return unique


class Magnitudes:
    """Histogram of |x|: bins are the top 15 bits below the sign of the float32."""

    def __init__(self) -> None:
        self.counts = np.zeros(_BINS, dtype=np.int64)
        self.largest = 0.0

    def add(self, values: Floats) -> None:
        """Count `values` of any shape; they must be finite."""
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        for first in range(0, flat.size, _SLICE_VALUES):  # slices that stay in the processor's cache
            bits = flat[first : first + _SLICE_VALUES].view(np.uint32) & np.uint32(0x7FFFFFFF)
            self.largest = max(self.largest, float(bits.max().view(np.float32)))  # ordered as the floats are
            self.counts += np.bincount(bits >> _SHIFT, minlength=_BINS)

    def percentile(self, percent: float) -> float:
        """Upper edge of the bin that holds the percentile, never above the largest value."""
        below = np.cumsum(self.counts)
        if below[-1] == 0:
            return 0.0
        index = int(np.searchsorted(below, percent / 100 * below[-1]))
        return min(float(_edges(index + 1)), self.largest)

    def mse_clip(self) -> float:
        """The clip whose 8 bit symmetric quantisation has the least squared error over the counted values."""
        used = np.flatnonzero(self.counts)
        if self.largest == 0:
            return 0.0
        centres = (_edges(used).astype(np.float64) + np.minimum(_edges(used + 1), self.largest)) / 2
        counts = self.counts[used]
        clips = self.largest * np.geomspace(1 / 64, 1, _MSE_CANDIDATES)
        errors = []
        for clip in clips:
            step = clip / QUANTISED_MAX
            kept = np.where(centres < step / 2, centres**2, step**2 / 12)  # below half a step all becomes 0
            errors.append(float((counts * np.where(centres > clip, (centres - clip) ** 2, kept)).sum()))
        return float(clips[int(np.argmin(errors))])


def _edges(index: int | npt.NDArray[np.int64]) -> Array:
    """Lower edge of bin `index` as float32."""
    return (np.asarray(index, dtype=np.uint32) << np.uint32(_SHIFT)).view(np.float32)


class Reservoir:
    """A uniform sample of at most `size` rows of a stream of unknown length (random keys, smallest stay)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._keys = np.empty(0)
        self.rows: Floats = np.empty((0, 0), np.float32)

    def add(self, rows: Floats) -> None:
        """Offer rows [n, features]."""
        keys = self._random.random(len(rows))
        chosen = np.argsort(keys)[: self._size]
        if self.rows.shape[1] == 0:
            self.rows = np.empty((0, rows.shape[1]), np.float32)
        keys, merged = np.concatenate([self._keys, keys[chosen]]), np.concatenate([self.rows, rows[chosen]])
        kept = np.sort(np.argsort(keys)[: self._size])
        self._keys, self.rows = keys[kept], merged[kept]


class _Collector:
    """Running statistics of one tensor."""

    def __init__(self, tensor: str, linears: tuple[Linear, ...], rows_kept: int, seed: int) -> None:
        self._tensor, self._linears = tensor, linears
        self._values, self._row_maxima = Magnitudes(), Magnitudes()
        self._channel_max = np.zeros(linears[0].in_features, np.float32)
        self._held, self._measured = Reservoir(rows_kept, seed), Reservoir(rows_kept, seed)
        self._rows = 0

    def add(self, rows: Floats, held: bool) -> None:
        """Take rows [n, features]; NaN or infinity is an error that names the linear."""
        sizes = np.abs(rows)
        channel_max = sizes.max(axis=0, initial=0)
        if not np.isfinite(channel_max).all():  # a maximum keeps NaN
            raise EngineError(
                f"{self._linears[0].name}: its input {self._tensor} holds NaN or infinity in calibration;"
                " the checkpoint or the feed is broken"
            )
        if held:
            self._held.add(rows)
            return
        self._rows += len(rows)
        self._values.add(sizes)
        self._row_maxima.add(sizes.max(axis=1, initial=0))
        np.maximum(self._channel_max, channel_max, out=self._channel_max)
        self._measured.add(rows)

    def statistics(self) -> InputStatistics:
        """Freeze; without held rows the sample comes from the measured ones."""
        sample = self._held.rows if len(self._held.rows) else self._measured.rows
        return InputStatistics(
            self._tensor,
            self._linears,
            self._rows,
            self._values.largest,
            self._values.percentile(PERCENTILE),
            self._values.mse_clip(),
            self._row_maxima.percentile(50),
            self._row_maxima.largest,
            sample,
            self._channel_max,
        )


class Ranges:
    """Statistics of every tensor that `linears` read, collected feed by feed."""

    def __init__(self, linears: Iterable[Linear], *, rows_kept: int = ROWS_KEPT, seed: int = 0) -> None:
        self._collectors = {
            tensor: _Collector(tensor, of_tensor, rows_kept, seed)
            for tensor, of_tensor in linears_by_input(linears).items()
        }

    def add(self, feed: Feed, index: int, values: Mapping[str, Array]) -> None:
        """Count feed number `index`; of `values` those that no linear reads are left out.

        A mask that does not fit, or values that are not finite raise EngineError.
        """
        for tensor in self._collectors.keys() & values.keys():
            self._collectors[tensor].add(counted_rows(feed, values[tensor], tensor), is_held(index))

    def statistics(self) -> dict[str, InputStatistics]:
        """Statistics by tensor, in graph order."""
        return {tensor: collector.statistics() for tensor, collector in self._collectors.items()}


def ranges_from_runs(
    model: Path,
    feeds: Iterable[Feed],
    *,
    rows_kept: int = ROWS_KEPT,
    tensors_at_once: int = 64,
    threads: int = 2,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, InputStatistics]:
    """Run the float graph at `model` over `feeds` once; statistics of what linears read, by tensor name.

    `tensors_at_once` bounds the memory of one run (a feed is run again for the next group). No feed at all, a
    mask that does not fit, or values that are not finite raise EngineError.
    """
    probe = probe_from_model(model)
    ranges = Ranges(probe.linears, rows_kept=rows_kept, seed=seed)
    total = len(feeds) if isinstance(feeds, Sized) else 0
    count = 0
    with Session(probe.model, folder=probe.folder, threads=threads) as session:
        for index, feed in enumerate(feeds):
            inputs = inputs_of(feed)
            for values in _tensor_groups(session, inputs, probe.tensors, tensors_at_once):
                ranges.add(feed, index, values)
            ranges.add(feed, index, inputs)  # a linear right at the graph's input
            count = index + 1
            if progress is not None:
                progress("ranges", count, total)
    if count == 0:
        raise EngineError(
            f"{model.name}: no calibration feed; give at least one (was a generator used twice?)"
        )
    return ranges.statistics()


def _tensor_groups(
    session: Session, inputs: Mapping[str, Array], tensors: tuple[str, ...], at_once: int
) -> Iterator[dict[str, Array]]:
    """Values of `tensors`, at most `at_once` in memory."""
    for first in range(0, len(tensors), at_once):
        yield session.run(inputs, tensors[first : first + at_once])
