"""What the MES says on `ack`: the reports that it has stored, `orinspect.ack/1.0`."""

from __future__ import annotations

import json

from ..errors import DeliveryError

MOST_IDS = 1000
"""In one message; a consumer with more sends another message."""
_LONGEST_ID = 64


def result_ids_from_ack(payload: bytes) -> tuple[str, ...]:
    """The ids in `{"result_ids": [...]}`, or in the short form `{"result_id": "..."}`, each once, in order.

    `schema` may be left out. DeliveryError when it is anything else: nothing is taken from such a message.
    """
    try:
        table = json.loads(payload)
        many, one = table.get("result_ids"), table.get("result_id")
        ids = [one] if many is None else many
        version = table.get("schema", "orinspect.ack/1.0")
        if not version.startswith("orinspect.ack/1.") or not 1 <= len(ids) <= MOST_IDS:
            raise ValueError
        right = (isinstance(name, str) and 1 <= len(name) <= _LONGEST_ID for name in ids)
        if not isinstance(ids, list) or not all(right):
            raise ValueError
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DeliveryError(
            f'ack: expected {{"schema": "orinspect.ack/1.0", "result_ids": [1 to {MOST_IDS} ids]}},'
            f" received {payload[:80]!r}"
        ) from error
    return tuple(dict.fromkeys(ids))
