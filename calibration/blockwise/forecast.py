"""What a calibration will take, measured on one block before it starts."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..blocks import Block
from ..choice import Limits
from ..linears import linears_of
from ..sessions import Feed
from .block_pass import Seconds, run_block

_ONCE_MORE = 1.3  # the confirmation makes and opens every INT8 graph again
_WEIGHT_BYTES = 4 * 2 + 1 * 2  # while a block runs: float32 and int8 weights, each with a packed copy


@dataclass(frozen=True)
class Forecast:
    """What a calibration will need: time, room for hidden states, resident memory of this process."""

    seconds: float
    disk_bytes: int
    memory_bytes: int
    measured_on: str

    def __str__(self) -> str:
        hours, minutes = divmod(math.ceil(self.seconds / 60), 60)
        time = f"{hours} h {minutes:02d} min" if self.seconds > 180 else f"{math.ceil(self.seconds)} s"
        return (
            f"calibration takes about {time}, {self.disk_bytes / 1e9:.1f} GB of disk and"
            f" {self.memory_bytes / 1e9:.1f} GB of memory (measured on {self.measured_on})"
        )


def trial(block: Block, feed: Feed, folder: Path, *, limits: Limits, threads: int) -> tuple[Seconds, int]:
    """(seconds of the first block, bytes of one stream behind it): one feed, run twice in each pass.

    Works in `folder`/.trial, which it leaves to nobody.
    """
    place = folder / ".trial"
    shutil.rmtree(place, ignore_errors=True)  # of a run that was killed
    place.mkdir(parents=True)
    try:
        result = run_block(block, [feed, feed], None, place, limits=limits, threads=threads)
        size = sum(path.stat().st_size for path in place.iterdir()) // 4
    finally:
        shutil.rmtree(place)
    return result.seconds, size


def forecast_of_blocks(
    blocks: Sequence[Block],
    measured: Block,
    seconds: Seconds,
    feed_bytes: float,
    feeds: float,
    confirmed: float,
) -> Forecast:
    """`blocks` over `feeds` feeds of the size that was measured; `confirmed` more go through INT8 at the end.

    Everything grows with the weights of a block. Memory is the most that this process has held so far, for
    every block runs as the measured one did, and what the confirmation holds: about two streams a pass.
    """
    share = [weight_count(block) / weight_count(measured) for block in blocks]
    passes = seconds.float_feed * feeds + seconds.int8_feed * (feeds + confirmed)
    largest = max(weight_count(block) for block in blocks)
    more = max(0, largest - weight_count(measured)) * _WEIGHT_BYTES
    return Forecast(
        sum(share) * (seconds.once * _ONCE_MORE + passes),
        math.ceil(4 * feed_bytes * feeds),  # two streams, in front of a block and behind it
        _peak_bytes() + more + math.ceil(2 * confirmed * feed_bytes),
        measured.name,
    )


def _peak_bytes() -> int:
    """The most memory that this process has had resident; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def weight_count(block: Block) -> int:
    """Numbers in the weights of a block's linears."""
    return max(1, sum(one.in_features * one.out_features for one in linears_of(block.model)))
