"""The file writes of a program, recorded with strace, and what a disk may hold of them after a power cut.

The model is the one that SQLite is written for: what an fsync or fdatasync of the file returned for is on
the disk; of everything written since, each sector of 512 or 4096 bytes is there in any of its versions, old
or new, whatever the order of the writes; the file's length is any of those that it had; names that were made
or removed since the last fsync of their folder are there or not, in order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from orinspect.tests.programs import program

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,fsync,fdatasync,ftruncate,unlink,unlinkat,rename,"
    "renameat,renameat2"
)
_CALL = re.compile(r"^(?:\d+\s+)?(\w+)\((.*)\)\s+= (-?\d+)")
_TEXT = re.compile(r'"((?:\\.|[^"\\])*)"')

Kind = Literal["open", "write", "truncate", "sync", "unlink", "rename", "say"]


@dataclass(frozen=True)
class Event:
    """One thing that the program did: `name` is the file's path below the recorded folder."""

    kind: Kind
    name: str = ""
    at: int = 0
    data: bytes = b""


def recorded_events(folder: Path, module: str, *arguments: str) -> list[Event]:
    """Run `python -m module arguments...` in `folder` under strace; what it did to files there.

    What it wrote to its standard output comes as `say`. AssertionError when it failed, or did something
    that this reader does not know.
    """
    trace = folder.parent / f"{folder.name}.strace"
    command = [program("strace") or "strace", "-f", "-xx", "-s", "400000", "-e", f"trace={CALLS}"]
    command += ["-o", str(trace), sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    try:
        return list(_events(trace, folder.resolve()))
    finally:
        trace.unlink()


def _events(trace: Path, folder: Path) -> Iterator[Event]:
    names: dict[int, str] = {}  # descriptor -> name below the folder, "." for the folder itself
    with trace.open(encoding="ascii") as stream:
        for line in stream:
            assert "unfinished" not in line, f"two threads at once: {line[:200]}"
            found = _CALL.match(line)
            if found is None or int(found[3]) < 0:
                continue
            call, arguments, answer = found[1], found[2], int(found[3])
            texts = [_bytes(text) for text in _TEXT.findall(arguments)]
            if call in ("open", "openat", "creat"):
                name = _below(texts[0], folder)
                names.pop(answer, None)
                if name is not None:
                    names[answer] = name
                    if "O_CREAT" in arguments or call == "creat":
                        yield Event("open", name)
                    if "O_TRUNC" in arguments or call == "creat":
                        yield Event("truncate", name)
                continue
            if call in ("unlink", "unlinkat", "rename", "renameat", "renameat2"):
                below = [_below(text, folder) for text in texts]
                if below[0] is not None:
                    yield Event("unlink" if "unlink" in call else "rename", below[0],
                                data=(below[-1] or "").encode())  # fmt: skip
                continue
            descriptor = int(arguments.split(",", 1)[0])
            if call == "write" and descriptor == 1:
                yield Event("say", data=texts[0])
            elif descriptor not in names:
                continue
            elif call == "close":
                del names[descriptor]
            elif call == "pwrite64":
                assert len(texts[0]) == answer, f"a short write, or strace cut it: {line[:200]}"
                yield Event("write", names[descriptor], int(arguments.rsplit(",", 1)[1]), texts[0])
            elif call == "ftruncate":
                yield Event("truncate", names[descriptor], int(arguments.rsplit(",", 1)[1]))
            elif call in ("fsync", "fdatasync"):
                yield Event("sync", names[descriptor])
            else:
                raise AssertionError(f"a call that the reader does not know: {line[:200]}")


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))  # -xx writes every sign so


def _below(path: bytes, folder: Path) -> str | None:
    """The name below the folder, `.` for itself; None outside of it."""
    absolute = os.path.normpath(os.path.join(folder, os.fsdecode(path)))
    if absolute == str(folder):
        return "."
    return os.path.relpath(absolute, folder) if absolute.startswith(f"{folder}{os.sep}") else None


