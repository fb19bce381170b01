"""A valid service.toml with every key that the configuration knows, made from its dataclasses."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal

from orinspect.runtime.config import ServiceConfig
from orinspect.runtime.config_reading import HIDDEN

EXAMPLES: dict[Any, Any] = {str: "text", int: 2, float: 0.5, bool: True, Path: "file"}


def service_table() -> dict[str, Any]:
    """Every table and key, optional ones too; defaults where there are any."""
    table: dict[str, Any] = _table_of(ServiceConfig)
    del table["mqtt"]["password_credential"]  # the other way to give a password
    table["evidence"]["zones"][0].update(x2=9, y2=9)
    table["commands"].update(allow=["inspect", "state"], unsigned=["state"])
    for key in ("every_s", "gpio_chip", "gpio_line"):  # each belongs to another kind of trigger
        table["trigger"].pop(key, None)
    return table


def _table_of(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    return {
        entry.name: _value_of(hints[entry.name], entry.default, entry.metadata.get("least", 0))
        for entry in dataclasses.fields(cls)
        if entry.metadata != HIDDEN
    }


def _value_of(hint: Any, default: Any, least: float) -> Any:
    arguments, origin = typing.get_args(hint), typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        return _table_of(hint)
    if origin is types.UnionType:
        return _value_of(arguments[0], dataclasses.MISSING, least)
    if origin is tuple:
        return [_value_of(arguments[0], dataclasses.MISSING, least)]
    if origin is Literal:
        return arguments[0]
    if default not in (dataclasses.MISSING, None):
        return default
    example = EXAMPLES[hint]
    return example if hint in (str, Path, bool) else max(example, hint(least))
