"""Tables of a TOML or JSON file as frozen dataclasses: every key is a field, or an error that names it.

A misspelt key that is silently ignored lets defects pass, so there is no such thing as an unknown key.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import Any, Literal

from .errors import OrinspectError

ErrorKind = type[OrinspectError]
MOST = 1e300

EXPECTED: dict[Any, str] = {
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    float: "a number",
}


def json_value(text: str | bytes) -> Any:
    """The value of a JSON text; ValueError also for one that is nested deeper than Python reads, or that
    holds NaN or Infinity, which are no JSON."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which is no number of JSON")


def is_text(value: str) -> bool:
    """False for a text with half a character pair in it, which JSON can write and no UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def toml_table(text: str, where: str, error: ErrorKind) -> dict[str, Any]:
    """The tables of a TOML text; `error`, starting with `where`, when it is not valid."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10 has none; tomli is installed there
        try:
            import tomli as tomllib  # type: ignore[no-redef,unused-ignore]
        except ModuleNotFoundError as missing:
            raise error(f"{where}: reading TOML on Python 3.10 needs tomli; pip install tomli") from missing
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as wrong:
        raise error(f"{where}: not valid TOML ({wrong})") from wrong


def dataclass_from_table(cls: Any, table: Any, where: str, error: ErrorKind, name: str = "") -> Any:
    """Fill a dataclass from a table; `name` is the table's dotted name, empty at the top.

    A field's metadata `table` is what its author writes instead of the field's name: `[[defect]]` for
    `defects`.
    """
    place = f"{where}: [{name}]" if name else where
    if not isinstance(table, dict):
        raise error(f"{where}: {name} must be a table, found {kind_of(table)}")
    fields = {entry.name: entry for entry in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in fields:
            known = ", ".join(entry.metadata.get("table", key) for key, entry in fields.items())
            raise error(f"{place}: unknown key {key!r}; known keys are {known}")
    for key, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and key not in table:
            spelled = entry.metadata.get("table")
            raise error(f"{place}: {f'[[{spelled}]]' if spelled else repr(key)} is missing")
    values = {}
    for key, value in table.items():
        # the list itself is `defects`, one of its tables `[defect]`
        shown = fields[key].metadata.get("table", key) if isinstance(value, list) else key
        values[key] = typed(hints[key], value, where, error, f"{name}.{shown}" if name else shown)
    return cls(**values)


def typed(hint: Any, value: Any, where: str, error: ErrorKind, key: str) -> Any:
    """`value` as the type `hint`, or an error that names the key, the value and what is expected."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return dataclass_from_table(hint, value, where, error, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise error(f"{where}: {key} must be a list, found {kind_of(value)}")
        return tuple(typed(arguments[0], item, where, error, key) for item in value)
    if origin is Literal:
        if value not in arguments or isinstance(value, bool):
            raise error(f"{where}: {key} is {value!r}; expected {' or '.join(map(repr, arguments))}")
        return value
    if origin in (types.UnionType, typing.Union):  # `X | None`, also where X is a Literal
        return None if value is None else typed(arguments[0], value, where, error, key)
    # bool is an int in Python, never in a table
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= MOST:  # NaN, infinity, and whole numbers that no float can hold
            raise error(f"{where}: {key} is {str(value)[:20]}; give a finite number")
        return float(value)
    if isinstance(value, str) and not is_text(value):
        raise error(f"{where}: {key} holds half a character; found {value!r}")
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise error(f"{where}: {key} must be {EXPECTED[hint]}, found {kind_of(value)} {value!r}")
    return value


def kind_of(value: Any) -> str:
    """What the author of a table calls the type of this value."""
    names = {
        dict: "a table",
        list: "a list",
        str: "text",
        bool: "true/false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), type(value).__name__)
