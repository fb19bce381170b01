"""One message on `alarm`: something that a person must do began or ended, `orinspect.alarm/1.0`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Alarm:
    """`code` names the alarm, `text` is one sentence for a person, or None: it is over; `at` is RFC 3339."""

    code: str
    text: str | None
    at: str
    device_id: str
    station_id: str
    boot_id: str

    def to_json(self) -> str:
        """The payload."""
        table = {"schema": "orinspect.alarm/1.0", **asdict(self), "is_raised": self.text is not None}
        return json.dumps(table, ensure_ascii=False)
