"""Parts without reports: a gap of a real outbox becomes one message, and no sequence is left over."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from orinspect.runtime.deliver.missed import Missed, NotInspected
from orinspect.runtime.deliver.outbox import Bounds, Outbox, OutboxFullError
from orinspect.runtime.deliver.statistics.facts import facts_from_payload
from orinspect.tests.report_cases import ROOT

SCHEMA = json.loads((ROOT / "runtime" / "schema" / "not-inspected-1.0.json").read_text(encoding="utf-8"))
ID, AT = "019b7750-ce00-7000-8000-000000000001", "2026-01-01T00:00:00.000Z"


def test_a_full_outbox_accounts_for_every_part_when_there_is_room_again(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.sqlite", bounds=Bounds(most_rows=2)) as outbox:
        for number in range(1, 3):
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        for number in range(3, 8):
            with pytest.raises(OutboxFullError):
                outbox.accept(f"r{number}", "boot", "cam", number, "{}")
        assert outbox.gaps() == (), "it still grows"
        for name in ("r1", "r2"):
            outbox.commit(name, "{}")
        outbox.mark_published("r1", "r2")
        assert outbox.accept("r8", "boot", "cam", 8, "{}") == 8, "the part behind the gap follows it"
        (gap,) = outbox.gaps()

        def payload(sequence: int) -> str:
            missed = Missed(gap.boot_id, gap.first, gap.last)
            station, why = ("d", "s", "boot"), (gap.reason, gap.why)
            return NotInspected(ID, AT, True, *station, sequence, missed, *why, False).to_json()

        outbox.commit_gap(gap, ID, "boot", payload)
        assert outbox.gaps() == ()
        (row,) = outbox.waiting(9)
    message = json.loads(row.payload)
    jsonschema.Draft202012Validator(SCHEMA).validate(message)
    assert message["missed"] == {"boot_id": "boot", "first_sequence": 3, "last_sequence": 7}
    assert (message["sequence"], message["reason_code"]) == (9, "not_inspected.outbox_full")
    facts = facts_from_payload(row.payload)
    assert facts is not None
    assert (facts.boot_id, facts.first, facts.last, facts.verdict) == ("boot", 3, 7, None)
