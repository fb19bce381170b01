"""What the outbox gives out and what it raises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...errors import DeliveryError

Level = Literal["ok", "full", "fault"]

STATES = ("accepted", "committed", "published", "acknowledged")
FULL = "not_inspected.outbox_full"


class OutboxFullError(DeliveryError):
    """There is no room for another part. It was counted: its sequence lies in a gap, which gets a report."""


class OutboxFaultError(DeliveryError):
    """Not even the count of parts can be written: the line must stop."""


@dataclass(frozen=True)
class Accepted:
    """A part that was accepted and has no report yet; `trigger` is the JSON given to `accept`."""

    result_id: str
    sequence: int
    trigger: str


@dataclass(frozen=True)
class Committed:
    """A report that waits for the broker; `payload` is its JSON."""

    result_id: str
    payload: str


@dataclass(frozen=True)
class Gap:
    """Sequences `first` to `last` of a boot that no report stands for; `reason` is a reason code, `why` one
    sentence. After a damage some of them may have been delivered before."""

    number: int
    boot_id: str
    first: int
    last: int
    reason: str
    why: str
