"""The MES's ack: ids in the long and in the short form, and everything else refused as a whole."""

from __future__ import annotations

import json

import pytest

from orinspect.runtime.deliver.ack import MOST_IDS, result_ids_from_ack
from orinspect.runtime.errors import DeliveryError


@pytest.mark.parametrize(
    ("message", "ids"),
    [
        ({"schema": "orinspect.ack/1.0", "result_ids": ["b", "a", "b"]}, ("b", "a")),
        ({"schema": "orinspect.ack/1.7", "result_ids": ["a"], "station": "new in 1.7"}, ("a",)),
        ({"result_ids": ["a"] * MOST_IDS}, ("a",)),
        ({"result_id": "a"}, ("a",)),
    ],
)
def test_ids_come_once_and_in_order(message: object, ids: tuple[str, ...]) -> None:
    assert result_ids_from_ack(json.dumps(message).encode()) == ids


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[" * 100_000,
        b"null",
        b'["a"]',
        b"{}",
        b'{"result_ids": []}',
        b'{"result_ids": "abc"}',
        b'{"result_ids": {"a": 1}}',
        b'{"result_ids": ["a", 7]}',
        b'{"result_ids": ["a", ""]}',
        b'{"result_id": null}',
        b'{"result_id": ["a"]}',
        b'{"schema": "orinspect.ack/2.0", "result_ids": ["a"]}',
        b'{"schema": 1, "result_ids": ["a"]}',
        json.dumps({"result_ids": ["a"] * (MOST_IDS + 1)}).encode(),
        json.dumps({"result_id": "a" * 65}).encode(),
    ],
)
def test_anything_else_is_refused_as_a_whole(payload: bytes) -> None:
    with pytest.raises(DeliveryError, match=r'^ack: expected \{"schema"'):
        result_ids_from_ack(payload)
