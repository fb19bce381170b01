"""Rows of a data set, inspected and judged: what every figure of `evaluate` starts from."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.capture.frame import Frame
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.inspector import Inspection, Inspector
from ..runtime.judge.assessment import Setup, report_from_inspection, trigger_from_frame
from ..runtime.report import BundleIdentity, ClockReading, Identity, Part, Report, View
from .scores import NamedBox
from .sets.example import Example, Row
from .terminal import Progress


@dataclass(frozen=True)
class EvaluatedPart:
    """One part as inspected: its row, its truth, and what was found; `total_ms` ends before the judge.

    `report`: the judge's verdict, where it was asked. `mm_per_px`, `truth_sizes` (an entry a true box),
    `ignored` and `label` are the example's.
    """

    name: str
    group: str
    truth: tuple[NamedBox, ...]
    inspection: Inspection
    total_ms: float
    report: Report | None = None
    mm_per_px: float | None = None
    truth_sizes: tuple[Any, ...] = ()
    ignored: tuple[NamedBox, ...] = ()
    label: str | None = None


def setup_for(bundle: Bundle, inspector: Inspector) -> Setup:
    """What the judge wants to know beside the part, on a workstation."""
    return Setup(
        device_id="workstation",
        station_id="evaluate",
        boot_id="0",
        recipe=inspector.recipe,
        configuration=Identity("evaluate", None, hashlib.sha256(b"").hexdigest()),  # there is none
        bundle=BundleIdentity(bundle.id, bundle.sha256, bundle.precision, "onnxruntime"),
        judgement=inspector.judgement,
    )


def inspected_parts(
    inspector: Inspector, rows: Sequence[Row], progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter, setup: Setup | None = None,
) -> list[EvaluatedPart]:
    """Every row read and inspected, in order, and judged where a `setup` is given; pictures are not kept."""
    return [parts[0] for parts in inspected_beside([(inspector, setup)], rows, progress, clock)]


def inspected_beside(
    inspectors: Sequence[tuple[Inspector, Setup | None]], rows: Sequence[Row],
    progress: Progress | None = None, clock: Callable[[], float] = time.perf_counter,
) -> list[list[EvaluatedPart]]:
    """[rows][inspectors]: every row read once and shown to all, so that they saw the same pixels."""
    parts = []
    for sequence, row in enumerate(rows):
        example = row.read()
        frame = example.frame(sequence)
        parts.append([_inspected(example, frame, *each, clock) for each in inspectors])
        if progress:
            progress(sequence + 1, len(rows), "evaluate")
    return parts


def _inspected(
    example: Example, frame: Frame, inspector: Inspector, setup: Setup | None, clock: Callable[[], float]
) -> EvaluatedPart:
    started = clock()
    inspection = inspector.inspect(frame)
    total_ms = 1000.0 * (clock() - started)
    report = None if setup is None else judged(frame, inspection, setup, total_ms)
    return EvaluatedPart(
        example.name, example.group, example.truth, inspection, total_ms, report, frame.mm_per_px,
        tuple(getattr(example, "truth_sizes", ())), tuple(getattr(example, "ignored", ())),
        getattr(example, "label", None),
    )


def judged(frame: Frame, inspection: Inspection, setup: Setup, total_ms: float) -> Report:
    """The report that the service would publish for this part, less what only a line knows."""
    trigger = trigger_from_frame(
        frame, setup, result_id=f"evaluate-{frame.sequence}", part=Part(frame.part_id, setup.recipe.product),
        view=View("evaluate"), clock=ClockReading("none", False, 0),
    )
    return report_from_inspection(trigger, frame.sequence, frame, inspection, setup, created_at=0.0,
                                  capture_ms=None, total_ms=total_ms)
