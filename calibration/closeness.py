"""How close INT8 stays to float: a whole graph's outputs, and each linear on its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from .choice import LinearChoice, per_row_rows, quantised_weight, row_errors, static_rows
from .linears import Weights, linears_by_input, probe_from_model
from .ranges import Progress
from .sessions import Feed, Floats, MaskedFeed, Session, counted_rows, inputs_of


@dataclass(frozen=True)
class OutputError:
    """An output of the INT8 graph against the float graph's over all held feeds."""

    cosine: float
    max_abs_error: float


def output_errors(
    float_model: Path,
    int8_model: Path,
    feeds: Iterable[Feed],
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, OutputError]:
    """Run both graphs over `feeds`; cosine and largest absolute difference of every output.

    Rows that a feed's mask excludes do not count in outputs whose leading axes have the mask's shape.
    """
    sums: dict[str, npt.NDArray[np.float64]] = {}
    kept = list(feeds)
    with Session(float_model, threads=threads) as exact, Session(int8_model, threads=threads) as int8:
        for index, feed in enumerate(kept):
            expected, measured = exact.run(inputs_of(feed)), int8.run(inputs_of(feed))
            for name in expected:
                left, right = _counted(feed, expected[name]), _counted(feed, measured[name])
                total = sums.setdefault(name, np.zeros(4))
                total[:3] += [(left * right).sum(), (left * left).sum(), (right * right).sum()]
                total[3] = max(total[3], np.abs(left - right).max(initial=0))
            if progress is not None:
                progress("accuracy", index + 1, len(kept))
    return {name: OutputError(_cosine(total), float(total[3])) for name, total in sums.items()}


def linear_errors(
    float_model: Path, choices: Iterable[LinearChoice], feeds: Sequence[Feed], *, threads: int = 2
) -> dict[str, tuple[float, float]]:
    """Linear -> mean and largest relative error of a row of its INT8 output, on float inputs, over `feeds`.

    The whole float graph is opened, and all rows of all feeds are held in memory. Linears that stay float, or
    whose outputs are all zero, are left out.
    """
    probe = probe_from_model(float_model)
    by_name = {choice.name: choice for choice in choices if choice.mode != "float"}
    weights = Weights(onnx.load(str(float_model), load_external_data=False), float_model.parent)
    groups = linears_by_input(probe.linears)
    rows: dict[str, list[Floats]] = {tensor: [] for tensor in groups}
    with Session(probe.model, folder=probe.folder, threads=threads) as session:
        for feed in feeds:
            inputs = inputs_of(feed)
            values = session.run(inputs, probe.tensors)
            values |= {name: value for name, value in inputs.items() if name in groups}
            for tensor, value in values.items():
                rows[tensor].append(counted_rows(feed, value, tensor))
    found = {}
    for tensor, linears in groups.items():
        joined = np.concatenate(rows[tensor])
        for linear in linears:
            if (choice := by_name.get(linear.name)) is not None:
                weight = weights[linear.name]
                errors = row_errors(int8_output(joined, weight, choice), joined @ weight)
                if len(errors):
                    found[linear.name] = float(errors.mean()), float(errors.max())
    return found


def int8_output(rows: Floats, weight: Floats, choice: LinearChoice) -> Floats:
    """[n, out]: what the linear makes of rows [n, in] when it runs as `choice` says."""
    if choice.mode == "float":
        return rows @ weight
    quantised, scale = quantised_weight(weight, choice.smoothing)
    if choice.smoothing is not None:
        rows = rows / choice.smoothing
    rounded = per_row_rows(rows) if choice.mode == "per_row" else static_rows(rows, choice.clip or 1.0)
    product: Floats = rounded @ quantised.astype(np.float32) * scale
    return product


def _counted(feed: Feed, value: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if isinstance(feed, MaskedFeed) and value.shape[: feed.counted.ndim] == feed.counted.shape:
        value = value[feed.counted]
    return value.astype(np.float64)


def _cosine(total: npt.NDArray[np.float64]) -> float:
    dot, left, right = float(total[0]), float(total[1]), float(total[2])
    if left == 0 or right == 0:
        return 1.0 if left == right else 0.0
    return dot / float(np.sqrt(left * right))
