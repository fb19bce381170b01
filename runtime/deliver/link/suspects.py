"""Reports that seem to break the connection: a broker of MQTT 3.1.1 cannot say that one is too large.

It closes the connection, every time, and the reports behind would wait for ever. So the same report on the
way at several losses makes delivery careful, one report at a time; one that breaks the connection alone, and
is larger than all that this broker ever took, is set aside.
"""

from __future__ import annotations

from collections.abc import Mapping

_LOSSES = 3
_HARMLESS_BYTES = 64 * 1024  # a report as small as this is never the reason


class Suspects:
    """What the losses of one process have in common."""

    def __init__(self) -> None:
        self._losses: dict[str, int] = {}
        self._alone: dict[str, int] = {}
        self._largest_taken = 0

    @property
    def is_careful(self) -> bool:
        """Whether reports go one at a time."""
        return any(count >= _LOSSES for count in self._losses.values())

    def confirmed(self, result_id: str, size: int) -> None:
        """The broker took a report of so many bytes."""
        self._largest_taken = max(self._largest_taken, size)
        self._losses.pop(result_id, None)
        self._alone.pop(result_id, None)

    def lost(self, on_the_way: Mapping[str, int], *, is_unreadable: bool = False) -> str | None:
        """The connection broke with these reports (id -> bytes) on the way; the one to set aside, if any.

        `is_unreadable`: it broke by an answer that could not be read, so one of them was not simply taken.
        """
        if is_unreadable and len(on_the_way) == 1:
            return next(iter(on_the_way))
        if is_unreadable:
            self._losses = dict.fromkeys(on_the_way, _LOSSES)
            return None
        is_alone = self.is_careful and len(on_the_way) == 1
        self._losses = {name: self._losses.get(name, 0) + 1 for name in on_the_way}
        if not is_alone:
            return None
        ((name, size),) = on_the_way.items()
        self._alone = {name: self._alone.get(name, 0) + 1}
        if self._alone[name] < _LOSSES or size <= max(self._largest_taken, _HARMLESS_BYTES):
            return None
        self._alone.clear()
        self._losses.clear()
        return name