@dataclass
class _File:
    """One file's contents: what is on the disk for sure, and what came since."""

    durable: bytearray = field(default_factory=bytearray)
    now: bytearray = field(default_factory=bytearray)
    lengths: list[int] = field(default_factory=lambda: [0])  # since the last sync, the first is durable
    versions: dict[int, list[bytes]] = field(default_factory=dict)  # 512-byte sector -> contents since


SECTOR = 512


class Disk:
    """What a disk holds while events happen; `after_a_cut` draws what is left of it."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}
        self._durable_names: dict[str, int] = {}
        self._changes: list[tuple[str, int | None]] = []  # names made or removed since the folder's sync

    def take(self, event: Event) -> None:
        """One event happened."""
        if event.kind == "open":
            if event.name not in self._names:
                self._link(event.name, len(self._files))
                self._files[len(self._files)] = _File()
        elif event.kind == "unlink":
            self._link(event.name, None)
        elif event.kind == "rename":
            self._link(event.data.decode(), self._names[event.name])
            self._link(event.name, None)
        elif event.kind == "sync" and event.name == ".":
            self._durable_names, self._changes = dict(self._names), []
        elif event.kind != "say":
            self._change(self._files[self._names[event.name]], event)

    def after_a_cut(self, random: Random) -> dict[str, bytes]:
        """The files that the next start finds, by name."""
        names = dict(self._durable_names)
        for name, identity in self._changes[: random.randint(0, len(self._changes))]:
            if identity is None:
                names.pop(name, None)
            else:
                names[name] = identity
        mood = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))  # how much had been written back
        together = random.choice((1, 4096 // SECTOR))
        return {name: _remains(self._files[index], random, mood, together) for name, index in names.items()}

    def _link(self, name: str, identity: int | None) -> None:
        self._changes.append((name, identity))
        if identity is None:
            self._names.pop(name, None)
        else:
            self._names[name] = identity

    def _change(self, file: _File, event: Event) -> None:
        if event.kind == "sync":
            file.durable, file.lengths, file.versions = bytearray(file.now), [len(file.now)], {}
            return
        if event.kind == "truncate":
            old = len(file.now)
            del file.now[event.at :]
            file.now.extend(bytes(event.at - len(file.now)))
            first, last = min(old, event.at), max(old, event.at)
        else:
            first, last = event.at, event.at + len(event.data)
            file.now.extend(bytes(max(0, last - len(file.now))))
            file.now[first:last] = event.data
        file.lengths.append(len(file.now))
        for sector in range(first // SECTOR, -(-last // SECTOR)):
            content = bytes(file.now[sector * SECTOR : (sector + 1) * SECTOR])
            file.versions.setdefault(sector, []).append(content.ljust(SECTOR, b"\0"))


def _remains(file: _File, random: Random, mood: float, together: int) -> bytes:
    """One file after the cut; `together` sectors share their fate, as those of a 4 KiB disk do."""
    length = random.choice(file.lengths) if mood < 1 else len(file.now)
    content = bytearray(file.durable)
    chosen: dict[int, float] = {}
    for sector, versions in file.versions.items():
        block = sector // together
        if block not in chosen:
            chosen[block] = random.random() / mood if mood else 2.0
        if chosen[block] < 1:
            # several versions: any of them may have been written back last
            version = versions[-1 if chosen[block] < 0.7 else int(random.random() * len(versions))]
            start = sector * SECTOR
            content.extend(bytes(max(0, start + SECTOR - len(content))))
            content[start : start + SECTOR] = version
    del content[length:]
    content.extend(bytes(length - len(content)))
    return bytes(content)


def events_before(events: Sequence[Event], cuts: Sequence[int]) -> Iterator[tuple[int, Disk]]:
    """(cut, the disk just before event number `cut`) for rising `cuts`; one Disk is carried along."""
    disk, done = Disk(), 0
    for cut in cuts:
        for event in events[done:cut]:
            disk.take(event)
        done = cut
        yield cut, disk
