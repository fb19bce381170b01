"""What this process and its disks take, from the kernel; None where it cannot say."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROC = Path("/proc/self")


def process_usage(proc: Path = PROC) -> dict[str, int | None]:
    """Resident bytes, threads and open descriptors of this process, without its children."""
    try:
        status = (proc / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        status = ""
    resident = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    threads = re.search(r"^Threads:\s+(\d+)$", status, re.MULTILINE)
    try:
        descriptors: int | None = len(os.listdir(proc / "fd")) - 1  # the listing itself is one
    except OSError:
        descriptors = None
    return {
        "rss_bytes": None if resident is None else int(resident[1]) * 1024,
        "threads": None if threads is None else int(threads[1]),
        "descriptors": descriptors,
    }


def disk_usage(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Free and all bytes of the disk under each path, by purpose; None for a path that is not there."""
    found: dict[str, dict[str, Any]] = {}
    for purpose, path in paths.items():
        try:
            usage = shutil.disk_usage(_nearest(path))
            found[purpose] = {"free_bytes": usage.free, "size_bytes": usage.total}
        except OSError:
            found[purpose] = {"free_bytes": None, "size_bytes": None}
    return found


def _nearest(path: Path) -> Path:
    """The path, or the folder in which it will be made."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
