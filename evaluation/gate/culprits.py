"""Which linears to keep float: those that spoil their own output most on the feeds where INT8 did worst.

Calibration has chosen by the rows that it held; when the gate fails, other rows came. So every quantised
linear is measured again, alone and on float inputs, over the worst feeds of the gate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ...calibration.choice import LinearChoice
from ...calibration.closeness import linear_errors
from ...calibration.sessions import Feed, MaskedFeed
from .differences import KeptFeed

MOST_GRAPH_BYTES = 1 << 30
"""Larger float graphs are not run whole; the errors that calibration noted must do."""
CULPRIT_ERROR = 0.02
"""A linear below this error in every row is nobody's culprit."""


@dataclass(frozen=True)
class Culprit:
    """A quantised linear: mean and largest relative error of a row of its output."""

    component: str
    linear: str
    mode: str
    error: float
    largest_row_error: float

    def to_json(self) -> dict[str, str | float]:
        """Plain values for the manifest."""
        return asdict(self)


def culprits(
    graphs: Mapping[str, Path],
    choices: Mapping[str, Sequence[LinearChoice]],
    feeds: Mapping[str, Sequence[KeptFeed]],
    *,
    threads: int = 2,
) -> tuple[Culprit, ...]:
    """All quantised linears of all components that stand out, worst first."""
    found: list[Culprit] = []
    for component, of_component in choices.items():
        graph = graphs[component]
        if feeds.get(component) and is_searched(graph):
            errors = linear_errors(graph, of_component, _masked(feeds[component]), threads=threads)
        else:
            errors = {choice.name: _noted(choice) for choice in of_component if choice.mode != "float"}
        found += [
            Culprit(component, choice.name, _mode(choice), *errors[choice.name])
            for choice in of_component
            if choice.name in errors
        ]
    found = [one for one in found if one.largest_row_error >= CULPRIT_ERROR]
    return tuple(sorted(found, key=lambda one: -one.error))


def is_searched(graph: Path) -> bool:
    """Whether a float graph is small enough to be run whole; only then its feeds are of use."""
    data = graph.with_name(graph.name + ".data")
    return not data.exists() or data.stat().st_size < MOST_GRAPH_BYTES


def _masked(feeds: Iterable[KeptFeed]) -> list[Feed]:
    """The decoder's padded tokens are excluded: their embeddings are zero."""
    return [
        MaskedFeed(kept.inputs, np.asarray(kept.inputs["embeds"].any(axis=-1), np.bool_))
        if "embeds" in kept.inputs
        else kept.inputs
        for kept in feeds
    ]


def _noted(choice: LinearChoice) -> tuple[float, float]:
    """The error that calibration noted, for both."""
    return choice.error or 0.0, choice.error or 0.0


def _mode(choice: LinearChoice) -> str:
    return choice.mode if choice.alpha is None else f"{choice.mode} smoothed"
