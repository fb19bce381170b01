"""When a report that the MES did not acknowledge is sent again.

Time is counted in rounds of a quarter of `ack_timeout_s`, of this process's monotonic clock: the outbox keeps
the round in which a report is due, so that neither a step of the clock nor a restart sends all at once.
"""

from __future__ import annotations

_A_TIMEOUT = 4  # rounds
_MOST_DOUBLINGS = 6


class Rounds:
    """`first_due` is the earliest round in the outbox; it comes one timeout after the start."""

    def __init__(self, ack_timeout_s: float, first_due: int | None, monotonic_s: float) -> None:
        self.round_s = ack_timeout_s / _A_TIMEOUT
        self._start_s = monotonic_s
        self._base = 0 if first_due is None else first_due - _A_TIMEOUT

    def at(self, monotonic_s: float) -> int:
        """The round that it is."""
        return self._base + int((monotonic_s - self._start_s) / self.round_s)

    def due(self, tries: int, monotonic_s: float) -> int:
        """The round in which a report is sent again that was sent `tries` times more than once."""
        return self.at(monotonic_s) + (_A_TIMEOUT << min(tries, _MOST_DOUBLINGS)) + 1
