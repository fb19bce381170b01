"""Golden frames: inputs of every component with the outputs that the export saw, to judge an engine by.

A frame carries what the bundle's own graphs made of it (`expected`) and what the float graphs made of it
(`exact`), and for each output how far an engine may be from `expected`: three times the largest spread of
perturbed runs, see export/golden.py. A frame whose choices are too close to call says so and gates nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError
from .bundle import Bundle
from .engines.engine import Engine, FloatArray

INPUT, EXPECTED, EXACT, COUNTED = "input", "expected", "exact", "counted"
"""First halves of the names in a frame's file: `input/<name>`, `expected/<output>`, ..."""


@dataclass(frozen=True)
class GoldenFrame:
    """One component's inputs and outputs; `tolerance` is the largest absolute difference allowed an output.

    `counted` [rows, K] bool leaves out padding where the leading axes of an output have its shape.
    """

    component: str
    feeds: dict[str, FloatArray]
    expected: dict[str, FloatArray]
    exact: dict[str, FloatArray]
    tolerance: dict[str, float]
    counted: npt.NDArray[np.bool_] | None
    may_gate: bool


@dataclass(frozen=True)
class Mismatch:
    """An output that left its tolerance (or is not a number: `error` is then infinite)."""

    component: str
    output: str
    error: float
    tolerance: float
    may_gate: bool

    def __str__(self) -> str:
        return f"{self.component}: {self.output} is off by {self.error:.3g}, allowed {self.tolerance:.3g}"


def golden_frames(bundle: Bundle) -> tuple[GoldenFrame, ...]:
    """The frames of a bundle, one a component; empty for a bundle without. BundleError for a broken one."""
    return tuple(_frames(bundle))


def mismatches(frame: GoldenFrame, outputs: Mapping[str, FloatArray]) -> tuple[Mismatch, ...]:
    """The outputs that are too far from the frame's; BundleError when one is missing or of another shape."""
    found = []
    for name, expected in frame.expected.items():
        measured = outputs.get(name)
        if measured is None or measured.shape != expected.shape:
            got = "nothing" if measured is None else list(measured.shape)
            raise BundleError(
                f"golden frame of {frame.component}: {name} should be {list(expected.shape)}, the engine gave"
                f" {got}; engine and bundle are not of one export, build the engines again"
            )
        error = largest_difference(measured, expected, frame.counted)
        if not error <= frame.tolerance[name]:
            found.append(Mismatch(frame.component, name, error, frame.tolerance[name], frame.may_gate))
    return tuple(found)


def check_golden(
    bundle: Bundle, open_engine: Callable[[str], Engine], only: Collection[str] | None = None
) -> tuple[Mismatch, ...]:
    """Run every frame through the engine that `open_engine(component)` gives; all that left its tolerance.

    `only`: of these components alone. One frame is in memory at a time: that of a large decoder is hundreds
    of MB.
    """
    found: list[Mismatch] = []
    for frame in _frames(bundle, only):
        found += mismatches(frame, open_engine(frame.component).run(frame.feeds))
    return tuple(found)


def largest_difference(
    left: FloatArray, right: FloatArray, counted: npt.NDArray[np.bool_] | None = None
) -> float:
    """Largest |left - right| over counted rows; infinite as soon as one value is not a number.

    One row of the batch at a time: of a large decoder's keys and values a float64 copy would be gigabytes.
    """
    largest = 0.0
    for index in range(len(left)):
        row = slice(index, index + 1)
        one, other = left[row], right[row]
        if counted is not None:
            one, other = counted_rows(one, counted[row]), counted_rows(other, counted[row])
        difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
        if not np.isfinite(difference).all():
            return float("inf")
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest


def counted_rows(values: FloatArray, counted: npt.NDArray[np.bool_]) -> FloatArray:
    """The values at counted places; new keys and values [B, L, 2, Hkv, K, hd] have K as their fifth axis."""
    if values.ndim == 6 and (values.shape[0], values.shape[4]) == counted.shape:
        return np.moveaxis(values, 4, 1)[counted]
    return values[counted] if values.shape[: counted.ndim] == counted.shape else values


def golden_components(bundle: Bundle) -> tuple[str, ...]:
    """The components that have a golden frame."""
    return tuple(bundle.manifest.get("golden", {}))


def _frames(bundle: Bundle, only: Collection[str] | None = None) -> Iterator[GoldenFrame]:
    table: Mapping[str, Any] = bundle.manifest.get("golden", {})
    return (
        _frame(bundle, component, entry)
        for component, entry in table.items()
        if only is None or component in only
    )


def _frame(bundle: Bundle, component: str, entry: Mapping[str, Any]) -> GoldenFrame:
    parts: dict[str, dict[str, Any]] = {INPUT: {}, EXPECTED: {}, EXACT: {}, COUNTED: {}}
    try:
        path = bundle.path / str(entry["file"])
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for key in stored.files:
                kind, _, name = key.partition("/")
                parts[kind][name] = stored[key]
        return GoldenFrame(
            component,
            parts[INPUT],
            parts[EXPECTED],
            parts[EXACT],
            {name: float(entry["tolerance"][name]) for name in parts[EXPECTED]},
            parts[COUNTED].get(""),
            bool(entry["may_gate"]),
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(
            f"the golden frame of {component} in {bundle.path} cannot be read ({error!r}); export it again"
        ) from error
