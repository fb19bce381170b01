"""One thread for all that happens now and then: health, statistics, audit lines that wait for a disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType

log = logging.getLogger(__name__)


class Ticker:
    """Calls each job every `interval_s`, in order; a context manager. A job that fails is logged, and called
    again the next time."""

    def __init__(self, jobs: Sequence[Callable[[], object]], interval_s: float) -> None:
        self._jobs, self._interval_s = tuple(jobs), interval_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(10.0)  # a disk that hangs must not keep the station up

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_s):
            for job in self._jobs:
                try:
                    job()
                except Exception:
                    log.exception("a job of the ticker failed")
