"""A station of real parts around its health: outbox, counters, a clock that a test sets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema

from orinspect.runtime.config import HealthConfig, ShiftsConfig
from orinspect.runtime.deliver.health.health import Health, Sources
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.statistics.statistics import Statistics
from orinspect.runtime.report import timestamp
from orinspect.tests.report_cases import ROOT, report
from orinspect.tests.stepped_clock import SteppedClock

HEALTH_SCHEMA = json.loads((ROOT / "runtime" / "schema" / "health-1.0.json").read_text(encoding="utf-8"))
HEALTH = jsonschema.Draft202012Validator(HEALTH_SCHEMA)
FACTS = {"device_id": "orin-07", "station_id": "aoi-1", "boot_id": "boot"}


class Meter:
    """A power meter."""

    def temperatures_c(self) -> Mapping[str, float]:
        return {"tj": 61.5}

    def power_mw(self) -> Mapping[str, float]:
        return {"VDD_IN": 9120.0}


class HealthyStation:
    """Real parts around a health; what is published is kept."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, SteppedClock()
        self.published: list[dict[str, Any]] = []
        self.state: tuple[str, str | None] = ("ready", None)
        self.alarms: dict[str, str] = {}
        self.outbox = Outbox(folder / "outbox.sqlite")
        self.statistics = Statistics(
            ShiftsConfig(), folder / "counters", self.outbox, self, facts=FACTS, clock=self.clock
        )
        self.sources = Sources(
            lambda: self.state, self.outbox, self.statistics, lambda: self.alarms,
            disks={"outbox": folder, "evidence": folder / "not" / "there yet"},
        )  # fmt: skip

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        assert retain
        if name == "health":
            table = json.loads(payload)
            HEALTH.validate(table)
            self.published.append(table)

    def health(self, **sources: Any) -> Health:
        given = dataclasses.replace(self.sources, **sources)
        return Health(HealthConfig(), given, self, facts=FACTS, clock=self.clock, version="9.9")

    def commit(self, kind: str = "reject") -> None:
        given = dataclasses.replace(report(kind), created_at=timestamp(self.clock.now_s))
        self.outbox.accept(given.result_id, given.boot_id, "cam", 1, "{}")
        self.outbox.commit(given.result_id, given.to_json())
        self.statistics.count(given.to_json())
