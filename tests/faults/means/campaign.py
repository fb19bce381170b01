"""What a fault campaign is: a number of points, each a fault done to the product, drawn from a seed.

A campaign's `run(seed, folder)` does some seconds of work in an empty folder, the same for the same seed as
far as the machine's timing allows, and says how many points it made and which of them failed. What a seed
found can be looked at again with `python -m orinspect.tests.faults --only NAME --seed N`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

MEMORY = Path("/dev/shm")
MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class Tally:
    """Points made, a sentence for each that failed, measured figures by name, and the seams that were hit."""

    points: int
    failures: tuple[str, ...] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    seams: frozenset[str] = frozenset()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.points + other.points,
            self.failures + other.failures,
            worst_of(self.figures, other.figures),
            self.seams | other.seams,
        )


def worst_of(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Figures of two runs: the lower of those whose name ends in `_least`, the higher of all others."""
    both = {**first, **second}
    for name in first.keys() & second.keys():
        choose = min if name.endswith("_least") else max
        both[name] = choose(first[name], second[name])
    return both


@dataclass(frozen=True)
class Campaign:
    """One promise and how it is tried.

    `target`: the points that the promise asks for; `point`: what one is, in a word or two; `promise`: what a
    point that does not fail shows; `needs`: programs without which it cannot run. With `takes_all_its_time`,
    `run` is called once, with the seconds that it shall take as a third argument.
    """

    name: str
    promise: str
    point: str
    target: int
    run: Callable[..., Tally]
    needs: tuple[str, ...] = ()
    takes_all_its_time: bool = False


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """An empty folder where fsync costs nothing, for files whose durability is simulated anyway."""
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MEMORY_BYTES
    place = MEMORY if has_room else None
    with tempfile.TemporaryDirectory(prefix="orinspect-faults-", dir=place) as name:
        yield Path(name)
