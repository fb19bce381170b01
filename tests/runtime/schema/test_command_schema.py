"""The schema of the commands and the code that reads them agree on every payload, right or wrong."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from orinspect.runtime.deliver.commands.request import (
    ARGUMENTS,
    REASONS,
    RefusedCommand,
    request_from_payload,
)
from orinspect.tests.report_cases import ROOT

FOLDER = ROOT / "runtime" / "schema"
COMMANDS = json.loads((FOLDER / "command-1.0.json").read_text(encoding="utf-8"))["$defs"]
DOCUMENT = json.loads((FOLDER / "asyncapi-1.0.json").read_text(encoding="utf-8"))
TEXTS: list[Any] = ["4711", "a b", "ä" * 128, "x" * 129, "", "  ", "a\nb", "\ud800", 7, None, ["a"], True]
IDS: list[Any] = ["mes-1", "a:b/c.d_e", "x" * 64, "x" * 65, "", "a b", 1, None]
MOMENTS: list[Any] = [
    *("2026-01-31T08:15:00Z", "2026-01-31T08:15:00.123456+01:00", "2026-01-31 08:15:00Z"),
    *("2026-01-31T08:15:00", "2026-01-31T08:15:00.1234567Z", "yesterday", 0, None),
]


def _key(name: str) -> str:
    return name.replace("/", "_").replace("-", "_")


def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({**COMMANDS[_key(name)], "$defs": COMMANDS})


def test_the_commands_are_the_same_in_code_schema_and_asyncapi() -> None:
    assert {COMMANDS[_key(name)]["title"] for name in ARGUMENTS} == {f"cmd/{name}" for name in ARGUMENTS}
    addresses = {channel["address"] for channel in DOCUMENT["channels"].values()}
    assert {address for address in addresses if address.startswith("{root}/cmd/")} == {
        f"{{root}}/cmd/{name}" for name in ARGUMENTS
    }
    for name, known in ARGUMENTS.items():
        arguments = COMMANDS[_key(name)]["properties"]["arguments"]
        assert set(arguments["properties"]) == set(known)
        assert set(arguments.get("required", ())) == {key for key, required in known.items() if required}


def _drawn(source: random.Random, name: str) -> dict[str, Any]:
    """A payload that is right in about half of its parts."""

    def one_of(values: list[Any], right: int) -> Any:
        return source.choice(values[:right] if source.random() < 0.85 else values)

    table = {"id": one_of(IDS, 3), "issued_at": one_of(MOMENTS, 2)}
    if source.random() < 0.8:
        known = list(ARGUMENTS[name])
        table["arguments"] = {key: one_of(TEXTS, 3) for key in known if source.random() < 0.7}
        if source.random() < 0.1:
            table["arguments"] = source.choice([None, [], "none", {"colour": "red"}])
    if source.random() < 0.2:
        table["signature"] = source.choice(["0" * 64, None, 7])
    if source.random() < 0.1:
        table[source.choice(["schema", "ID", "command"])] = "x"
    if source.random() < 0.05:
        del table[source.choice(["id", "issued_at"])]
    return table


def _refusal(name: str, table: dict[str, Any]) -> str | None:
    """Why the code refuses a payload; None when it takes it."""
    try:
        request_from_payload(name, json.dumps(table).encode(), most_bytes=100_000)
    except RefusedCommand as refused:
        return refused.reason
    return None


@pytest.mark.parametrize("name", ARGUMENTS)
def test_schema_and_code_agree(name: str) -> None:
    source, validator, taken = random.Random(name), _validator(name), 0
    for _ in range(1500):
        table = _drawn(source, name)
        refusal = _refusal(name, table)
        assert refusal in (None, "malformed")
        assert (refusal is None) == validator.is_valid(table), table
        taken += refusal is None
    assert 200 < taken < 1400


def test_reasons_of_refusals_fit_the_schema_of_the_answer() -> None:
    answer = json.loads((FOLDER / "answer-1.0.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(answer["properties"]["reason"])
    assert all(validator.is_valid(reason) for reason in REASONS)
