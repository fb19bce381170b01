"""The device's clocks: wall time, its quality, monotonic time, and the boot that they belong to.

A Jetson without an RTC battery boots years in the past and jumps when the network answers, so a wall time is
worth nothing without the kernel's word that it is synchronised (adjtimex, STA_UNSYNC).
"""

from __future__ import annotations

import ctypes
import time
import uuid
from pathlib import Path

_STA_UNSYNC = 0x0040  # <linux/timex.h>
_STATUS_INDEX = 5  # status is the sixth member of struct timex, after five that occupy a long each
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class SystemClock:
    """This machine's clock. `source` names where the wall time comes from."""

    source = "system"

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        return time.time()

    def monotonic_ns(self) -> int:
        """Nanoseconds that never jump within one boot; the same in every process of the machine."""
        return time.monotonic_ns()

    def synchronised(self) -> bool:
        """True while the kernel says that the wall time is disciplined; False where it cannot say."""
        try:
            adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        except (AttributeError, OSError, TypeError):
            return False
        record = (ctypes.c_long * 64)()  # larger than struct timex; modes = 0 only reads
        if adjtimex(ctypes.byref(record)) < 0:
            return False
        return not int(record[_STATUS_INDEX]) & _STA_UNSYNC


def boot_id() -> str:
    """The kernel's id of this boot; a new id on a system that has none."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return str(uuid.uuid4())
