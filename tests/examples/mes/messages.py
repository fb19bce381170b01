"""Payloads for a consumer: real reports under ids of their own, and ranges that were not inspected."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from orinspect.examples.mes.store import Message
from orinspect.runtime.deliver.missed import Missed, NotInspected
from orinspect.tests.report_cases import BOOT, report

STATION = "plant/line/aoi-1"
AT = "2026-01-01T00:00:02.000Z"


def result_id(number: int) -> str:
    """A valid id, the same for the same number."""
    return str(uuid.UUID(int=(number << 80) | (7 << 76) | (8 << 60) | number))


def payload(sequence: int, kind: str = "pass", **changes: Any) -> bytes:
    """The report of one part of one boot; `changes` are fields of the report."""
    name = changes.pop("result_id", result_id(sequence))
    fields = {"is_simulated": False, "boot_id": BOOT, "root_result_id": name, **changes}
    made = dataclasses.replace(report(kind), result_id=name, sequence=sequence, **fields)
    return made.to_json().encode()


def range_payload(first: int, last: int, *, sequence: int = 900, **changes: Any) -> bytes:
    """Sequences that the station could not report one by one; the message itself belongs to a later boot."""
    missed = Missed(BOOT, first, last)
    name = result_id(1_000_000 + first)
    fields: dict[str, Any] = {"reason_code": "not_inspected.outbox_full", "why": "no room", **changes}
    station = ("orin-07", "aoi-1", "gap-boot")
    made = NotInspected(name, AT, True, *station, sequence, missed, is_simulated=False, **fields)
    return made.to_json().encode()


def message(content: bytes, station: str = STATION) -> Message:
    """As it arrives on `result`."""
    return Message(f"{station}/result", content, AT)
