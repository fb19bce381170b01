"""Cases that run in a forked child, so that a crash, a hang or an eaten memory is seen and ends nothing else.

The child may write below its folder only: Python's audit hook tells of every file that is opened for writing,
made, moved or removed anywhere else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import resource
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from orinspect.runtime.errors import OrinspectError
from orinspect.tests.faults.means.forked import fork

HANG_S = 1.0  # of CPU time: a machine with other work must not look like a hang
DEAD_S = 120.0  # without a word from the child
MEMORY_BYTES = 3 << 30

Case = Callable[[], object]
WRITING = {
    "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.link": 2, "os.symlink": 2,
    "os.truncate": 1, "os.chmod": 1, "shutil.rmtree": 1, "shutil.move": 2, "shutil.copyfile": 2,
    "shutil.copytree": 2,
}  # fmt: skip


def failures_of_cases(
    cases: Sequence[tuple[str, Case]], folder: Path, *, hang_s: float = HANG_S
) -> list[str]:
    """Run every case in a forked child; a sentence for each that ended otherwise than by returning or by an
    OrinspectError of one sentence, took over `hang_s` of CPU time, or touched a file outside `folder`."""
    failures, start = [], 0
    while start < len(cases):
        reader, writer = os.pipe()
        pid = fork()
        if pid == 0:
            os.close(reader)
            _child(cases, start, folder, writer, hang_s)
        os.close(writer)
        found, at = _watched(reader, start)
        failures += found
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        os.close(reader)
        if at >= len(cases):
            return failures
        how = f"the process died ({status:#x})" if os.WIFSIGNALED(status) else "the process left"
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            how = f"nothing for {DEAD_S:g} s, or killed for its memory"
        failures.append(f"{cases[at][0]}: {how}")
        start = at + 1
    return failures


def _watched(reader: int, at: int) -> tuple[list[str], int]:
    """What the child says until it is silent or gone, and the case that it was at."""
    failures, rest = [], b""
    while select.select([reader], [], [], DEAD_S)[0]:
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"at "):
                at = int(line[3:])
            else:
                failures.append(line.decode("utf-8", errors="replace"))
    return failures, at


def _child(
    cases: Sequence[tuple[str, Case]], start: int, folder: Path, writer: int, hang_s: float
) -> NoReturn:
    try:
        faulthandler.disable()  # the parent tells of a crash
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        warnings.simplefilter("error")  # as in pytest
        logging.disable()
        strays = watch_writes(folder)
        for number in range(start, len(cases)):
            os.write(writer, f"at {number}\n".encode())
            name, case = cases[number]
            for fault in [*faults_of_case(case, hang_s), *_taken(strays)]:
                os.write(writer, f"{name}: {fault}"[:600].replace("\n", " ").encode(errors="replace") + b"\n")
        os.write(writer, f"at {len(cases)}\n".encode())
    finally:
        os._exit(0)


def faults_of_case(case: Case, hang_s: float) -> Iterator[str]:
    """Run one case in this process."""
    started = time.process_time()
    try:
        case()
    except OrinspectError as error:
        text = str(error)
        if not text.strip() or "Traceback" in text:
            yield f"{type(error).__name__} says {text[:80]!r}"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        yield f"{error!r:.200} at {Path(place.filename).name}:{place.lineno}"
    used = time.process_time() - started
    if used > hang_s:
        yield f"it took {used:.1f} s"


def watch_writes(folder: Path) -> list[str]:
    """A list that from now on receives every path outside `folder` that this process would change."""
    strays: list[str] = []
    inside = (os.path.realpath(folder), "/dev/null", "/proc/")

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        paths: tuple[Any, ...] = ()
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(mode, str) and set(mode) & set("wax+")
            if writes or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                paths = (path,)
        elif event in WRITING:
            paths = arguments[: WRITING[event]]
        beside = arguments[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1  # dir_fd
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike):
                with contextlib.suppress(ValueError):
                    base = f"/proc/self/fd/{beside}" if beside >= 0 else ""
                    real = os.path.realpath(os.path.join(base, os.fsdecode(path)))
                    if not real.startswith(inside):
                        strays.append(real)

    sys.addaudithook(look)
    return strays


def _taken(strays: list[str]) -> list[str]:
    found = [f"it would change {path}, outside its folder" for path in strays]
    strays.clear()
    return found
