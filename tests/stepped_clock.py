"""A clock that a test sets: wall time, monotonic time, and whether the wall time can be trusted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SteppedClock:
    """Starts at 2026-01-01T00:00:00Z, synchronised."""

    now_s: float = 1767225600.0
    monotonic: int = 1_000_000_000
    is_synchronised: bool = True
    source: str = "system"

    def unix_s(self) -> float:
        return self.now_s

    def monotonic_ns(self) -> int:
        return self.monotonic

    def synchronised(self) -> bool:
        return self.is_synchronised

    def step(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.now_s += seconds
        self.monotonic += int(seconds * 1e9)
