"""The board's memory, from a file as a Jetson has it."""

from __future__ import annotations

import pytest

from orinspect.jetson.board import BoardMemory, memory_from_text, memory_of_this_board
from orinspect.runtime.errors import EngineError

MEMINFO = (
    "MemTotal:        7802256 kB\nMemFree:          301528 kB\nMemAvailable:    5120000 kB\nSwapTotal: 1 kB\n"
)


def test_memory_is_what_is_available_not_what_is_free() -> None:
    assert memory_from_text(MEMINFO) == BoardMemory(7802256 * 1024, 5120000 * 1024)
    here = memory_of_this_board()
    assert 0 < here.available <= here.total


def test_a_kernel_that_does_not_say_is_named() -> None:
    with pytest.raises(EngineError, match="MemAvailable"):
        memory_from_text("MemTotal: 5 kB\n")
