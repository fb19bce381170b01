"""Commands as they come: every mistake is refused by name, none by a traceback."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from orinspect.runtime.config import COMMANDS
from orinspect.runtime.deliver.commands.request import (
    ARGUMENTS,
    REASONS,
    RefusedCommand,
    request_from_payload,
)

GOOD: dict[str, Any] = {"id": "c-1", "issued_at": "2026-01-31T08:15:00Z", "arguments": {"recipe": "r"}}


def _payload(**changes: Any) -> bytes:
    table = {**GOOD, **changes}
    return json.dumps({key: value for key, value in table.items() if value is not ...}).encode()


def _reason(name: str, payload: bytes) -> tuple[str, str, str | None]:
    with pytest.raises(RefusedCommand) as caught:
        request_from_payload(name, payload, most_bytes=4096)
    return caught.value.reason, str(caught.value), caught.value.command_id


def test_a_good_one_is_read() -> None:
    request = request_from_payload("recipe/select", _payload(), most_bytes=4096)
    assert (request.name, request.id, dict(request.arguments)) == ("recipe/select", "c-1", {"recipe": "r"})
    assert request.issued_at == 1769847300.0


@pytest.mark.parametrize("text", ["2026-01-31T08:15:00.5Z", "2026-01-31T10:15:00.500000+02:00"])
def test_moments_as_rfc_3339_has_them(text: str) -> None:
    assert request_from_payload("state", _payload(issued_at=text, arguments={}), most_bytes=99).issued_at == (
        1769847300.5
    )


def test_the_table_of_commands_is_that_of_the_configuration() -> None:
    assert tuple(ARGUMENTS) == COMMANDS


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"id": ...}, "id is None"),
        ({"id": 7}, "id is 7"),
        ({"id": ""}, "id is ''"),
        ({"id": "a b"}, "id is 'a b'"),
        ({"id": "x" * 65}, "64"),
        ({"issued_at": ...}, "issued_at is None"),
        ({"issued_at": "2026-01-31T08:15:00"}, "issued_at"),
        ({"issued_at": "yesterday"}, "'yesterday'"),
        ({"issued_at": 1769847300}, "1769847300"),
        ({"issued_at": "2026-01-32T08:15:00Z"}, "issued_at"),
        ({"issued_at": "20260131T081500Z"}, "issued_at"),
        ({"arguments": []}, "arguments is []"),
        ({"arguments": {}}, "'recipe'"),
        ({"arguments": {"recipe": "r", "why": "x"}}, "'why'"),
        ({"arguments": {"recipe": 1}}, "recipe is 1"),
        ({"arguments": {"recipe": ""}}, "recipe is ''"),
        ({"arguments": {"recipe": " "}}, "recipe"),
        ({"arguments": {"recipe": "x" * 129}}, "128"),
        ({"arguments": {"recipe": "a\nb"}}, "control"),
        ({"arguments": {"recipe": "a\ud800"}}, "control"),
        ({"extra": 1}, "'extra'"),
        ({"signature": 5}, "signature is 5"),
    ],
)
def test_a_mistake_is_malformed_and_named(changes: dict[str, Any], named: str) -> None:
    reason, sentence, _ = _reason("recipe/select", _payload(**changes))
    assert reason == "malformed"
    assert named in sentence


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 4000, b'{"id":"a","id":"b"}', b'{"id": NaN}', b'"x"'],
)
def test_what_is_no_object_is_malformed(payload: bytes) -> None:
    assert _reason("state", payload)[0] == "malformed"


def test_a_command_that_is_none_and_one_that_is_too_large() -> None:
    assert _reason("reboot", _payload())[0] == "unknown_command"
    assert _reason("", b"")[0] == "unknown_command"
    assert _reason("state/", b"")[0] == "unknown_command"
    assert _reason("x" * 60_000, b"")[0] == "unknown_command"
    assert _reason("state", b" " * 4097)[0] == "too_large"


def test_the_id_is_in_a_refusal_as_soon_as_it_is_known() -> None:
    assert _reason("recipe/select", _payload(extra=1))[2] == "c-1"
    assert _reason("recipe/select", _payload(id=7))[2] is None


def test_no_damage_to_a_payload_gives_anything_but_a_refusal() -> None:
    draw = random.Random(4)
    whole = _payload()
    reasons = []
    for _ in range(5_000):
        broken = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(broken))
            if draw.random() < 0.3:
                del broken[place]
            else:
                broken[place] = draw.randrange(256)
        try:
            request_from_payload(draw.choice(COMMANDS), bytes(broken), most_bytes=4096)
        except RefusedCommand as refusal:
            reasons.append(refusal.reason)
    assert len(reasons) > 2_500
    assert set(reasons) <= set(REASONS)
