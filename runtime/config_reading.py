"""Tables of a TOML or JSON file as frozen dataclasses: unknown keys, wrong types and values, all by name.

A dataclass says what it takes by its type hints, and `number` gives a field the range of its values, so that
whoever adds a key writes it in one place. Hints may be str, int, float, bool, Path, Literal, a dataclass,
`X | None`, and `tuple[X, ...]` for a list.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError
from .tables import is_text

MOST = 1e9  # no number of a configuration is larger: what waits for seconds must be able to
HIDDEN = {"hidden": True}  # metadata of a field that no file may set
EXPECTED = {
    int: "a whole number",
    str: "a text",
    bool: "true or false",
    float: "a number",
    Path: "a path",
}


def number(default: Any = dataclasses.MISSING, *, least: float, most: float = MOST) -> Any:
    """A dataclass field whose value lies between `least` and `most`, both included; None passes."""
    return dataclasses.field(default=default, metadata={"least": least, "most": most})


def table_from_bytes(content: bytes, path: Path) -> dict[str, Any]:
    """The tables of a TOML file, or of a JSON file when its name ends in `.json`; ConfigError otherwise."""
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            table = json.loads(text)
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: expected tables, found {type(table).__name__}")
            return table
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid ({error})") from error
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            import tomli as tomllib  # type: ignore[no-redef,unused-ignore]
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{path}: Python 3.10 reads no TOML by itself; pip install tomli, or write it as service.json"
            ) from error
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error


class TableReader:
    """Fills dataclasses from the tables of one file and collects what is wrong, a sentence each."""

    def __init__(self, path: Path) -> None:
        """`path` names the file in the sentences; relative paths in it count from its folder."""
        self.problems: list[str] = []
        self._path = path

    def dataclass_from_table(self, cls: Any, table: Any, name: str = "") -> Any:
        """An instance of `cls`, or None when something is wrong; `name` is the table's, empty at the top."""
        if not isinstance(table, dict):
            return self._refuse(f"{name} must be a table, found {table!r}")
        before = len(self.problems)
        place = f"[{name}]: " if name else ""
        hints = typing.get_type_hints(cls)
        fields = {entry.name: entry for entry in dataclasses.fields(cls) if entry.metadata != HIDDEN}
        for key in table:
            if key not in fields:
                self._refuse(f"{place}unknown key {key!r}; known keys are {', '.join(fields)}")
        values = {}
        for key, entry in fields.items():
            required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
            if key in table:
                dotted = f"{name}.{key}" if name else key
                values[key] = self._typed(hints[key], table[key], dotted)
                self._check_range(entry, values[key], dotted)
            elif required:
                self._refuse(f"{place}{key!r} is missing")
        return cls(**values) if len(self.problems) == before else None

    def _typed(self, hint: Any, value: Any, key: str) -> Any:
        """`value` as the type `hint`; a wrong one is refused by its key, itself and what is expected."""
        if dataclasses.is_dataclass(hint):
            return self.dataclass_from_table(hint, value, key)
        arguments, origin = typing.get_args(hint), typing.get_origin(hint)
        if origin is Literal:
            if value not in arguments:
                return self._refuse(f"{key} is {value!r}; expected {' or '.join(map(repr, arguments))}")
            return value
        if origin is types.UnionType:
            return self._typed(arguments[0], value, key)
        if origin is tuple:
            if not isinstance(value, list):
                return self._refuse(f"{key} must be a list, found {value!r}")
            return tuple(self._typed(arguments[0], one, f"{key}[{index}]") for index, one in enumerate(value))
        is_bool = isinstance(value, bool)  # which is an int in Python, never in a configuration
        if isinstance(value, str) and ("\0" in value or not is_text(value)):
            return self._refuse(f"{key} holds a null or half a character; found {value!r}")
        if hint is Path and isinstance(value, str) and value:
            return self._path.parent / value
        if hint is float and isinstance(value, (int, float)) and not is_bool:
            if not abs(value) < math.inf or abs(value) > 1e300:  # NaN, and what no float can hold
                return self._refuse(f"{key} is {str(value)[:20]}; give a finite number")
            return float(value)
        if hint is not Path and isinstance(value, hint) and is_bool == (hint is bool):
            return value
        return self._refuse(f"{key} must be {EXPECTED[hint]}, found {value!r}")

    def _check_range(self, entry: dataclasses.Field[Any], value: Any, key: str) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return
        least, most = entry.metadata.get("least", -MOST), entry.metadata.get("most", MOST)
        if value < least:
            self._refuse(f"{key} is {_shown(value)}; it must be at least {least:g}")
        elif value > most:
            most_text = str(int(most)) if most < MOST else f"{most:g}"
            self._refuse(f"{key} is {_shown(value)}; it must be at most {most_text}")

    def _refuse(self, sentence: str) -> None:
        self.problems.append(f"{self._path}: {sentence}")


def _shown(value: float) -> str:
    """A number as its author wrote it; TOML has whole numbers of any length."""
    return f"{value:g}" if isinstance(value, float) else str(value)[:20]
