"""The schema of an ack and the code that reads one agree on every payload, right or wrong."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema

from orinspect.runtime.deliver.ack import result_ids_from_ack
from orinspect.runtime.errors import DeliveryError
from orinspect.tests.report_cases import ROOT

SCHEMA = json.loads((ROOT / "runtime" / "schema" / "ack-1.0.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
IDS: list[Any] = ["a", "019b7750-ce00-7000-8000-0000000000aa", "", "x" * 64, "x" * 65, 7, None, ["a"]]
VERSIONS: list[Any] = ["orinspect.ack/1.0", "orinspect.ack/1.9", "orinspect.ack/2.0", "", 1]


def _drawn(source: random.Random) -> Any:
    table: dict[str, Any] = {}
    if source.random() < 0.6:
        table["schema"] = source.choice(VERSIONS)
    if source.random() < 0.7:
        count = source.choice([0, 1, 1, 2, 3, 1000, 1001])
        right = source.random() < 0.6
        table["result_ids"] = [source.choice(IDS[:2] if right else IDS) for _ in range(count)]
    if source.random() < 0.4:
        table["result_id"] = source.choice(IDS)
    if source.random() < 0.2:
        table["station"] = "new in a later version"
    return source.choice([table] * 19 + [[table]])


def test_schema_and_code_agree() -> None:
    source, taken = random.Random(3), 0
    for _ in range(3000):
        message = _drawn(source)
        try:
            result_ids_from_ack(json.dumps(message).encode())
            is_taken = True
        except DeliveryError:
            is_taken = False
        assert is_taken == VALIDATOR.is_valid(message), json.dumps(message)[:300]
        taken += is_taken
    assert 300 < taken < 2700
