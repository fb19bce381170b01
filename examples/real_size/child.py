"""Work in a process of its own, with what it took: wall time and peak resident memory, read from outside.

Each stage starts from a bare interpreter, so its peak is its own. Two numbers are given, because ONNX Runtime
and the checkpoint reader map files: pages of a mapped file count as resident but leave at once when memory is
short. `peak_rss_mib` counts them (it is what a limit sees), `peak_anonymous_mib` does not.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

Say = Callable[[str], None]
"""Takes one line of progress."""

_SAMPLE_S = 0.05


class ChildError(RuntimeError):
    """A stage failed; the message is its own, with the kind of its error before it."""


@dataclass(frozen=True)
class Spent:
    """What one process took; memory in MiB; None where the system has no /proc.

    `cpu_s` adds up its threads. On a busy machine it says more than `wall_s`: divided by the threads it is
    about the wall time of an idle one.
    """

    wall_s: float
    cpu_s: float | None
    peak_rss_mib: float | None
    peak_anonymous_mib: float | None

    def to_json(self) -> dict[str, float | None]:
        """Rounded to a tenth."""
        return {name: None if value is None else round(value, 1) for name, value in asdict(self).items()}


class Child:
    """A spawned process that runs `work(send_progress, *arguments)`, or answers calls one after the other.

    `work` must be importable, its arguments and results picklable.
    """

    def __init__(self, work: Callable[..., Any], *arguments: Any, say: Say = lambda line: None) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._say = say
        self._process = context.Process(target=_run, args=(far, work, arguments), daemon=True)
        self._started = time.perf_counter()
        self._anonymous = self._peak = self._cpu = 0.0
        self._process.start()
        far.close()

    def result(self) -> Any:
        """Wait for the next result; ChildError when the work raised or the process died."""
        while True:
            while not self._pipe.poll(_SAMPLE_S):
                self._sample()
            try:
                kind, value = self._pipe.recv()
            except EOFError:
                self._process.join()
                raise ChildError(
                    f"a process ended with {self._process.exitcode} and no result; if it was killed (-9), "
                    "memory was short"
                ) from None
            self._sample()
            if kind == "progress":
                self._say(value)
            elif kind == "error":
                raise ChildError(value)
            else:
                return value

    def ask(self, *question: Any) -> Any:
        """Send a question to work that answers questions, and wait for the answer."""
        self._pipe.send(question)
        return self.result()

    def spent(self) -> Spent:
        """What it took up to now."""
        self._sample()
        known = self._peak > 0
        return Spent(
            time.perf_counter() - self._started,
            self._cpu if known else None,
            self._peak if known else None,
            self._anonymous if known else None,
        )

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sample(self) -> None:
        pid = self._process.pid or os.getpid()
        memory = memory_mib(pid)
        self._cpu = max(self._cpu, cpu_s(pid))
        self._peak = max(self._peak, memory.get("VmHWM", 0.0))
        self._anonymous = max(self._anonymous, memory.get("RssAnon", 0.0))


def memory_mib(pid: int) -> dict[str, float]:
    """VmHWM, VmRSS, RssAnon and RssFile of a process in MiB; empty without /proc or when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    wanted = ("VmHWM", "VmRSS", "RssAnon", "RssFile")
    fields = (line.split() for line in lines if line.startswith(wanted))
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in fields}


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads of a process; 0 without /proc or when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    fields = text.rpartition(")")[2].split()  # the name before it may hold spaces
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measured(work: Callable[..., Any], *arguments: Any, say: Say = lambda line: None) -> tuple[Any, Spent]:
    """Run `work(send_progress, *arguments)` in a child; its result and what it took."""
    with Child(work, *arguments, say=say) as child:
        result = child.result()
        return result, child.spent()


def _run(pipe: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    def say(line: str) -> None:
        pipe.send(("progress", line))

    try:
        answer = work(say, *arguments)
        if not callable(answer):
            pipe.send(("result", answer))
            pipe.recv()  # stays until the parent has read its memory
            return
        pipe.send(("result", None))
        while True:
            pipe.send(("result", answer(*pipe.recv())))
    except EOFError:
        return
    except Exception as problem:
        pipe.send(("error", f"{type(problem).__name__}: {problem}"))
