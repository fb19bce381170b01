"""docs/opc-mapping.md: every field of the report is in it, OPC names are spelled as in OPC's node sets."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from orinspect.runtime.report import EVALUATION_CODES
from orinspect.tests.report_cases import GOLDEN, ROOT, SCHEMA

PAGE = (ROOT / "docs" / "opc-mapping.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]
OPC = json.loads((GOLDEN / "opc-names.json").read_text(encoding="utf-8"))


def _leaves(node: dict[str, Any], root: dict[str, Any], path: str = "") -> list[str]:
    """Paths of the report's fields, down to what is no object."""
    if "$ref" in node:
        node = root["$defs"][node["$ref"].rpartition("/")[2]]
    members = node.get("properties", {})
    return [leaf for name, member in members.items() for leaf in _leaves(member, root, f"{path}.{name}")] or [
        path.lstrip(".")
    ]


def test_every_field_of_the_report_or_what_holds_it_is_mapped() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    mapped = {row[0].strip("`") for row in ROWS}
    fields = set(_leaves(schema, schema)) - {"schema"}
    parents = {field: {field[:end] for end in _ends(field)} for field in fields}
    assert [field for field in fields if not parents[field] & mapped and not _is_detail(field)] == []
    assert mapped <= set().union(*parents.values()), "a row that is no field"


def _ends(field: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\.|$", field)]


def _is_detail(field: str) -> bool:
    """Stages and counts inside an object whose only OPC names are those of two stages."""
    return field.startswith("timings_ms.")


@pytest.mark.parametrize(("column", "part"), [(1, "40001-101"), (2, "40100-1")])
def test_every_opc_name_is_spelled_as_there(column: int, part: str) -> None:
    names = {row[column] for row in ROWS} - {"-"}
    assert len(names) > 12
    assert names <= set(OPC[part])


def test_the_codes_of_the_evaluation_are_theirs() -> None:
    theirs = {name.lower(): code for name, code in OPC["ResultEvaluationEnum"].items()}
    assert {name.replace("_", ""): code for name, code in EVALUATION_CODES.items()} == theirs
