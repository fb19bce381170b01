"""Seeded damage to valid documents: to the tree that JSON and TOML hold, to its text, and to bytes."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

TEXTS = (
    "", " ", "0", "-1", "nan", "true", "null", "a" * 5000, "\0", "\u202e", "\ud83d\ude00", "\ud800",
    "../../x", "/etc/passwd", "..", ".", "CON", "%s%n", "{}", "${HOME}", "a\nb", "#", "+", "x/#", "\"", "\\",
    "é", "٣", "²", "1e999", "0x10", "scenes:", "scenes:pcb?seed=", "folder:", "file:///etc",
    "2026-13-45T99:99:99Z",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 10**400,
    0.0, -0.0, 0.5, 1e-320, 1e308, -1e308, math.nan, math.inf, -math.inf, 1.0000000000000002, True, False,
)  # fmt: skip
Place = tuple[Any, ...]


def mutated_tree(tree: Any, random: Random) -> Any:
    """A copy with one to four changes at random places."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(tree))
        if not places:
            return _value(random)
        tree = _changed(tree, random.choice(places), random)
    return tree


def mutated_bytes(data: bytes, random: Random) -> bytes:
    """A copy with one to four changes: bits, bytes, lengths, pieces cut, doubled or moved."""
    content = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        at = (
            random.randrange(len(content) + 1)
            if random.random() < 0.5
            else random.randrange(min(len(content), 64) + 1)
        )  # headers stand in front
        kind = random.randrange(7)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            content[at : at + 1] = bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))])
        elif kind == 2:
            content[at : at + 4] = random.choice(
                (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80", random.randbytes(4))
            )
        elif kind == 3:
            del content[at:]
        elif kind == 4:
            del content[at : at + random.randrange(1, 64)]
        elif kind == 5:
            content[at:at] = random.randbytes(random.choice((1, 2, 8, 600)))
        else:
            content[at:at] = content[at : at + random.randrange(1, 256)] * random.randrange(1, 4)
    return bytes(content)


def json_bytes(tree: Any, random: Random) -> bytes:
    """The tree as JSON; sometimes with a key twice, with text that is no UTF-8, or damaged afterwards."""
    try:
        text = json.dumps(tree, ensure_ascii=random.random() < 0.5)
    except (TypeError, ValueError):
        text = "{}"
    if random.random() < 0.05 and text.startswith("{"):
        text = "{" + random.choice(('"schema": 1, ', '"a": [' * 3, "\ufeff")) + text[1:]
    return _damaged(text, random)


def toml_bytes(tree: Any, random: Random) -> bytes:
    """The tree as TOML; nulls are left out; sometimes damaged afterwards."""
    lines = (
        [f"{_key(key)} = {_toml(value)}" for key, value in tree.items() if value is not None]
        if isinstance(tree, dict)
        else [_toml(tree)]
    )
    return _damaged("\n".join(lines), random)


def _damaged(text: str, random: Random) -> bytes:
    """The text in UTF-8, or not quite; rarely with more brackets than a reader can follow."""
    if random.random() < 0.01:
        at = random.choice([0, *(number for number, sign in enumerate(text, 1) if sign in ":=[,")])
        text = text[:at] + random.choice(("[", '{"a":', "{a=")) * random.choice((900, 100_000)) + text[at:]
    data = text.encode("utf-8", errors="surrogatepass")
    return mutated_bytes(data, random) if random.random() < 0.25 else data


def _key(key: str) -> str:
    return json.dumps(str(key), ensure_ascii=False)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value if item is not None) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return json.dumps(value, ensure_ascii=False)


def _places(tree: Any, path: Place = ()) -> list[Place]:
    """Paths of everything inside a tree."""
    members: list[tuple[Any, Any]] = []
    if isinstance(tree, dict):
        members = list(tree.items())
    elif isinstance(tree, list):
        members = list(enumerate(tree))
    found: list[Place] = []
    for key, value in members:
        found += [(*path, key), *_places(value, (*path, key))]
    return found


def _changed(tree: Any, path: Place, random: Random) -> Any:
    holder = tree
    for key in path[:-1]:
        holder = holder[key]
    key = path[-1]
    kind = random.randrange(9)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice((*TEXTS, "__class__", "name", "sha256", "id"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, dict):
        holder[random.choice((*TEXTS, "type", "extra"))] = _value(random)
    elif kind == 3:
        holder[key] = [holder[key]] * random.choice((0, 1, 2, 300))
    elif kind == 4:
        holder[key] = {"value": holder[key]}
    elif kind == 5 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = random.choice((holder[key] + 1, holder[key] - 1, -holder[key], holder[key] * 10**6))
    elif kind == 6 and isinstance(holder[key], str):
        text = holder[key]
        at = random.randrange(len(text) + 1)
        holder[key] = text[:at] + random.choice(TEXTS) + text[at:]
    else:
        holder[key] = _value(random)
    return tree


def _value(random: Random) -> Any:
    kind = random.randrange(6)
    if kind < 2:
        return random.choice(NUMBERS)
    if kind < 4:
        return random.choice(TEXTS)
    return random.choice((None, [], {}, [None], [[]], {"": None}, [1, "a", {}], {"a": {"b": {"c": 1}}}))
