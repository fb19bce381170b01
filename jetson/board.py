"""What the board itself says: how much memory is free."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import EngineError

MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class BoardMemory:
    """Memory in bytes; on a Jetson the GPU's too. `available`: what a new program gets without swapping."""

    total: int
    available: int


def memory_from_text(text: str) -> BoardMemory:
    """The memory of a /proc/meminfo; EngineError when it does not say."""
    sizes = {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    try:
        return BoardMemory(sizes["MemTotal"], sizes["MemAvailable"])
    except KeyError as error:
        raise EngineError(f"{MEMINFO} says nothing of {error}; Linux 3.14 or newer is needed") from error


def memory_of_this_board(place: Path = MEMINFO) -> BoardMemory:
    """The memory now."""
    return memory_from_text(place.read_text(encoding="ascii"))
