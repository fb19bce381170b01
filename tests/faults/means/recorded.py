"""Results that were recorded once (tests/golden), each under an id of its own and with a mark of its own."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from random import Random

from orinspect.runtime.uuid7 import result_id_from
from orinspect.tests.report_cases import GOLDEN, KINDS


def new_result_id(random: Random) -> str:
    """A result id as the service makes it, its time and its random bits from `random`."""
    return result_id_from(1.7e9 + random.random() * 1e8, random.random() < 0.9, random.randbytes)


def recorded_payload(result_id: str, sequence: int, random: Random) -> str:
    """One of the recorded reports under this id; the random mark in it makes every content a new one."""
    table = json.loads(_recorded(random.choice(KINDS)))
    mark = random.randbytes(random.choice((8, 8, 8, 1500))).hex()
    return json.dumps({**table, "result_id": result_id, "sequence": sequence, "reasoning": mark})


def digest(payload: str | bytes) -> str:
    """A short name of a content."""
    return hashlib.sha256(payload.encode() if isinstance(payload, str) else payload).hexdigest()[:16]


@cache
def _recorded(kind: str) -> str:
    return (GOLDEN / f"report-1.0-{kind}.json").read_text(encoding="utf-8")
