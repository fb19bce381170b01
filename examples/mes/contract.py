"""What may be stored: a payload that is valid against the JSON Schema that it names, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jsonschema

MOST_BYTES = 4_000_000
"""A report is a few KB, and 400 KB with thousands of defects."""
SCHEMAS = {
    "orinspect.report/1.": "report-1.0.json",
    "orinspect.not_inspected/1.": "not-inspected-1.0.json",
}
"""The schema that a message on `result` names -> the file that checks it. A newer minor version only adds
optional fields, so the file of 1.0 checks it too; another major version needs another consumer."""


class InvalidError(Exception):
    """A message that is not what the contract says; the text says why, for a person."""


class Contract:
    """The schemas of one folder; `checked` reads a payload."""

    def __init__(self, folder: Path) -> None:
        self._validators = {
            start: jsonschema.Draft202012Validator(json.loads((folder / name).read_text(encoding="utf-8")))
            for start, name in SCHEMAS.items()
        }

    def checked(self, payload: bytes) -> dict[str, Any]:
        """The message as a table, valid and storable; InvalidError otherwise."""
        table = table_from_payload(payload)
        named = table.get("schema")
        for start, validator in self._validators.items():
            if isinstance(named, str) and named.startswith(start):
                error = jsonschema.exceptions.best_match(validator.iter_errors(table))
                if error is not None:
                    raise InvalidError(f"{error.json_path}: {error.message}"[:500])
                return table
        raise InvalidError(f"schema is {named!r}; this consumer knows {', '.join(s + 'x' for s in SCHEMAS)}")


def table_from_payload(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload; InvalidError for what a database or another reader cannot take."""
    if len(payload) > MOST_BYTES:
        raise InvalidError(f"{len(payload)} bytes; at most {MOST_BYTES} are read")
    try:
        table = json.loads(payload.decode("utf-8"), parse_constant=_refuse, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"not JSON in UTF-8: {error}"[:500]) from error
    if not isinstance(table, dict):
        raise InvalidError(f"expected an object, found {type(table).__name__}")
    for text in _texts(table):
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise InvalidError("a text holds a null character or half a character, which no database takes")
    return table


def content_of(table: dict[str, Any]) -> str:
    """SHA-256 of the canonical JSON: equal for equal content, however it was spaced or ordered."""
    text = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice in one object")
    return table


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)
