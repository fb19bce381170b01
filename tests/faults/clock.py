"""Clocks: a station that starts in 1970, or whose clock steps by up to ten years in the midst of its parts.

The whole service runs with a clock of the campaign's: camera process, outbox, publisher and broker are real,
the inspector answers at once. What orders results must not care: sequences without a hole, ids only once.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from random import Random
from uuid import UUID

from orinspect.runtime import service
from orinspect.runtime.capture.clock import SystemClock
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.config import InspectionConfig, load_config
from orinspect.runtime.infer.golden_frames import Mismatch
from orinspect.runtime.infer.inspector import Inspection
from orinspect.runtime.infer.judgement import UNJUDGED, Judgement
from orinspect.runtime.recipe import Recipe
from orinspect.runtime.report import BundleIdentity
from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.kill9 import ROOT
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Body, Forked, Tell
from orinspect.tests.faults.service_kill9 import write_service_config
from orinspect.tests.report_cases import RECIPE, candidate, inspection

YEAR_S = 365.25 * 86400
NOW_S = 1.78e9
PARTS = 12
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


class SteppingClock(SystemClock):
    """Stands where it is put, runs on a little with each look, and steps when it is told."""

    def __init__(self, unix_s: float, synchronised: bool) -> None:
        self.now_s, self.is_good, self.looks = unix_s, synchronised, 0

    def unix_s(self) -> float:
        self.now_s += 0.001
        return self.now_s

    def monotonic_ns(self) -> int:
        self.looks += 1
        return super().monotonic_ns()

    def synchronised(self) -> bool:
        return self.is_good


class SteppingInspector:
    """Answers at once, and steps the clock after each part."""

    recipe: Recipe = RECIPE
    judgement: Judgement = UNJUDGED

    def __init__(self, clock: SteppingClock, random: Random) -> None:
        self._clock, self._random = clock, random

    def golden_mismatches(self) -> tuple[int, tuple[Mismatch, ...]]:
        return 0, ()

    def inspect(self, frame: Frame) -> Inspection:
        """Half of the parts have a defect."""
        clock, random = self._clock, self._random
        clock.now_s += random.choice((0.0, 0.0, 1.0, -1.0, random.uniform(-10, 10))) * YEAR_S
        clock.is_good = random.random() < 0.5
        return inspection([candidate()] if random.random() < 0.5 else [])


class Reading(Consumer):
    """Keeps the reports themselves."""

    def __init__(self, port: int, root: str) -> None:
        self.reports: list[dict[str, object]] = []
        super().__init__(port, root)

    def _store(self, result_id: str, payload: bytes) -> None:
        super()._store(result_id, payload)
        self.reports.append(json.loads(payload))


def run_clock(seed: int, folder: Path, parts: int = PARTS) -> Tally:
    """Two runs of one station: the second goes on behind the first, with a clock of another year."""
    random = Random(f"clock {seed}")
    failures = []
    with mosquitto(folder, "allow_anonymous true") as port, Reading(port, ROOT) as consumer:
        for run in (1, 2):
            source = f"scenes:pcb?seed={2 * seed + run}&size_px=128&parts={parts}"
            config = write_service_config(folder, port, source)
            start_s = random.choice((0.0, 0.0, NOW_S, NOW_S + 10 * YEAR_S, random.uniform(0, NOW_S)))
            body = _body(config, SteppingClock(start_s, random.random() < 0.5), Random(random.random()))
            with Forked(body, folder, consumer) as station:
                code = station.wait(consumer)
                if code != 0:
                    failures.append(f"run {run} from {start_s:.0f} ended with {code}: {station.last_words()}")
        consumer.pump_while_it_comes(lambda: len(consumer.contents) >= 2 * parts)
        failures += _faults(consumer, 2 * parts)
    return Tally(2 * parts, tuple(failures))


def _body(config: Path, clock: SteppingClock, random: Random) -> Body:
    @contextlib.contextmanager
    def opened(_: InspectionConfig) -> Iterator[tuple[SteppingInspector, BundleIdentity]]:
        yield SteppingInspector(clock, random), BundleIdentity("b" * 16, "b" * 64, "int8", "none")

    def body(tell: Tell, orders: int) -> int:
        sys.modules["__main__"] = types.ModuleType(
            "__main__"
        )  # the capture process imports only what it needs
        return service.run_service(load_config(config), clock=clock, open_inspector=opened)

    return body


def _faults(consumer: Reading, parts: int) -> list[str]:
    """What does not hold of the reports; `captured_at` is the capture process's own, real clock."""
    reports = {str(report["result_id"]): report for report in consumer.reports}
    faults = [
        f"result {result_id} came with {len(stored)} contents"
        for result_id, stored in consumer.contents.items()
        if len(stored) > 1
    ]
    if len(reports) != parts:
        faults.append(f"{len(reports)} results of {parts} parts")
    sequences = sorted(int(str(report["sequence"])) for report in reports.values())
    if sequences != list(range(1, parts + 1)):
        faults.append(f"the sequences are {sequences}")
    for result_id, report in reports.items():
        if report["result_state"] == "failed":  # a scene may be too white to be inspected
            faults.append(f"result {result_id} is {report['result_state']}: {report['null_reasons']}")
        if not all(RFC_3339.fullmatch(str(report[name])) for name in ("created_at", "captured_at")):
            faults.append(f"result {result_id} was made at {report['created_at']!r}")
        clock = report["clock"]
        assert isinstance(clock, dict)
        # an id that sorts by time must not come of a time that nobody vouches for
        if UUID(result_id).version != (7 if clock["synchronised"] else 4):
            faults.append(f"result {result_id} and its clock ({clock}) do not fit")
    return faults


CAMPAIGN = Campaign(
    name="clock",
    promise="clock starts in 1970 or steps by up to 10 years: every part reported once, in order, ids honest",
    point="parts",
    target=1_000,
    run=run_clock,
    needs=("mosquitto",),
)
