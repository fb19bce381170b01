"""One command as it came over MQTT, checked key by key.

    topic    <root>/cmd/<name>
    payload  {"id": text, "issued_at": RFC 3339, "arguments": {...}, "signature": hex}

Only `id` and `issued_at` must be there. An unknown key, a wrong type, a text that is too long: the command is
refused with a reason, and nothing has changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ...errors import OrinspectError

KEYS = ("id", "issued_at", "arguments", "signature")
ARGUMENTS: Mapping[str, Mapping[str, bool]] = {  # command -> argument -> whether it must be there
    "inspect": {"part_id": False, "job_id": False, "lot": False, "trigger_id": False},
    "recipe/select": {"recipe": True},
    "state": {},
    "self-test": {},
    "pause": {"reason": False},
    "resume": {},
    "bundle/activate": {"bundle": True, "recipe": False},
}
"""All commands, and what each may be told; every argument is a text."""
REASONS = (
    "unknown_command",
    "too_large",
    "malformed",
    "retained",  # the broker kept it for whoever comes later: nobody knows how old it is
    "not_allowed",  # `[commands] allow` does not name it
    "bad_signature",
    "stale",  # issued too long ago, or in the future
    "replayed",  # its id was seen before
    "busy",  # another command is under way
    "wrong_state",  # the station cannot do that now
    "failed",  # it was tried, and the station is as it was before
)
MOST_SIGNS = 128  # of an id or an argument
_ID = re.compile(r"[0-9A-Za-z._:/-]{1,64}")
_MOMENT = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8})(?:\.([0-9]{1,6}))?(Z|[+-][0-9]{2}:[0-9]{2})")
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # would break a log line or JSON


class RefusedCommand(OrinspectError):
    """A command that changes nothing; `reason` is one of REASONS, `command_id` its id where it has one."""

    def __init__(self, reason: str, sentence: str, command_id: str | None = None) -> None:
        super().__init__(sentence)
        self.reason, self.command_id = reason, command_id


@dataclass(frozen=True)
class Request:
    """A command that is well formed; nothing is said about whether its sender may give it."""

    name: str
    id: str
    issued_at: float  # unix seconds
    arguments: Mapping[str, str] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)  # as it came, for its signature


def request_from_payload(name: str, payload: bytes, *, most_bytes: int) -> Request:
    """Read one; RefusedCommand says what is wrong with it. `name` is what stands behind `cmd/`."""
    if name not in ARGUMENTS:
        known = ", ".join(ARGUMENTS)
        raise RefusedCommand("unknown_command", f"there is no command {name[:64]!r}; there are {known}")
    if len(payload) > most_bytes:
        raise RefusedCommand("too_large", f"{len(payload)} bytes; a command has at most {most_bytes}")
    table = _table(payload)
    command_id = table.get("id")
    if not isinstance(command_id, str) or not _ID.fullmatch(command_id):
        raise _malformed("id", command_id, "1 to 64 letters, digits or ._:/-", None)
    for key in table:
        if key not in KEYS:
            raise RefusedCommand(
                "malformed", f"unknown key {key[:64]!r}; known are {', '.join(KEYS)}", command_id
            )
    signature = table.get("signature")
    if signature is not None and not isinstance(signature, str):
        raise _malformed("signature", signature, "a text", command_id)
    return Request(
        name,
        command_id,
        _moment(table.get("issued_at"), command_id),
        _arguments(name, table.get("arguments", {}), command_id),
        table,
    )


def _table(payload: bytes) -> dict[str, Any]:
    """The JSON object of a payload; a key that is there twice is refused, since readers differ about it."""
    try:
        table = json.loads(payload.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise RefusedCommand("malformed", f"the payload is no JSON ({error})") from None
    if not isinstance(table, dict):
        raise RefusedCommand("malformed", f"expected a JSON object, found {type(table).__name__}")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key is there twice")
    return table


def _moment(value: Any, command_id: str) -> float:
    """Unix seconds of an RFC 3339 text with its zone."""
    wanted = "a moment such as 2026-01-31T08:15:00Z"
    found = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise _malformed("issued_at", value, wanted, command_id)
    whole, fraction, zone = found.groups()
    text = f"{whole}.{(fraction or '').ljust(6, '0')}{'+00:00' if zone == 'Z' else zone}"
    try:
        moment = datetime.fromisoformat(text)  # as Python 3.10 reads it, too
        return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds()
    except (ValueError, OverflowError):
        raise _malformed("issued_at", value, wanted, command_id) from None


def _arguments(name: str, table: Any, command_id: str) -> dict[str, str]:
    known = ARGUMENTS[name]
    if not isinstance(table, dict):
        raise _malformed("arguments", table, "an object", command_id)
    for key, value in table.items():
        if key not in known:
            told = f"known are {', '.join(known)}" if known else "it takes none"
            raise RefusedCommand("malformed", f"{name} has no argument {key[:64]!r}; {told}", command_id)
        if not isinstance(value, str) or not 0 < len(value.strip()) <= len(value) <= MOST_SIGNS:
            raise _malformed(key, value, f"a text of 1 to {MOST_SIGNS} signs", command_id)
        if _UNFIT.search(value):
            raise _malformed(key, value, "a text without control characters", command_id)
    for key, required in known.items():
        if required and key not in table:
            raise RefusedCommand("malformed", f"{name} needs the argument {key!r}", command_id)
    return dict(table)


def _malformed(key: str, value: Any, wanted: str, command_id: str | None) -> RefusedCommand:
    return RefusedCommand("malformed", f"{key} is {repr(value)[:80]}; give {wanted}", command_id)
