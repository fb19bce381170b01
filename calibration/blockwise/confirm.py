"""The linears with the worst local errors, judged by what they do to the component's outputs.

A local error does not say how far it carries: later layers may swallow it or multiply it. So each suspect is
run in float, everything else in INT8, over a few feeds to the very end. All variants go through the blocks
together, each from its own linear on, so that a block's INT8 graph is made and opened once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..blocks import Block
from ..choice import LinearChoice
from ..int8_graph import int8_from_float
from ..linears import Weights, linears_of
from ..sessions import Array, Feed, Session, inputs_of, is_held
from .block_pass import RowErrors, made_by, outputs_of

SUSPECTS = 8
FEEDS = 4
MATERIAL, TIMES_FAIR, MOST_ASKED = 0.20, 3.0, 0.9
"""A suspect stays float where that takes this share off the error of the outputs, and at least three times
the share that a linear of this component has on average (of two linears each has half of it) ..."""
NEGLIGIBLE = 0.02
"""... unless that error, the mean of |int8 - float| / |float| over rows, is below this already."""

_BASE = ""  # the variant in which no suspect is float


@dataclass(frozen=True)
class Confirmation:
    """One suspect of `linears` INT8 linears: the outputs' error with it in INT8 and with it in float."""

    linear: str
    error_int8: float
    error_float: float
    linears: int

    @property
    def is_needed(self) -> bool:
        """Whether the linear has to stay float."""
        asked = max(MATERIAL, min(MOST_ASKED, TIMES_FAIR / self.linears))
        return self.error_int8 > NEGLIGIBLE and self.error_float <= (1 - asked) * self.error_int8


def local_error(choice: LinearChoice) -> float:
    """The error of a linear as it was chosen to run; a float one has none."""
    if choice.mode == "float":
        return 0.0
    unsmoothed = choice.error_static if choice.mode == "static" else choice.error_per_row
    return (unsmoothed if choice.alpha is None else choice.error_smoothed) or 0.0


def suspects_of(choices: Iterable[LinearChoice], count: int = SUSPECTS) -> tuple[str, ...]:
    """The INT8 linears with the largest local errors, the worst first."""
    worst = sorted((c for c in choices if local_error(c) > 0), key=local_error, reverse=True)
    return tuple(choice.name for choice in worst[:count])


def confirmation_feeds(count: int) -> tuple[int, ...]:
    """Numbers of the feeds to judge by: held ones first, which no range has seen."""
    return tuple(sorted(range(count), key=lambda index: (not is_held(index), index))[:FEEDS])


def confirmation_passes(feeds: int) -> float:
    """How many feeds `confirmations` takes through the INT8 graph; a suspect starts half way on average."""
    return min(FEEDS, feeds) * (1 + SUSPECTS / 2)


def confirmations(
    blocks: Sequence[Block],
    choices: Sequence[LinearChoice],
    feeds: Mapping[int, Feed],
    exact: Mapping[int, Mapping[str, Array]],
    suspects: Collection[str],
    *,
    threads: int,
) -> tuple[float, tuple[Confirmation, ...]]:
    """(error of the outputs with all choices, a Confirmation for each suspect).

    `exact` gives the float outputs of each feed, rows of new_kv left out.
    """
    sweep = _Sweep({choice.name: choice for choice in choices}, feeds, exact, threads)
    for block in blocks:
        sweep.through(block, suspects)
    base = sweep.error(_BASE)
    count = sum(choice.mode != "float" for choice in choices)
    return base, tuple(Confirmation(name, base, sweep.error(name), count) for name in suspects)


class _Sweep:
    """All variants on their way through the blocks; a variant exists from its linear's block on."""

    def __init__(
        self,
        choices: Mapping[str, LinearChoice],
        feeds: Mapping[int, Feed],
        exact: Mapping[int, Mapping[str, Array]],
        threads: int,
    ) -> None:
        self._choices, self._feeds, self._exact, self._threads = choices, feeds, exact, threads
        self._passed: dict[str, dict[int, dict[str, Array]]] = {_BASE: {index: {} for index in feeds}}
        self._errors: dict[str, RowErrors] = {_BASE: RowErrors()}

    def through(self, block: Block, suspects: Collection[str]) -> None:
        """Take every variant behind `block`, and start those of the suspects in it."""
        own = [linear.name for linear in linears_of(block.model)]
        chosen = [self._choices[name] for name in own]
        waiting = dict(self._passed)
        for name in own:  # first, while the base still stands in front of the block
            if name in suspects:
                without = [replace(c, mode="float") if c.name == name else c for c in chosen]
                self._run(block, without, {name: self._passed[_BASE]})
        self._run(block, chosen, waiting)

    def error(self, variant: str) -> float:
        """Mean error of the outputs; those before the variant's linear are the base's."""
        means = self._errors[_BASE].means() | self._errors[variant].means()
        return sum(means.values()) / len(means)

    def _run(
        self,
        block: Block,
        choices: Sequence[LinearChoice],
        variants: Mapping[str, Mapping[int, Mapping[str, Array]]],
    ) -> None:
        model = int8_from_float(block.model, choices, weights=Weights(block.model, block.folder))
        with Session(model.SerializeToString(), folder=block.folder, threads=self._threads) as session:
            for name, passed in variants.items():
                errors = self._errors.setdefault(name, RowErrors())
                behind = self._passed.setdefault(name, {})  # of a running variant this is `passed` itself
                for index, feed in self._feeds.items():
                    values = session.run(block.feed(inputs_of(feed), passed[index]), made_by(block))
                    behind[index] = block.passed_on(values, passed[index])
                    for output in outputs_of(block):
                        errors.add(feed, output, values[output], self._exact[index][output])
