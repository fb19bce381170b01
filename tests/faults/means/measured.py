"""What a process takes over time: memory, descriptors, threads, and straight lines through such samples."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path


def resident_kb(pid: int | str = "self") -> float:
    """Resident memory in KiB; pages that it shares with other processes count, its page cache does not."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") / 1024


def descriptors(pid: int | str = "self") -> float:
    """Open descriptors."""
    return float(len(os.listdir(f"/proc/{pid}/fd")))


def threads(pid: int | str = "self") -> float:
    """Threads."""
    return float(len(os.listdir(f"/proc/{pid}/task")))


def slope_of(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, float]:
    """Least-squares slope of y over x and its standard error; (0, inf) for fewer than three points.

    The error takes the residuals for independent; memory comes in steps, so it is an optimistic one.
    """
    count = len(xs)
    if count < 3:
        return 0.0, math.inf
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return 0.0, math.inf
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in zip(xs, ys, strict=True))
    return slope, math.sqrt(rest / (count - 2) / spread)
