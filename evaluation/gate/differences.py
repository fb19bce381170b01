"""Outputs of INT8 graphs against float graphs, on whatever a real inspection feeds them.

`ComparedEngine` stands where the float engine stands: it answers with the float graph's outputs and lets the
INT8 graph see the same inputs. So every feed is a real one, ragged batches and a growing past included, and
no error of one component counts in the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.infer.engines.engine import Dimensions, Engine, FloatArray

FEEDS_KEPT = 4
"""Feeds a component that stay for a search of the linears at fault: those on which INT8 did worst."""
_KV_TOKENS = 4  # axis of the tokens in new_kv [B, layers, 2, kv heads, K, head_dim]


@dataclass(frozen=True)
class ComponentError:
    """A component's worst output over all feeds.

    `cosine` and `relative_error` (|INT8 - float| / |float|) over all values together; `scale` is the float
    output's root mean square, as a `max_abs_error` of many times the scale in a few values leaves both good.
    """

    output: str
    cosine: float
    relative_error: float
    max_abs_error: float
    scale: float
    feeds: int

    def to_json(self) -> dict[str, str | float | int]:
        """Plain values for the manifest."""
        return asdict(self)


@dataclass(frozen=True)
class KeptFeed:
    """One feed and its own cosine (that of its worst output; -1 where that is not a number)."""

    cosine: float
    inputs: Mapping[str, FloatArray]


@dataclass
class Differences:
    """Sums over every feed of a component, output by output; the `keeps` worst feeds stay in memory."""

    keeps: int = FEEDS_KEPT
    feeds: int = 0
    worst: list[KeptFeed] = field(default_factory=list)
    _sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)  # dot, |x|^2, |y|^2, max, values

    def add(
        self,
        inputs: Mapping[str, FloatArray],
        exact: Mapping[str, FloatArray],
        measured: Mapping[str, FloatArray],
    ) -> None:
        """Count one call's outputs; padded tokens of a decoder's batch do not count."""
        counted = np.asarray(inputs["embeds"].any(axis=-1)) if "embeds" in inputs else None  # [B, K]
        cosine = 1.0
        for name, value in exact.items():
            one = _sums_of(value, measured[name], counted)
            cosine = min(cosine, _or_worst(_cosine(one)))
            total = self._sums.setdefault(name, np.zeros(5))
            largest = np.maximum(total[3], one[3])  # unlike max() it keeps what is not a number
            total += one
            total[3] = largest
        self.feeds += 1
        if len(self.worst) < self.keeps or (self.worst and cosine < self.worst[-1].cosine):
            # copied: the decoder's past is a view that the next call overwrites
            kept = KeptFeed(cosine, {name: np.array(value) for name, value in inputs.items()})
            self.worst = sorted([*self.worst, kept], key=lambda feed: feed.cosine)[: self.keeps]

    def error(self) -> ComponentError | None:
        """The worst output; None when the component never ran."""
        errors = []
        for name, total in self._sums.items():
            dot, left, right, largest, values = (float(value) for value in total)
            relative = (max(left - 2 * dot + right, 0.0) / left) ** 0.5 if left else float(right > 0)
            scale = (left / max(values, 1.0)) ** 0.5
            errors.append(ComponentError(name, _cosine(total), relative, largest, scale, self.feeds))
        return min(errors, key=lambda error: _or_worst(error.cosine), default=None)


class ComparedEngine:
    """An `Engine` that answers as `exact` does and counts what `measured` says to the same inputs."""

    def __init__(self, exact: Engine, measured: Engine, differences: Differences) -> None:
        self._exact, self._measured, self._differences = exact, measured, differences

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Those of the float graph."""
        return self._exact.inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Those of the float graph."""
        return self._exact.outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """The float outputs."""
        exact = self._exact.run(feeds)
        self._differences.add(feeds, exact, self._measured.run(feeds))
        return exact

    def close(self) -> None:
        """Close both."""
        self._exact.close()
        self._measured.close()


class RememberedEngine:
    """An `Engine` that hands its outputs on and keeps them in `calls`, in order."""

    def __init__(self, engine: Engine, calls: list[dict[str, FloatArray]]) -> None:
        self._engine, self._calls = engine, calls
        self.inputs, self.outputs = engine.inputs, engine.outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """The engine's outputs."""
        outputs = self._engine.run(feeds)
        self._calls.append(outputs)
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class ReplayedEngine:
    """An `Engine` without a graph: it answers as another one did, call by call."""

    def __init__(self, calls: list[dict[str, FloatArray]]) -> None:
        self._calls = iter(calls)
        self.inputs: Mapping[str, Dimensions] = {}
        self.outputs: Mapping[str, Dimensions] = {}

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """The outputs of the call that is next."""
        return next(self._calls)

    def close(self) -> None:
        """Nothing to close."""


def _sums_of(
    exact: FloatArray, measured: FloatArray, counted: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float64]:
    """[5]: dot, |x|^2, |y|^2, largest difference, values; `counted` [B, K] leaves out padded tokens.

    One row of the batch at a time: of a 2B decoder's keys and values float64 copies would be gigabytes.
    """
    total = np.zeros(5)
    for row in range(len(exact)):
        chosen = None if counted is None else counted[row]
        left, right = _values(exact[row], chosen), _values(measured[row], chosen)
        largest = np.maximum(total[3], np.abs(left - right).max(initial=0.0))
        total += np.array([left @ right, left @ left, right @ right, 0.0, left.size])
        total[3] = largest
    return total


def _values(row: Any, counted: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float64]:
    """The counted values of one row of an output, flat."""
    array: npt.NDArray[Any] = np.asarray(row)
    if counted is not None and array.ndim >= _KV_TOKENS:
        array = np.moveaxis(array, _KV_TOKENS - 1, 0)
    if counted is not None and array.shape[:1] == counted.shape:
        array = array[counted]
    return array.astype(np.float64).reshape(-1)


def _or_worst(cosine: float) -> float:
    """The cosine, -1 where it is not a number: comparisons with NaN would let it pass."""
    return cosine if cosine == cosine else -1.0


def _cosine(total: npt.NDArray[np.float64]) -> float:
    dot, left, right = float(total[0]), float(total[1]), float(total[2])
    if left == 0 or right == 0:
        return 1.0 if left == right else 0.0
    return dot / float(np.sqrt(left * right))
