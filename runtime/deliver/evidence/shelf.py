"""The folder of the evidence: sets of files by date, written whole, counted, removed oldest first.

A set is what one result leaves: `DATE/RESULT_ID.DISPOSITION` and, behind that name, `.raw.png`,
`.annotated.png` (or .jpg) and `.json`. The JSON comes last, so that a set without it was cut short and is
removed at the next start. Nothing else is kept: the folder itself is the index.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

PARTIAL = ".partial"
CLASSES = ("reject", "review", "pass")
LAST = ".json"
SUFFIXES = (LAST, ".raw.png", ".raw.jpg", ".annotated.png", ".annotated.jpg")


class Shelf:
    """The sets in `folder`, made when missing. OSError where the disk refuses; safe to use from threads."""

    def __init__(self, folder: Path, quota_bytes: Mapping[str, int], free_bytes: int) -> None:
        """`quota_bytes` by disposition; at least `free_bytes` stay free on the disk."""
        self.removed_incomplete = 0
        self._folder, self._quota, self._free = folder, dict(quota_bytes), free_bytes
        self._mutex = threading.RLock()
        self._is_read = False
        self._count = 0  # numbers the sets: the lowest is the oldest
        self._sets: dict[str, OrderedDict[str, tuple[int, int]]] = {each: OrderedDict() for each in CLASSES}
        self._bytes = dict.fromkeys(CLASSES, 0)
        self._newest_day = ""

    def open(self) -> None:
        """Read the folder; what a crash left half is removed. Does nothing when it was read before."""
        with self._mutex:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._is_read:
                return
            sizes: dict[str, int] = {}
            whole: dict[str, int] = {}  # name -> when its JSON was written, ns
            for day in sorted(path for path in self._folder.iterdir() if path.is_dir()):
                self._read(day, sizes, whole)
            for name in sizes.keys() - whole.keys():
                self._unlink(name)
                self.removed_incomplete += 1
            for name in sorted(whole, key=lambda name: (name.partition("/")[0], whole[name], name)):
                self._add(name, sizes[name])
            self._is_read = True

    def usage(self) -> dict[str, tuple[int, int]]:
        """(sets, bytes) by disposition; never waits, also while the disk hangs."""
        return {each: (len(self._sets[each]), self._bytes[each]) for each in CLASSES}

    def put(self, name: str, parts: Iterable[tuple[str, bytes]]) -> None:
        """Write a set, the file with the last suffix last; older ones make room for it.

        OSError when it does not fit its quota or the disk; nothing of it stays then.
        """
        parts = list(parts)
        size = sum(len(content) for _, content in parts)
        self._make_room(class_of(name), size)
        place = self._folder / name
        self._newest_day = max(self._newest_day, place.parent.name)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            for suffix, content in parts:
                _write_whole(Path(f"{place}{suffix}"), content)
            _sync(place.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                self._unlink(name)
            raise
        with self._mutex:
            self._add(name, size)

    def release(self, bytes_wanted: int) -> int:
        """Remove the oldest sets until so many bytes are free again, or none is left; bytes freed."""
        freed = 0
        while freed < bytes_wanted:
            size = self._remove_oldest(CLASSES)
            if size is None:
                break
            freed += size
        return freed

    def _make_room(self, kind: str, size: int) -> None:
        self.open()
        if size > self._quota[kind]:
            raise OSError(f"a set of {size} bytes is more than all that evidence of {kind} may take")
        while self._bytes[kind] + size > self._quota[kind]:
            self._remove_oldest((kind,))
        self.release(self._free + size - shutil.disk_usage(self._folder).free)
        short = self._free + size - shutil.disk_usage(self._folder).free
        if short > 0:
            raise OSError(f"the disk is {short} bytes short of {self._free} free bytes and this set")

    def _remove_oldest(self, kinds: tuple[str, ...]) -> int | None:
        """Remove one set; its bytes, None when there is none."""
        with self._mutex:
            self.open()
            oldest = [(*next(iter(self._sets[kind].items())), kind) for kind in kinds if self._sets[kind]]
            if not oldest:
                return None
            name, (_, size), kind = min(oldest, key=lambda each: each[1])
            self._unlink(name)
            del self._sets[kind][name]
            self._bytes[kind] -= size
            return size

    def _read(self, day: Path, sizes: dict[str, int], whole: dict[str, int]) -> None:
        """The sets of one day; files that are none of ours stay as they are."""
        for entry in os.scandir(day):
            if entry.name.endswith(PARTIAL):
                os.unlink(entry.path)
                self.removed_incomplete += 1
                continue
            suffix = next((each for each in SUFFIXES if entry.name.endswith(each)), None)
            name = f"{day.name}/{entry.name.removesuffix(suffix or '')}"
            if suffix is not None and class_of(name) in CLASSES:
                found = entry.stat()
                sizes[name] = sizes.get(name, 0) + found.st_size
                if suffix == LAST:
                    whole[name] = found.st_mtime_ns

    def _add(self, name: str, size: int) -> None:
        self._count += 1
        self._sets[class_of(name)][name] = (self._count, size)
        self._bytes[class_of(name)] += size

    def _unlink(self, name: str) -> None:
        """Remove a set, JSON first: what a crash leaves of it is incomplete and goes at the next start."""
        place = self._folder / name
        for suffix in SUFFIXES:
            Path(f"{place}{suffix}").unlink(missing_ok=True)
        if place.parent.name < self._newest_day:  # into the newest somebody may be writing
            with contextlib.suppress(OSError):  # not empty, most of the time
                place.parent.rmdir()


def class_of(name: str) -> str:
    """The disposition in a set's name."""
    return name.rpartition(".")[2]


def _write_whole(path: Path, content: bytes) -> None:
    """All of a file under its name, or none of it, also after a power cut."""
    partial = Path(f"{path}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Make new names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
