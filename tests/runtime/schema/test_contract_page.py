"""docs/contract.md: its examples are valid, its table of topics is the AsyncAPI document's."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest

from orinspect.runtime.deliver.ack import result_ids_from_ack
from orinspect.tests.report_cases import ROOT

FOLDER = ROOT / "runtime" / "schema"
PAGE = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```json ([\w.#-]+)\n(.*?)```", PAGE, re.DOTALL)
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def _schema(name: str) -> dict[str, Any]:
    file, _, part = name.partition("#")
    schema: dict[str, Any] = json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))
    return {**schema["$defs"][part], "$defs": schema["$defs"]} if part else schema


def test_the_examples_are_found() -> None:
    assert {name.partition("#")[0] for name, _ in EXAMPLES} >= {"ack-1.0", "state-1.0", "command-1.0"}
    assert PAGE.count("```json") == len(EXAMPLES)


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_an_example_is_valid_as_it_stands(name: str, text: str) -> None:
    jsonschema.Draft202012Validator(_schema(name)).validate(json.loads(text))


def test_the_ack_is_read_by_the_station() -> None:
    (text,) = [text for name, text in EXAMPLES if name == "ack-1.0"]
    assert len(result_ids_from_ack(text.encode())) == 2


def test_the_table_of_topics_is_the_asyncapi_document() -> None:
    document = json.loads((FOLDER / "asyncapi-1.0.json").read_text(encoding="utf-8"))
    addresses = {
        re.sub("^cmd/.*", "cmd/<name>", channel["address"].removeprefix("{root}/"))
        for channel in document["channels"].values()
    }
    told = {row[0].strip("`"): row for row in ROWS}
    assert set(told) == addresses
    for operation in document["operations"].values():
        channel = document["channels"][operation["channel"]["$ref"].rpartition("/")[2]]
        row = told[re.sub("^cmd/.*", "cmd/<name>", channel["address"].removeprefix("{root}/"))]
        binding = operation["bindings"]["mqtt"]
        if "draft" not in row[5]:
            assert int(row[3]) == binding["qos"]
            assert (row[4] == "yes") == binding.get("retain", False)
        for message in channel["messages"].values():
            name = message["$ref"].rpartition("/")[2]
            payload = document["components"]["messages"][name]["payload"]["schema"]["$ref"]
            assert payload.partition("#")[0].removeprefix("./").removesuffix(".json") in row[5]
