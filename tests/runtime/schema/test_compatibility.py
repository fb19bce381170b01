"""Released means promised: the present schemas only add optional fields, and old payloads stay readable.

tests/golden/contract holds, for every released version, its schemas and payloads as they were. Nothing there
is ever edited; a new minor version gets files of its own.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from orinspect.tests.report_cases import GOLDEN, ROOT
from orinspect.tests.runtime.schema.compatibility import breaks

CURRENT = ROOT / "runtime" / "schema"
RELEASED = GOLDEN / "contract"
SCHEMAS = sorted(RELEASED.glob("*.schema.json"))
PAYLOADS = [*sorted(RELEASED.glob("*.payload-*.json")), *sorted(GOLDEN.glob("report-1.0-*.json"))]
Table = dict[str, Any]


def _table(path: Path) -> Table:
    table: Table = json.loads(path.read_text(encoding="utf-8"))
    return table


def _current(path: Path) -> Table:
    """The present schema of the same name and major version."""
    name, major = _format_of(path)[:-2], _format_of(path)[-3]
    assert name.endswith(f"-{major}")
    return _table(max(CURRENT.glob(f"{name}.*.json")))


def _format_of(path: Path) -> str:
    """`report-1.0` of a golden file's name."""
    found = re.match(r"[a-z-]+-\d+\.\d+", path.name)
    assert found is not None
    return found[0]


def test_every_format_of_a_topic_is_held_by_a_golden_file() -> None:
    promised = {path.stem for path in CURRENT.glob("*-1.0.json")} - {"asyncapi-1.0"}
    assert promised == {_format_of(path) for path in SCHEMAS} == {_format_of(path) for path in PAYLOADS}


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.name)
def test_the_present_schema_only_adds_optional_fields(path: Path) -> None:
    assert breaks(_table(path), _current(path)) == []


@pytest.mark.parametrize("path", PAYLOADS, ids=lambda path: path.name)
def test_a_released_payload_is_valid_then_and_now(path: Path) -> None:
    payload, part = _table(path), path.name.partition(".payload-")[2].removesuffix(".json")
    released = _table(RELEASED / f"{_format_of(path)}.schema.json")
    for schema in (released, _current(path)):
        if "$defs" in schema and "properties" not in schema:  # the commands: one definition each
            schema = {**schema["$defs"][part.split(".")[0]], "$defs": schema["$defs"]}
        jsonschema.Draft202012Validator(schema).validate(payload)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["properties"].pop("lot"), "$.properties.lot is gone"),
        (lambda s: s["required"].append("shift"), "$.required has gained ['shift']"),
        (lambda s: s["required"].remove("lot"), "$.required lost ['lot']"),
        (lambda s: s["properties"]["lot"].update(type=["string", "null"]), "$.properties.lot.type was"),
        (lambda s: s["properties"]["lot"].update(maxLength=3), "$.properties.lot.maxLength is new"),
        (lambda s: s["properties"]["kind"]["enum"].append("c"), "$.properties.kind.enum was"),
        (lambda s: s["properties"]["kind"].pop("minLength"), "$.properties.kind.minLength is gone"),
        (lambda s: s["$defs"]["time"].update(pattern="x"), "$.$defs.time.pattern was"),
        (lambda s: s.update(additionalProperties=False), "$.additionalProperties was"),
        (lambda s: s["else"]["properties"]["code"]["enum"].pop(), "$.else.properties.code.enum lost"),
    ],
)
def test_whatever_would_break_somebody_is_said(change: Callable[[Table], object], said: str) -> None:
    """The comparison itself cannot pass by looking away."""
    old: Table = {
        "type": "object",
        "required": ["lot"],
        "properties": {"lot": {"type": "string"}, "kind": {"enum": ["a", "b"], "minLength": 1}},
        "additionalProperties": True,
        "$defs": {"time": {"pattern": "^z$"}},
        "else": {"properties": {"code": {"enum": ["x", "y"]}}},
    }
    new = copy.deepcopy(old)
    change(new)
    assert any(line.startswith(said) for line in breaks(old, new)), breaks(old, new)


def test_new_optional_fields_definitions_codes_and_words_are_free() -> None:
    old: Table = {
        "required": ["a"],
        "properties": {"a": {"type": "string"}},
        "$defs": {},
        "else": {"properties": {"code": {"enum": ["x"]}}},
    }
    new = copy.deepcopy(old)
    new["properties"] |= {"required": {"type": "string"}, "b": {"type": "integer"}}
    new["properties"]["a"]["description"] = "said better"
    new["$defs"]["c"] = {"type": "null"}
    new["else"]["properties"]["code"]["enum"].append("y")
    assert breaks(old, new) == []
