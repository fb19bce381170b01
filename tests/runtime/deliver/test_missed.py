"""Parts without reports: every gap of a real outbox becomes one message, once, and nothing is unaccounted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jsonschema
import pytest

from orinspect.runtime.deliver.missed import report_gaps
from orinspect.runtime.deliver.outbox import Bounds, Outbox, OutboxFullError
from orinspect.runtime.deliver.statistics.facts import facts_from_payload
from orinspect.tests.report_cases import ROOT

SCHEMA = json.loads((ROOT / "runtime" / "schema" / "not-inspected-1.0.json").read_text(encoding="utf-8"))
AT = "2026-01-01T00:00:00.000Z"


def _report(outbox: Outbox, boot: str) -> int:
    number = itertools.count(1)
    return report_gaps(
        outbox, device_id="d", station_id="s", boot_id=boot, created_at=AT, clock_synchronised=True,
        new_id=lambda: f"019b7750-ce00-7000-8000-{next(number):012d}",
    )  # fmt: skip


def test_a_full_outbox_accounts_for_every_part_when_there_is_room_again(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite", bounds=Bounds(most_rows=2)) as outbox:
        for number in range(1, 3):
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        for number in range(3, 8):
            with pytest.raises(OutboxFullError):
                outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        assert _report(outbox, "boot") == 0, "a gap that still grows has no report"
        for name in ("r1", "r2"):
            outbox.commit(name, "{}")
        outbox.mark_published("r1", "r2")
        assert outbox.accept("r8", "boot", "cam", 8, "{}") == 8
        assert _report(outbox, "boot") == 1
        assert _report(outbox, "boot") == 0, "once"
        (row,) = outbox.waiting(9)
    message = json.loads(row.payload)
    jsonschema.Draft202012Validator(SCHEMA).validate(message)
    assert row.result_id == message["result_id"]
    assert message["missed"] == {"boot_id": "boot", "first_sequence": 3, "last_sequence": 7}
    assert (message["sequence"], message["reason_code"]) == (9, "not_inspected.outbox_full")
    facts = facts_from_payload(row.payload)
    assert facts is not None
    assert (facts.boot_id, facts.first, facts.last, facts.verdict) == ("boot", 3, 7, None)
