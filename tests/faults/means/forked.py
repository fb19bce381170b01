"""A part of the product in a forked process: nothing is imported again, and a kill costs milliseconds.

What the child has done it tells through a pipe that survives it; `stop` closes another pipe, which the child
may wait on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

from orinspect.tests.faults.means.consumer import Consumer

WAIT_S = 60.0
Tell = Callable[..., None]
Body = Callable[[Tell, int], int]


def fork() -> int:
    """os.fork; newer Pythons warn of it where any library has threads, and these children only ever exit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


class Forked:
    """A child that runs `body(tell, orders)` and exits with its answer; a context manager that kills it.

    `tell(word, ...)` sends a line of words to `said`; `orders` is a descriptor that can be read once `stop`
    was called. An exception in the child is exit code 9 and its last words stand in `folder`.
    """

    def __init__(self, body: Body, folder: Path, consumer: Consumer | None = None) -> None:
        self.said: list[list[str]] = []
        self._rest = b""
        self._last_words = folder / "last-words.txt"
        self._reader, writer = os.pipe()
        orders, self._orders = os.pipe()
        self.pid = fork()
        if self.pid == 0:
            os.close(self._reader)
            os.close(self._orders)
            if consumer is not None:
                consumer.close_in_child()
            _child(body, writer, orders, self._last_words)
        os.close(writer)
        os.close(orders)
        self.code: int | None = None

    def __enter__(self) -> Forked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.code is None:
            self.kill()
            self.wait()
        self.stop()
        os.close(self._reader)

    def kill(self) -> None:
        """kill -9."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> None:
        """Let the child know that it shall end by itself; twice is fine."""
        if self._orders >= 0:
            os.close(self._orders)
            self._orders = -1

    def listen(self, consumer: Consumer | None, timeout_s: float) -> bool:
        """Let the consumer work and take what the child says, at most so long; False: the child is gone."""
        if consumer is not None:
            is_telling = consumer.pump(timeout_s, self._reader)
        else:
            is_telling = bool(select.select([self._reader], [], [], max(timeout_s, 0.0))[0])
        if not is_telling:
            return True
        piece = os.read(self._reader, 1 << 16)
        *lines, self._rest = (self._rest + piece).split(b"\n")
        self.said += [line.decode("utf-8", errors="replace").split() for line in lines]
        return bool(piece)

    def listen_until(
        self, consumer: Consumer | None, is_done: Callable[[], bool], timeout_s: float = WAIT_S
    ) -> bool:
        """Listen until the condition holds; False when the child was gone, or the time over, before."""
        deadline = time.monotonic() + timeout_s
        while not is_done():
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self.listen(consumer, min(left_s, 0.2)):
                return is_done()
        return True

    def wait(self, consumer: Consumer | None = None, timeout_s: float = WAIT_S) -> int:
        """Listen until the child is gone, killed after `timeout_s`; its exit code, negative for a signal."""
        deadline = time.monotonic() + timeout_s
        while self.code is None and self.listen(consumer, 0.2):
            if time.monotonic() >= deadline:
                self.kill()
                deadline += WAIT_S
        _, status = os.waitpid(self.pid, 0)
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def last_words(self) -> str:
        """The last line of the exception that ended the child."""
        with contextlib.suppress(OSError, IndexError):
            return self._last_words.read_text(encoding="utf-8").strip().splitlines()[-1]
        return "without a word"


def _child(body: Body, writer: int, orders: int, last_words: Path) -> NoReturn:
    """The child's whole life; it never returns into the parent's code."""
    code = 9

    def tell(*words: object) -> None:
        os.write(writer, " ".join(map(str, words)).encode() + b"\n")

    try:
        logging.disable()
        code = body(tell, orders)
    except BaseException:
        last_words.write_text(traceback.format_exc(), encoding="utf-8")
    finally:
        os._exit(code)


def kill_at_line(count: int, folders: Sequence[str], tell: Tell) -> None:
    """Kill this process at the `count`-th line of code below `folders` that a thread of it runs from now."""
    left = count
    places = tuple(folder + os.sep for folder in folders)

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(places):
            return None
        if event == "line":
            left -= 1
            if left <= 0:
                tell("killed", f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    threading.settrace(trace)
    sys.settrace(trace)
