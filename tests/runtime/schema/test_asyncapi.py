"""The AsyncAPI document: valid by AsyncAPI's own JSON Schema, and about our topics, schemas and commands."""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jsonschema
import pytest

from orinspect.tests.report_cases import ROOT

FOLDER = ROOT / "runtime" / "schema"
DOCUMENT: dict[str, Any] = json.loads((FOLDER / "asyncapi-1.0.json").read_text(encoding="utf-8"))
THEIRS = ROOT / "tests" / "golden" / "asyncapi" / "asyncapi-3.0.0.schema.json.gz"
RETAINED = {"state": True, "health": True, "stats": True, "result": False, "alarm": False, "review": False}


@cache
def _validator() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(THEIRS.read_bytes())))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for member in value.values():
            yield from _references(member)
    elif isinstance(value, list):
        for member in value:
            yield from _references(member)


def _followed(reference: str) -> Any:
    """What a reference names, in this document or in a schema beside it."""
    file, _, pointer = reference.partition("#")
    place = json.loads((FOLDER / file).read_text(encoding="utf-8")) if file else DOCUMENT
    for step in filter(None, pointer.split("/")):
        place = place[step.replace("~1", "/").replace("~0", "~")]
    return place


def test_it_is_valid_by_asyncapi_s_own_schema() -> None:
    _validator().validate(DOCUMENT)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda d: d["operations"]["publishResult"].update(action="emit"),
        lambda d: d["operations"]["publishResult"]["bindings"]["mqtt"].update(qos=7),
        lambda d: d["channels"]["result"].update(adress="typo"),
        lambda d: d.pop("info"),
    ],
)
def test_their_schema_refuses_what_is_wrong(break_it: Callable[[dict[str, Any]], object]) -> None:
    broken = copy.deepcopy(DOCUMENT)
    break_it(broken)
    assert not _validator().is_valid(broken)


def test_every_reference_leads_somewhere() -> None:
    for reference in set(_references(DOCUMENT)):
        assert _followed(reference), reference


def test_every_schema_file_is_some_topic_s_message() -> None:
    used = {reference.partition("#")[0] for reference in _references(DOCUMENT)} - {""}
    files = {f"./{path.name}" for path in FOLDER.glob("*.json")} - {"./asyncapi-1.0.json"}
    assert used == files


def test_every_channel_has_an_operation_with_all_its_messages() -> None:
    told: dict[str, set[str]] = {name: set() for name in DOCUMENT["channels"]}
    for operation in DOCUMENT["operations"].values():
        for half in (operation, operation.get("reply", {})):
            for message in half.get("messages", []):
                channel, name = re.fullmatch(r"#/channels/(\w+)/messages/(\w+)", message["$ref"]).groups()  # type: ignore[union-attr]
                told[channel].add(name)
    assert told == {name: set(channel["messages"]) for name, channel in DOCUMENT["channels"].items()}


def test_quality_of_service_is_one_and_retained_is_what_is_retained() -> None:
    for operation in DOCUMENT["operations"].values():
        binding = operation["bindings"]["mqtt"]
        assert binding["qos"] == 1
        channel = operation["channel"]["$ref"].rpartition("/")[2]
        if operation["action"] == "send":
            assert binding["retain"] == RETAINED[channel]
