"""The report and its schema: every kind validates, and what a consumer must never see does not."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from orinspect.runtime import report as module
from orinspect.runtime.report import Report, timestamp
from orinspect.tests.report_cases import GOLDEN, KINDS, SCHEMA, report

LATER = ("quality", "novelty", "review_details")
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))


def _table(kind: str) -> dict[str, Any]:
    table: dict[str, Any] = json.loads(report(kind).to_json())
    return table


def _nulls(value: Any, path: str = "") -> set[str]:
    if value is None:
        return {path}
    if isinstance(value, dict):
        return set().union(*(_nulls(inner, f"{path}.{key}" if path else key) for key, inner in value.items()))
    if isinstance(value, list):
        return set().union(*(_nulls(inner, f"{path}[]") for inner in value))
    return set()


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_report_validates(kind: str) -> None:
    VALIDATOR.validate(_table(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_null_has_its_reason_and_no_reason_is_left_over(kind: str) -> None:
    table = _table(kind)
    reasons = table.pop("null_reasons")
    assert set(reasons) == _nulls(table)
    assert "unknown" not in reasons.values()


@pytest.mark.parametrize("kind", KINDS)
def test_the_released_payload_is_still_written_and_still_valid(kind: str) -> None:
    """A golden file is never edited: if this fails, the format changed and needs a new version."""
    golden = json.loads((GOLDEN / f"report-1.0-{kind}.json").read_text(encoding="utf-8"))
    VALIDATOR.validate(golden)
    written = _table(kind)
    assert list(written) == list(golden)
    recipe_hash = written["recipe"].pop("sha256"), golden["recipe"].pop("sha256")
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in recipe_hash)
    assert written == golden


@pytest.mark.parametrize("kind", ["failed", "aborted", "review"])
def test_what_was_not_decided_is_never_a_pass(kind: str) -> None:
    assert _table(kind)["disposition"] == "review"
    lie = {**_table(kind), "disposition": "pass", "result_evaluation": "ok", "result_evaluation_code": 1}
    assert not VALIDATOR.is_valid({**lie, "review_reasons": []})


def test_a_cut_answer_says_what_happened() -> None:
    table = _table("failed")
    assert (table["result_state"], table["result_state_code"]) == ("failed", 4)
    assert table["reason_code"] == "failed.answer"
    assert table["is_partial"]
    assert "cut at 256" in table["null_reasons"]["reasoning"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra", 1),
        ("defects.0.extra", 1),
        ("defects.0.bbox", [1, 2, 3]),
        ("defects.0.confidence", 1.5),
        ("disposition", "accept"),
        ("result_state_code", 4),
        ("result_id", "7"),
        ("part.part_id", ""),
        ("bundle.sha256", "short"),
        ("captured_at", "2026-01-01 00:00:00"),
        ("schema", "orinspect.report/2.0"),
        ("timings_ms", None),
        ("review_reasons", ["boredom"]),
    ],
)
def test_a_wrong_value_is_refused(path: str, value: object) -> None:
    table = copy.deepcopy(_table("reject"))
    place: Any = table
    *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in way:
        place = place[step]
    place[last] = value
    assert not VALIDATOR.is_valid(table)


@pytest.mark.parametrize("name", [name for name in _table("pass") if name not in LATER])
def test_no_field_may_be_absent(name: str) -> None:
    table = _table("pass")
    del table[name]
    assert not VALIDATOR.is_valid(table)


@pytest.mark.parametrize("kind", KINDS)
def test_payloads_from_before_the_measures_are_still_valid(kind: str) -> None:
    """What came later is optional in the schema: stored payloads of a development version stay readable."""
    table = _table(kind)
    for name in LATER:
        del table[name]
    for defect in table["defects"]:
        for name in ("severity_reason", "raw_confidence", "measures", "notes", "review_reasons"):
            del defect[name]
    for name in ("decision", "grade", "nominal_mm", "compared"):
        del table["compliance_detail"][name]
    for name in ("calibrated_at", "expires_at"):
        del table["scale"][name]
    VALIDATOR.validate(table)


def test_a_newer_minor_version_may_add_fields_but_not_1_0() -> None:
    added = {**_table("pass"), "humidity": 0.4}
    assert not VALIDATOR.is_valid(added)
    assert VALIDATOR.is_valid({**added, "schema": "orinspect.report/1.1"})
    newer = {**_table("aborted"), "reason_code": "not_inspected.eclipse"}
    assert not VALIDATOR.is_valid(newer)
    assert VALIDATOR.is_valid({**newer, "schema": "orinspect.report/1.1"})


def test_the_closed_lists_are_the_same_in_code_and_schema() -> None:
    properties = VALIDATOR.schema["properties"]
    of_1_0 = VALIDATOR.schema["else"]["properties"]
    assert tuple(of_1_0["review_reasons"]["items"]["enum"]) == module.REVIEW_REASONS
    assert set(of_1_0["reason_code"]["enum"]) == {*module.REASON_CODES, None}
    assert set(properties["result_state_code"]["enum"]) == set(module.RESULT_STATE_CODES.values())
    assert set(properties["result_evaluation_code"]["enum"]) == set(module.EVALUATION_CODES.values())


def test_a_number_that_is_not_finite_never_leaves() -> None:
    broken = Report(**{**report("pass").__dict__, "confidence": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        broken.to_json()


def test_timestamps_carry_milliseconds_and_their_zone() -> None:
    assert timestamp(1767225600.2509) == "2026-01-01T00:00:00.250Z"


def test_half_a_character_in_a_name_does_not_reach_the_network() -> None:
    part = replace(report("pass").part, part_id="p\udcff")
    text = replace(report("pass"), part=part).to_json()
    assert json.loads(text.encode())["part"]["part_id"] == "p?"
