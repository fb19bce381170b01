"""The health of the station: one table of all that a person or a monitor asks first, retained on `health`.

It is published every `interval_s`, and at once when state, alarms or the quality of the clock change. What
cannot be said is null, and `null_reasons` says why.
"""

from __future__ import annotations

import json
import platform
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

from ...config import HealthConfig
from ...errors import OrinspectError
from ...report import timestamp
from ..audit.chain import Link
from ..evidence.evidence import Evidence
from ..outbox import Outbox
from ..statistics.statistics import Publishes, Statistics
from .process import disk_usage, process_usage

SCHEMA = "orinspect.health/1.0"
TOPIC = "health"
LIBRARIES = ("numpy", "opencv-python-headless", "opencv-python", "paho-mqtt", "onnxruntime", "tensorrt")


class PowerMeter(Protocol):
    """What the board measures of itself; the runtime knows no board."""

    def temperatures_c(self) -> Mapping[str, float]:
        """Degrees Celsius by sensor."""
        ...

    def power_mw(self) -> Mapping[str, float]:
        """Milliwatts by rail."""
        ...


class Clock(Protocol):
    """The device's clocks."""

    source: str

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never jump within one boot."""
        ...

    def synchronised(self) -> bool:
        """Whether `unix_s` can be trusted."""
        ...


@dataclass(frozen=True)
class Sources:
    """Where the values come from; None: there is none. Each is asked in the thread that wants to know."""

    state: Callable[[], tuple[str, str | None]]
    outbox: Outbox
    statistics: Statistics
    alarms: Callable[[], Mapping[str, str]] = dict
    audit_head: Callable[[], Link] | None = None
    evidence: Evidence | None = None
    camera: Callable[[], Mapping[str, Any]] | None = None
    power: PowerMeter | None = None
    disks: Mapping[str, Path] = field(default_factory=dict)


class Health:
    """Call `tick` often: it publishes when it is time. Safe to use from several threads."""

    def __init__(
        self,
        config: HealthConfig,
        sources: Sources,
        publisher: Publishes,
        *,
        facts: Mapping[str, str],
        clock: Clock,
        version: str,
    ) -> None:
        """`facts`: device_id, station_id, boot_id; `version`: of orinspect."""
        self._config, self._sources, self._publisher = config, sources, publisher
        self._facts, self._clock = facts, clock
        self._versions = versions(version)
        self._begun_ns = clock.monotonic_ns()
        self._mutex = threading.Lock()
        self._next_ns = 0
        self._signs: Any = None

    def tick(self) -> None:
        """Publish when the interval is over or something changed that nobody should wait for."""
        signs = (
            self._sources.state(), sorted(self._sources.alarms().items()), self._clock.synchronised()
        )  # fmt: skip
        now_ns = self._clock.monotonic_ns()
        with self._mutex:
            if signs == self._signs and now_ns < self._next_ns:
                return
            self._signs = signs
            self._next_ns = now_ns + int(self._config.interval_s * 1e9)
        self.publish()

    def publish(self) -> None:
        """Publish now."""
        self._publisher.publish(TOPIC, json.dumps(self.snapshot(), ensure_ascii=False), retain=True)

    def snapshot(self) -> dict[str, Any]:
        """The payload of `health`, as of now."""
        sources, clock = self._sources, self._clock
        nulls: dict[str, str] = {}
        state, reason = sources.state()
        now_ns = clock.monotonic_ns()

        def asked(name: str, source: Callable[[], Any] | None, why_not: str) -> Any:
            """The source's answer; null with the reason when there is none."""
            if source is None:
                nulls[name] = why_not
                return None
            try:
                found = source()
            except (OrinspectError, OSError) as error:
                nulls[name] = str(error)
                return None
            if found is None:
                nulls[name] = why_not
            return found

        meter = "no_power_meter"
        evidence, power, audit_head = sources.evidence, sources.power, sources.audit_head
        table = {
            "schema": SCHEMA,
            **self._facts,
            "created_at": timestamp(clock.unix_s()),
            "clock": {"source": clock.source, "synchronised": clock.synchronised()},
            "uptime_s": round((now_ns - self._begun_ns) / 1e9, 1),
            "boot_uptime_s": round(now_ns / 1e9, 1),
            "state": state,
            "reason": reason,
            "alarms": [{"code": code, "text": text} for code, text in sorted(sources.alarms().items())],
            "results": asked("results", self._results, "not_readable"),
            "last_result_age_s": asked("last_result_age_s", self._last_result_age_s, "no_result_yet"),
            "outbox": asked("outbox", self._outbox, "not_readable"),
            "evidence": asked("evidence", None if evidence is None else evidence.counts, "not_configured"),
            "disks": disk_usage(sources.disks),
            "process": process_usage(),
            "temperatures_c": asked("temperatures_c", None if power is None else power.temperatures_c, meter),
            "power_mw": asked("power_mw", None if power is None else power.power_mw, meter),
            "camera": asked("camera", sources.camera, "no_findings"),
            "audit": asked(
                "audit", None if audit_head is None else lambda: _head(audit_head()), "not_configured"
            ),
            "versions": self._versions,
        }
        return {**table, "null_reasons": nulls}

    def _results(self) -> dict[str, Any] | None:
        totals = self._sources.statistics.totals()
        if totals is None:
            return None
        real, simulated = (
            {**found.verdicts, "not_inspected": sum(found.not_inspected.values())}
            for found in (totals[False], totals[True])
        )
        return {**real, "simulated": simulated}

    def _last_result_age_s(self) -> float | None:
        last_ns = self._sources.statistics.last_result_ns
        return None if last_ns is None else round((self._clock.monotonic_ns() - last_ns) / 1e9, 1)

    def _outbox(self) -> dict[str, Any]:
        return {**self._sources.outbox.counts(), "oldest_waiting_s": self._oldest_waiting_s()}

    def _oldest_waiting_s(self) -> float | None:
        """Age of the oldest report that no broker confirmed; None when there is none, or no clock to tell."""
        oldest = self._sources.outbox.waiting(1)
        if not oldest or not self._clock.synchronised():
            return None
        created = seconds_from_timestamp(json.loads(oldest[0].payload)["created_at"])
        return round(max(self._clock.unix_s() - created, 0.0), 1)


def versions(version: str) -> dict[str, str]:
    """What runs here: orinspect, Python, the system's kernel and the installed libraries."""
    found = {"orinspect": version, "python": platform.python_version(), "kernel": platform.release()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def seconds_from_timestamp(text: str) -> float:
    """Unix seconds of what `report.timestamp` wrote."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _head(link: Link) -> dict[str, Any]:
    return {"n": link.n, "head": link.hash}
