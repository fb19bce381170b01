"""One block of a component in calibration: all feeds through its float graph, a choice, all through INT8.

Two streams of hidden states run side by side, float and INT8, so that the error which has piled up behind
each block is known. They lie in files, one for each stream and block, and are mapped into memory one feed at
a time; of a block only one session is open at a time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..blocks import NEW_ROWS, Block
from ..choice import Limits, LinearChoice, choose, row_errors
from ..int8_graph import int8_from_float
from ..linears import Weights, probed
from ..ranges import Ranges
from ..sessions import Array, Feed, Floats, MaskedFeed, Session, inputs_of
from .hidden import Hidden, HiddenWriter


@dataclass(frozen=True)
class Seconds:
    """What a block took: once (opening sessions, choosing, rewriting), and for one feed in each pass."""

    once: float
    float_feed: float
    int8_feed: float


@dataclass(frozen=True)
class BlockResult:
    """A block after both passes; `errors` are those of the INT8 stream behind it, by value."""

    choices: tuple[LinearChoice, ...]
    errors: dict[str, float]
    float_hidden: Hidden
    int8_hidden: Hidden
    seconds: Seconds


class RowErrors:
    """Mean of |measured - exact| / |exact| over the rows that count, by value."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, feed: Feed, name: str, measured: Array, exact: Array) -> None:
        """Compare the rows [..., features] of one feed."""
        left, right = (_counted(feed, value) for value in (measured, exact))
        errors = row_errors(left, right)
        total = self._sums.setdefault(name, [0.0, 0.0])
        total[0] += float(errors.sum())
        total[1] += len(errors)

    def means(self) -> dict[str, float]:
        """Value -> its mean error; 0 where no row has a size."""
        return {name: total / count if count else 0.0 for name, (total, count) in self._sums.items()}


def run_block(
    block: Block,
    feeds: Sequence[Feed],
    before: tuple[Hidden, Hidden] | None,
    folder: Path,
    *,
    limits: Limits,
    threads: int,
) -> BlockResult:
    """Both passes of `block` over `feeds`; `before` holds the float and the INT8 stream in front of it (None:
    it is the first).

    The streams behind it are written to `<block>.float` and `<block>.int8` in `folder`.
    """
    started = time.perf_counter()
    float_before, int8_before = before or (Hidden.nothing(len(feeds)), Hidden.nothing(len(feeds)))
    paths = folder / f"{block.name}.float", folder / f"{block.name}.int8"
    float_hidden, ranges, float_laps = _float_pass(block, feeds, float_before, paths[0], threads)
    weights = Weights(block.model, block.folder)
    choices = choose(ranges.statistics().values(), weights, limits=limits)
    model = int8_from_float(block.model, choices, weights=weights).SerializeToString()
    errors = RowErrors()
    int8_laps = []
    with Session(model, folder=block.folder, threads=threads) as session, HiddenWriter(paths[1]) as writer:
        for index in range(len(feeds)):
            lap = time.perf_counter()
            feed = feeds[index]
            values = session.run(block.feed(inputs_of(feed), int8_before[index]), made_by(block))
            writer.add(_kept(block, values, int8_before[index]))
            exact = float_hidden[index]
            for name, value in values.items():
                errors.add(feed, name, value, exact[name])
            int8_laps.append(time.perf_counter() - lap)
    once = time.perf_counter() - started - sum(float_laps) - sum(int8_laps)
    seconds = Seconds(once, _warm_mean(float_laps), _warm_mean(int8_laps))
    return BlockResult(choices, errors.means(), float_hidden, writer.hidden(), seconds)


def _warm_mean(laps: Sequence[float]) -> float:
    """Mean without the first: it pays for pages and buffers that the others find ready."""
    warm = laps[1:] or laps
    return sum(warm) / len(warm)


def made_by(block: Block) -> tuple[str, ...]:
    """Values that calibration asks of a block: all it makes but new keys and values, which are no stream."""
    return tuple(
        value.name for value in block.model.graph.output if block.layers is None or value.name != NEW_ROWS
    )


def outputs_of(block: Block) -> tuple[str, ...]:
    """Outputs of the component that calibration keeps of a block."""
    return tuple(name for name in made_by(block) if name in block.outputs)


def _float_pass(
    block: Block, feeds: Sequence[Feed], before: Hidden, path: Path, threads: int
) -> tuple[Hidden, Ranges, list[float]]:
    """The float stream behind the block, what its linears read, and the seconds of each feed."""
    probe = probed(block.model, block.folder)
    ranges = Ranges(probe.linears)
    names = list(dict.fromkeys((*made_by(block), *probe.tensors)))
    laps = []
    with Session(probe.model, folder=probe.folder, threads=threads) as session, HiddenWriter(path) as writer:
        for index in range(len(feeds)):
            lap = time.perf_counter()
            feed = feeds[index]
            inputs = block.feed(inputs_of(feed), before[index])
            values = session.run(inputs, names)
            ranges.add(feed, index, inputs | values)
            writer.add(_kept(block, values, before[index]))
            laps.append(time.perf_counter() - lap)
    return writer.hidden(), ranges, laps


def _kept(block: Block, values: Mapping[str, Array], before: Mapping[str, Array]) -> dict[str, Array]:
    """What goes into the file: what later blocks read, and outputs of the component."""
    return {name: values[name] for name in outputs_of(block)} | block.passed_on(values, before)


def _counted(feed: Feed, value: Array) -> Floats:
    """Rows [n, features] without those that the mask excludes; values of another layout count whole."""
    if isinstance(feed, MaskedFeed) and value.shape[:-1] == feed.counted.shape:
        value = value[feed.counted]
    return np.asarray(value, np.float32).reshape(-1, value.shape[-1])
