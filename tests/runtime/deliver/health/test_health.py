"""Health: what it says, when it is published, and what it says when something cannot be known."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.config import AuditConfig, EvidenceConfig
from orinspect.runtime.deliver.audit import journal
from orinspect.runtime.deliver.audit.journal import Audit
from orinspect.runtime.deliver.evidence import evidence
from orinspect.runtime.deliver.evidence.evidence import Evidence
from orinspect.runtime.deliver.health import metrics
from orinspect.runtime.deliver.health.process import disk_usage, process_usage
from orinspect.runtime.deliver.health.ticker import Ticker
from orinspect.runtime.deliver.link.alarm import ALARMS
from orinspect.runtime.deliver.statistics import statistics
from orinspect.runtime.errors import CaptureError
from orinspect.tests.brokers import WAIT_S
from orinspect.tests.healthy_station import HEALTH, HealthyStation, Meter
from orinspect.tests.report_cases import frame, report


@pytest.fixture
def station(tmp_path: Path) -> Iterator[HealthyStation]:
    made = HealthyStation(tmp_path)
    with made.outbox, made.statistics:
        yield made


def test_it_says_everything_or_why_not(station: HealthyStation) -> None:
    health = station.health()
    station.clock.step(3.0)
    found = health.snapshot()
    HEALTH.validate(found)
    assert (found["uptime_s"], found["state"], found["alarms"]) == (3.0, "ready", [])
    assert found["results"]["simulated"] == {"pass": 0, "reject": 0, "review": 0, "not_inspected": 0}
    nulls = {name for name, value in found.items() if value is None} - {"reason"}
    assert nulls == set(found["null_reasons"])
    assert found["null_reasons"] == {
        "last_result_age_s": "no_result_yet", "evidence": "not_configured", "audit": "not_configured",
        "temperatures_c": "no_power_meter", "power_mw": "no_power_meter", "camera": "no_findings",
    }  # fmt: skip
    assert found["disks"]["outbox"]["free_bytes"] > 0
    assert found["disks"]["evidence"] == found["disks"]["outbox"], "the disk on which it will be made"
    assert found["process"]["rss_bytes"] > 10**6
    assert found["process"]["threads"] >= threading.active_count()
    assert found["process"]["descriptors"] > 3
    assert found["versions"]["orinspect"] == "9.9"
    assert "paho-mqtt" in found["versions"]


def test_the_parts_of_the_station_are_asked(station: HealthyStation) -> None:
    audit_config = AuditConfig(station.folder / "audit")
    kept = Evidence(EvidenceConfig(station.folder / "evidence", free_mib=0))
    with Audit(audit_config, boot_id="boot", clock=station.clock) as audit, kept:
        health = station.health(
            audit_head=lambda: audit.head, evidence=kept, power=Meter(), camera=lambda: {"freeze": False}
        )
        audit.write("start")
        station.commit()
        with kept.kept(report("reject"), frame().image):
            pass
        kept.close(WAIT_S)
        station.clock.step(12.5)
        found = health.snapshot()
        HEALTH.validate(found)
        assert found["audit"] == {"n": 1, "head": audit.head.hash}
    assert found["results"]["simulated"]["reject"] == 1
    assert (found["outbox"]["committed"], found["outbox"]["oldest_waiting_s"]) == (1, 12.5)
    assert found["last_result_age_s"] == 12.5
    assert found["evidence"]["written"] == found["evidence"]["reject"]["sets"] == 1
    assert (found["temperatures_c"], found["power_mw"]) == ({"tj": 61.5}, {"VDD_IN": 9120.0})
    assert found["camera"] == {"freeze": False}


def test_what_fails_is_null_with_its_words_and_the_rest_is_said(station: HealthyStation) -> None:
    def broken() -> dict[str, Any]:
        raise CaptureError("the camera says nothing")

    station.outbox.close()
    found = station.health(camera=broken).snapshot()
    HEALTH.validate(found)
    assert found["null_reasons"]["camera"] == "the camera says nothing"
    assert found["outbox"] is None
    assert "outbox" in found["null_reasons"]["outbox"]
    assert found["process"]["threads"] > 0


def test_no_age_is_told_by_a_clock_that_nobody_trusts(station: HealthyStation) -> None:
    station.commit()
    station.clock.is_synchronised = False
    assert station.health().snapshot()["outbox"]["oldest_waiting_s"] is None
    station.clock.is_synchronised = True
    station.clock.now_s -= 10 * 365 * 86400  # it jumped
    assert station.health().snapshot()["outbox"]["oldest_waiting_s"] == 0.0


def test_it_is_published_at_the_interval_and_at_once_on_change(station: HealthyStation) -> None:
    health = station.health()
    for _ in range(3):
        health.tick()
    assert len(station.published) == 1
    station.clock.step(29.9)
    health.tick()
    assert len(station.published) == 1
    station.clock.step(0.2)
    health.tick()
    assert len(station.published) == 2
    station.state = ("degraded", "the camera is dark")
    health.tick()
    health.tick()
    assert station.published[-1]["reason"] == "the camera is dark"
    assert len(station.published) == 3
    station.alarms["evidence.not_written"] = "No space left on device"
    health.tick()
    assert station.published[-1]["alarms"] == [
        {"code": "evidence.not_written", "text": "No space left on device"}
    ]
    station.clock.is_synchronised = False
    health.tick()
    assert len(station.published) == 5


def test_a_system_without_proc_says_null(tmp_path: Path) -> None:
    assert process_usage(tmp_path) == {"rss_bytes": None, "threads": None, "descriptors": None}
    assert disk_usage({"here": tmp_path})["here"]["size_bytes"] > 0


def test_every_alarm_of_the_records_has_a_remedy() -> None:
    """A code that is not in the list would stop whoever raises it."""
    codes = {evidence.ALARM, metrics.ALARM, statistics.NOT_COUNTED, statistics.NOT_WRITTEN, journal.ALARM}
    assert codes <= ALARMS.keys()


def test_the_ticker_goes_on_when_a_job_fails(caplog: pytest.LogCaptureFixture) -> None:
    done = threading.Semaphore(0)

    def broken() -> None:
        raise ZeroDivisionError

    with Ticker([broken, done.release], 0.001):
        for _ in range(3):
            assert done.acquire(timeout=WAIT_S)
    assert "a job of the ticker failed" in caplog.text
