"""Parts without reports: a gap of a real outbox becomes one valid message, and no sequence is left over."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from orinspect.runtime.capture.clock import SystemClock
from orinspect.runtime.config import CameraConfig, DeviceConfig, InspectionConfig, OutboxConfig, ServiceConfig
from orinspect.runtime.config import MqttConfig as Mqtt
from orinspect.runtime.deliver.outbox import Bounds, Outbox, OutboxFullError
from orinspect.runtime.deliver.statistics.facts import facts_from_payload
from orinspect.runtime.line.parts import PartBook
from orinspect.tests.report_cases import ROOT

SCHEMA = json.loads((ROOT / "runtime" / "schema" / "not-inspected-1.0.json").read_text(encoding="utf-8"))


def test_a_full_outbox_accounts_for_every_part_when_there_is_room_again(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    config = ServiceConfig(
        DeviceConfig("orin-07", "aoi-1"), CameraConfig("scenes:pcb"), InspectionConfig(tmp_path),
        Mqtt("127.0.0.1", "a/b"), OutboxConfig(path),
    )  # fmt: skip
    counted: list[str] = []
    with Outbox(path, bounds=Bounds(most_rows=2)) as outbox:
        book = PartBook(
            config, SystemClock(), outbox, "boot", wake=lambda: None, count=counted.append, evidence=None
        )
        for number in range(1, 3):
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        for number in range(3, 8):
            with pytest.raises(OutboxFullError):
                outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        book.report_gaps()
        assert counted == [], "the gap still grows"
        for name in ("r1", "r2"):
            outbox.commit(name, "{}")
        outbox.mark_published("r1", "r2")
        assert outbox.accept("r8", "boot", "cam", 8, "{}") == 8, "the part behind the gap follows it"
        book.report_gaps()
        book.report_gaps()
        (row,) = outbox.waiting(9)
    message = json.loads(row.payload)
    jsonschema.Draft202012Validator(SCHEMA).validate(message)
    assert message["result_id"] == row.result_id
    assert message["missed"] == {"boot_id": "boot", "first_sequence": 3, "last_sequence": 7}
    assert (message["sequence"], message["reason_code"]) == (9, "not_inspected.outbox_full")
    assert len(counted) == 1
    facts = facts_from_payload(counted[0])
    assert facts is not None
    assert (facts.boot_id, facts.first, facts.last, facts.verdict) == ("boot", 3, 7, None)
