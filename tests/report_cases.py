"""Reports of every kind, built by the code that the service uses; tests/golden has their payloads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes
from orinspect.runtime.judge.assessment import (
    Setup,
    Trigger,
    report_from_inspection,
    report_not_inspected,
    trigger_from_frame,
)
from orinspect.runtime.recipe import DefectType, Recipe
from orinspect.runtime.report import BundleIdentity, ClockReading, Identity, Part, Report, View

ROOT = Path(__file__).resolve().parents[1]
RECIPE = Recipe(
    id="pcb-compare",
    version="1.0.0",
    product="bare-pcb",
    prompt="List the defects.",
    defects=(DefectType("open", "PCB-OPEN", "critical"), DefectType("short", "PCB-SHORT", "major")),
)
SCHEMA = ROOT / "runtime" / "schema" / "report-1.0.json"
GOLDEN = ROOT / "tests" / "golden"
BOOT = "11111111-2222-4333-8444-555555555555"
KINDS = ("pass", "reject", "review", "failed", "aborted")

PASSES = Passes(row_passes=9, engine_calls=7, tiles=100, tiles_gated=90, tiles_decoded=3, canonical_tokens=60)
TIMINGS = {"preprocess": 4.0, "vision": 20.25, "dense": 1.5, "prefill": 8.0, "decode": 30.0}


def setup(recipe: Recipe = RECIPE) -> Setup:
    """A station."""
    return Setup(
        device_id="orin-07",
        station_id="aoi-1",
        boot_id=BOOT,
        recipe=recipe,
        configuration=Identity("service.toml", "3", "c" * 64),
        bundle=BundleIdentity("b" * 16, "b" * 64, "int8", "onnxruntime"),
    )


def frame(sequence: int = 1) -> Frame:
    """A blank part."""
    picture = np.full((128, 128), 200, np.uint8)
    return Frame(
        image=picture,
        template=picture,
        sequence=sequence,
        captured_at=1767225600.25,
        monotonic_ns=5_000_000_000,
        source="scenes:pcb?seed=1",
        part_id=f"board-{sequence}",
        is_simulated=True,
        mm_per_px=1 / 48,
    )


def trigger(result_id: str = "019b7750-ce00-7000-8000-0000000000aa", sequence: int = 1) -> Trigger:
    """The accepted part of `frame`."""
    return trigger_from_frame(
        frame(sequence),
        setup(),
        result_id=result_id,
        part=Part(f"board-{sequence}", "bare-pcb", "job-9", None),
        view=View("cam0"),
        clock=ClockReading("system", True, 5_000_000_000),
    )


def inspection(
    defects: Sequence[CandidateDefect] = (),
    *,
    dropped: Sequence[CandidateDefect] = (),
    failed: str | None = None,
    strongest_rejected: float = 0.0,
) -> Inspection:
    """What an inspector would say."""
    return Inspection(
        tuple(defects), (), (), tuple(dropped), dict(TIMINGS), PASSES, failed, strongest_rejected
    )


def candidate(
    type: str = "open",
    box: tuple[float, float, float, float] = (10.0, 12.0, 40.0, 44.0),
    confidence: float = 0.97,
    detector: str = "both",
) -> CandidateDefect:
    """One found defect."""
    return CandidateDefect(type, box, confidence, detector, None)


def report(kind: str) -> Report:
    """The report of each of KINDS; the same every time."""
    if kind == "aborted":
        return report_not_inspected(
            trigger(),
            7,
            setup(),
            created_at=1767225601.5,
            reason_code="not_inspected.restart",
            why="it stopped",
        )
    found = {
        "pass": inspection(strongest_rejected=0.03),
        "reject": inspection([candidate(), candidate("short", (60.0, 61.5, 90.0, 92.0), 0.6, "dense")]),
        "review": inspection([candidate(confidence=0.5)]),
        "failed": inspection([candidate()], failed="the answer of tile 3 was cut at 256 tokens"),
    }[kind]
    return report_from_inspection(
        trigger(),
        7,
        frame(),
        found,
        setup(),
        created_at=1767225600.5,
        capture_ms=12.5,
        total_ms=66.0,
        clock=lambda: 0.0,
    )
