"""One trigger: a part is there now, and what is known about it before anybody has looked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SignalKind = Literal["time", "command", "gpio"]


@dataclass(frozen=True)
class TriggerSignal:
    """A part is in front of the camera at `monotonic_ns`; the picture that belongs to it comes afterwards.

    `unix_s`: the same moment by the wall clock. `trigger_id` names it in the report. The rest is what the
    line knows of the part, None where it does not.
    """

    kind: SignalKind
    trigger_id: str
    monotonic_ns: int
    unix_s: float
    part_id: str | None = None
    job_id: str | None = None
    lot: str | None = None
