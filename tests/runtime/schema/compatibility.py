"""What a minor version may do to a schema: add optional fields. Everything else is said, by its path.

`breaks(old, new)` compares two JSON Schemas of ours, the released one and the present one. Descriptions may
change; a new member of `properties` must not be required; an `else` branch holds what the present minor
version itself is held to (closed lists of codes), and may grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

FREE = {"description", "title", "$comment", "$id", "examples"}


def breaks(old: Any, new: Any, path: str = "$") -> list[str]:
    """Why a consumer of `old` could stumble over what `new` allows, or a payload of `old` fail `new`."""
    return list(_breaks(old, new, path))


def _breaks(old: Any, new: Any, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            place = f"{path}.{key}"
            is_named = path.endswith((".properties", ".$defs"))  # then the keys are names, not keywords
            if not is_named and key in FREE:
                continue
            if not is_named and key == "required":
                yield from _required(old.get(key), new.get(key), place)
            elif key not in new:
                yield f"{place} is gone"
            elif key not in old:
                if not is_named:
                    yield f"{place} is new: {new[key]!r}"
            else:
                yield from _breaks(old[key], new[key], place)
    elif path.endswith(".enum") and ".else." in path and isinstance(old, list) and isinstance(new, list):
        if lost := [value for value in old if value not in new]:
            yield f"{path} lost {lost}"
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for number, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _breaks(one, other, f"{path}[{number}]")
    elif old != new or type(old) is not type(new):
        yield f"{path} was {old!r} and is {new!r}"


def _required(old: list[str] | None, new: list[str] | None, path: str) -> Iterator[str]:
    """The order says nothing; one name more or less breaks somebody."""
    before, after = set(old or ()), set(new or ())
    if before - after:
        yield f"{path} lost {sorted(before - after)}"
    if after - before:
        yield f"{path} has gained {sorted(after - before)}"
