"""How large the outbox may become, and the room that is kept back for the moment when the disk is full.

What gives way, in this order: evidence (pictures, on request), reports that the broker or the MES confirmed,
reports that the broker confirmed and the MES did not. A report that nobody confirmed never gives way: new
parts are counted as not inspected instead. The counting needs a little room, which a reserved file holds
until then.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PART_BYTES = 64 * 1024  # room that a part must find: its row, its report, the log that both go through
_CALM = 0.95  # of a bound: a full outbox takes parts again below this, or it would change with every part


class Releases(Protocol):
    """Whoever holds files that matter less than results: evidence."""

    def release(self, bytes_wanted: int) -> int:
        """Delete the least important of them, at least so many bytes if there are; how many it were."""
        ...


@dataclass(frozen=True)
class Bounds:
    """`most_rows` counts parts and reports that are not delivered; `most_bytes` is the whole file's;
    `least_free_bytes` stay free on its disk; `reserve_bytes` is the size of the reserved file: twice the
    write-ahead log, 2 MiB, or more."""

    most_rows: int = 2_000_000
    most_bytes: int = 8 * 1024**3
    least_free_bytes: int = 64 * 1024**2
    reserve_bytes: int = 8 * 1024**2


@dataclass(frozen=True)
class Usage:
    """What the outbox takes: rows not delivered, bytes in use inside the file, bytes unused inside it."""

    rows: int
    used_bytes: int
    unused_bytes: int


@dataclass(frozen=True)
class Shortage:
    """What stands against one more part. `evidence_bytes` of evidence would help, or, when the shortage is
    `is_of_bytes`, confirmed reports that are forgotten."""

    why: str
    is_of_bytes: bool
    evidence_bytes: int = 0


class Space:
    """Bounds of one outbox, its reserved file, and the evidence that gives way to it."""

    def __init__(self, path: Path, bounds: Bounds, evidence: Releases | None) -> None:
        self.bounds = bounds
        self._evidence = evidence
        self._folder = path.parent
        self._reserve = Path(f"{path}.reserve")

    def free_bytes(self) -> int:
        """Free on the disk for this process; 0 when the disk does not say."""
        try:
            found = os.statvfs(self._folder)
        except OSError:
            return 0
        return found.f_bavail * found.f_frsize

    def shortage(self, usage: Usage, *, was_full: bool) -> Shortage | None:
        """What stands against one more part; None when there is room for it."""
        bounds, calm = self.bounds, _CALM if was_full else 1.0
        if usage.rows >= bounds.most_rows * calm:
            return Shortage(f"{usage.rows} rows wait, outbox.most_rows is {bounds.most_rows}", False)
        if usage.used_bytes + PART_BYTES > bounds.most_bytes * calm:
            return Shortage(
                f"{usage.used_bytes} bytes are in use, outbox.most_bytes is {bounds.most_bytes}", True
            )
        # unused pages inside the file are as good as free ones, but the log needs some of the disk, too
        room, free = self.free_bytes() + usage.unused_bytes, self.free_bytes()
        least = bounds.least_free_bytes + PART_BYTES + (0 if self.is_reserved() else bounds.reserve_bytes)
        if room < least or free < PART_BYTES:
            return Shortage(
                f"{free} bytes are free on the disk, {least} are needed", True, least - room + PART_BYTES
            )
        return None

    def is_reserved(self) -> bool:
        """True while the reserved file is there, whole."""
        try:
            return self._reserve.stat().st_size >= self.bounds.reserve_bytes
        except OSError:
            return False

    def reserve(self) -> bool:
        """Make the reserved file; False when there is no room."""
        if self.is_reserved():
            return True
        try:
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:
            return False
        try:
            _allocate(file, self.bounds.reserve_bytes)
            return True
        except OSError:
            self.release()
            return False
        finally:
            os.close(file)

    def release(self) -> bool:
        """Give the reserved file's room to the outbox; False when there was none."""
        try:
            held = self._reserve.stat().st_size
            self._reserve.unlink()
        except OSError:
            return False
        return held > 0

    def release_evidence(self, bytes_wanted: int) -> bool:
        """Ask for room; False when none was wanted or none was to be had."""
        return bytes_wanted > 0 and self._evidence is not None and self._evidence.release(bytes_wanted) > 0

    def more_room(self) -> bool:
        """The disk is full: give up the reserve, and evidence; False when there was neither."""
        released = self.release()
        return self.release_evidence(self.bounds.reserve_bytes) or released


def _allocate(file: int, size: int) -> None:
    """Blocks that are really taken; a file of holes would promise room that is not there."""
    if not size:
        return
    with contextlib.suppress(AttributeError):  # not on every system
        os.posix_fallocate(file, 0, size)
        return
    os.write(file, bytes(size))
