"""What a station says on the wire, held against the contract: each message by the schema that it names."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema

from orinspect.tests.report_cases import ROOT

FOLDER = ROOT / "runtime" / "schema"
NAMES = {  # topic below the root -> formats that may stand there
    "result": {"report", "not_inspected"},
    "state": {"state"},
    "health": {"health"},
    "stats/shift": {"stats"},
    "alarm": {"alarm"},
    "cmd-response": {"answer"},
    "ack": {"ack"},
}


def check_message(topic: str, table: dict[str, Any]) -> None:
    """AssertionError or ValidationError when this may not stand on `topic` (below the root)."""
    name, _, version = table["schema"].removeprefix("orinspect.").partition("/")
    assert name in NAMES[topic], f"{table['schema']} on {topic}"
    _validator(f"{name.replace('_', '-')}-{version}").validate(table)


@cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
