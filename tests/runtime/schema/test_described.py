"""Every field of the code is in its schema and described, and the schema has no field that the code lacks."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from orinspect.runtime.deliver.link.alarm import ALARMS, Alarms
from orinspect.runtime.deliver.missed import NotInspected
from orinspect.runtime.deliver.publisher import STATES, StationState
from orinspect.runtime.report import Report
from orinspect.tests.report_cases import ROOT

FOLDER = ROOT / "runtime" / "schema"
FILES = sorted(path for path in FOLDER.glob("*.json") if not path.name.startswith("asyncapi"))
# name of the schema -> the dataclass that is written by it, and what is written beside its fields
WRITTEN = {
    "report-1.0": (Report, {"schema", "result_state_code", "result_evaluation_code"}),
    "not-inspected-1.0": (NotInspected, {"schema"}),
    "state-1.0": (StationState, {"schema"}),
}
Schema = dict[str, Any]


def _schema(name: str) -> Schema:
    schema: Schema = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return schema


def _resolved(node: Any, root: Schema) -> Any:
    """The node itself, or what its reference names; of `anyOf` the one that is not null."""
    while isinstance(node, dict):
        if "$ref" in node:
            node = root["$defs"][node["$ref"].rpartition("/")[2]]
        elif "anyOf" in node and any(option.get("type") == "null" for option in node["anyOf"]):
            node = next(option for option in node["anyOf"] if option.get("type") != "null")
        else:
            break
    return node


def _fields(node: Any, root: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every property below a node, by path, as written where it is named."""
    node = _resolved(node, root)
    if not isinstance(node, dict):
        return
    for name, member in node.get("properties", {}).items():
        yield f"{path}.{name}", member
        yield from _fields(member, root, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        yield from _fields(node.get(part), root, f"{path}[]")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_a_schema_and_every_field_says_what_it_means(path: Any) -> None:
    schema = _schema(path.stem)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:orinspect:schema:{path.stem.replace('not-', 'not_')}"
    roots = [schema] if "properties" in schema else list(schema["$defs"].values())
    fields = [field for root in roots for field in _fields(root, schema, "")]
    assert len(fields) > 2
    wordless = [name for name, node in fields if not (node.get("description") or _described(node, schema))]
    assert not wordless


def _described(node: Schema, root: Schema) -> bool:
    return "$ref" in node and "description" in root["$defs"][node["$ref"].rpartition("/")[2]]


@pytest.mark.parametrize("name", WRITTEN)
def test_code_and_schema_have_the_same_fields(name: str) -> None:
    schema = _schema(name)
    kind, beside = WRITTEN[name]
    assert _differences(kind, schema, schema, "", beside) == []


def _differences(kind: Any, node: Any, root: Schema, path: str, beside: set[str]) -> list[str]:
    """Where a dataclass and the schema of its table differ, inner dataclasses too."""
    node = _resolved(node, root)
    hints = typing.get_type_hints(kind)
    named, written = set(node["properties"]), {field.name for field in dataclasses.fields(kind)} | beside
    found = [f"{path}.{name} is only in the schema" for name in named - written]
    found += [f"{path}.{name} is only in the code" for name in written - named]
    for name in named & set(hints):
        inner = _dataclass_in(hints[name])
        member = _resolved(node["properties"][name], root)
        for part in ("items", "additionalProperties"):
            if inner is not None and "properties" not in member and isinstance(member.get(part), dict):
                member = _resolved(member[part], root)
        if inner is not None:
            found += _differences(inner, member, root, f"{path}.{name}", set())
    return found


def _dataclass_in(hint: Any) -> Any:
    """The dataclass inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X | None]`; None for any other."""
    if dataclasses.is_dataclass(hint):
        return hint
    inner = [_dataclass_in(part) for part in typing.get_args(hint) if part is not types.NoneType]
    return next((part for part in inner if part is not None), None)


def test_the_comparison_sees_inner_fields() -> None:
    schema = _schema("report-1.0")
    del schema["$defs"]["measure"]["properties"]["k"]
    schema["properties"]["part"]["properties"]["colour"] = {}
    found = _differences(*(WRITTEN["report-1.0"][0], schema, schema, "", WRITTEN["report-1.0"][1]))
    assert sorted(found) == [".defects.measures.k is only in the code", ".part.colour is only in the schema"]


def test_states_are_the_same_in_code_and_schema() -> None:
    assert tuple(_schema("state-1.0")["properties"]["state"]["enum"]) == STATES


def test_every_alarm_is_valid_and_says_no_more_than_the_schema() -> None:
    said: list[str] = []
    names = {"device_id": "d", "station_id": "s", "boot_id": "b"}
    alarms, schema = Alarms(names, said.append, lambda: 1767225602.0), _schema("alarm-1.0")
    for code in ALARMS:
        alarms.set(code, "the disk is full")
        alarms.set(code, None)
    messages = [json.loads(text) for text in said]
    assert [message["active"] for message in messages] == [True, False] * len(ALARMS)
    for message in messages:
        jsonschema.Draft202012Validator(schema).validate(message)
        assert set(message) == set(schema["properties"])
