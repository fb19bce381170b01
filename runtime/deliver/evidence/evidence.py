"""Evidence beside the results: what is kept, by a thread of its own, and never at the price of a result.

The name goes into the report before the report is committed; the pictures are written after. So the name says
where they are *meant* to be: a power cut, a full disk or the quota may have taken them since.
"""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from ...config import EvidenceConfig
from ...errors import PictureError
from ...report import Report
from .picture import Picture, annotated, encoded, without_private_zones
from .shelf import CLASSES, Shelf

ALARM = "evidence.not_written"
PROBE_S = 30.0  # a disk that refused is tried again after this long
MIB = 2**20
SUFFIX = {"png": "png", "jpeg": "jpg"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """One set to be written."""

    name: str
    report: Report
    image: Picture


class Evidence:
    """The evidence in `config.folder`; a context manager that writes what waits before it closes.

    `alarm(code, text)`, which may be set later, is told `evidence.not_written` when evidence cannot be
    written, and with None when it can again. Safe to use from several threads.
    """

    def __init__(
        self,
        config: EvidenceConfig,
        *,
        alarm: Callable[[str, str | None], None] = lambda code, text: None,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problem: str | None = None
        self.alarm = alarm
        self._config, self._monotonic_s = config, monotonic_s
        quota = {"reject": config.reject_mib, "review": config.review_mib, "pass": config.pass_mib}
        self._shelf = Shelf(
            config.folder, {name: mib * MIB for name, mib in quota.items()}, config.free_mib * MIB
        )
        self._counts = dict.fromkeys(("written", "dropped_queue_full", "dropped_not_written"), 0)
        self._mutex = threading.Lock()
        self._room = config.queue
        self._probe_at = 0.0
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)

    def __enter__(self) -> Evidence:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, for at most `timeout_s`: a disk that hangs must not keep the station up."""
        self._work.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @contextmanager
    def kept(self, report: Report, image: Picture) -> Iterator[Report]:
        """The report with its evidence's name, or null with the reason; commit it inside this block.

        `image` is the inspected picture, uint8 [H, W] or [H, W, 3] BGR, not changed afterwards. The pictures
        are queued when the block ends without an exception: no evidence tells of a result that was not
        committed.
        """
        named, work = self._named(report, image)
        try:
            yield named
        except BaseException:
            if work is not None:
                self._free_room()
            raise
        if work is not None:
            self._work.put(work)

    def release(self, bytes_wanted: int) -> int:
        """Remove the oldest evidence until so many bytes are freed, or none is left; bytes freed."""
        try:
            return self._shelf.release(bytes_wanted)
        except OSError as error:
            self._say(f"evidence {self._config.folder} cannot be removed: {error.strerror or error}")
            return 0

    def counts(self) -> dict[str, Any]:
        """Sets written and dropped since the start, and (sets, bytes) on disk by disposition."""
        with self._mutex:
            counts: dict[str, Any] = dict(self._counts)
        for name, (sets, size) in self._shelf.usage().items():
            counts[name] = {"sets": sets, "bytes": size}
        return counts

    def _named(self, report: Report, image: Picture) -> tuple[Report, _Work | None]:
        """The report as it must be committed, and the work that follows; None when nothing is kept."""
        if report.image is None:
            return report, None  # null_reasons already says why there is no picture
        if not _is_wanted(report, self._config):
            return _without(report, "not_in_sample"), None
        with self._mutex:
            if self.problem is not None and self._monotonic_s() < self._probe_at:
                self._counts["dropped_not_written"] += 1
                return _without(report, self.problem), None
            if self._room == 0:
                self._counts["dropped_queue_full"] += 1
                return _without(report, "the queue of the evidence is full"), None
            self._room -= 1
        name = f"{report.captured_at[:10]}/{report.result_id}.{report.disposition}"
        named = replace(report, image=replace(report.image, evidence=name))
        return named, _Work(name, named, image)

    def _run(self) -> None:
        """The thread. Whatever happens to one set, the next is tried."""
        try:
            self._shelf.open()
        except OSError as error:
            self._say(f"evidence {self._config.folder} cannot be used: {error.strerror or error}")
        while (work := self._work.get()) is not None:
            try:
                self._write(work)
            except (OSError, PictureError) as error:
                self._fail(f"evidence is not written: {getattr(error, 'strerror', None) or error}")
            except Exception as error:  # a fault of ours must not end the thread
                log.exception("evidence of %s", work.name)
                self._fail(f"evidence is not written: {error!r}")
            finally:
                self._free_room()

    def _write(self, work: _Work) -> None:
        form = self._config.format
        safe = without_private_zones(work.image, self._config.zones)
        parts: Sequence[tuple[str, bytes]] = (
            (f".raw.{SUFFIX[form]}", encoded(safe, form)),
            (f".annotated.{SUFFIX[form]}", encoded(annotated(safe, work.report), form)),
            (".json", work.report.to_json().encode()),
        )
        self._shelf.put(work.name, parts)
        with self._mutex:
            self._counts["written"] += 1
        self._say(None)

    def _fail(self, text: str) -> None:
        with self._mutex:
            self._counts["dropped_not_written"] += 1
        self._say(text)

    def _say(self, problem: str | None) -> None:
        """Remember whether the disk takes evidence; tell it when that changes."""
        with self._mutex:
            before, self.problem = self.problem, problem
            self._probe_at = self._monotonic_s() + PROBE_S
        if (before is None) != (problem is None):
            if problem is not None:
                log.error("%s", problem)
            self.alarm(ALARM, problem)

    def _free_room(self) -> None:
        with self._mutex:
            self._room += 1


def is_in_sample(result_id: str, share: float, seed: int) -> bool:
    """Whether a hash of the id, the same for ever under one seed, falls into the share."""
    digest = hashlib.sha256(f"{seed}:{result_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _is_wanted(report: Report, config: EvidenceConfig) -> bool:
    assert report.disposition in CLASSES
    return report.disposition != "pass" or is_in_sample(report.result_id, config.pass_share, config.seed)


def _without(report: Report, why: str) -> Report:
    """The report with `image.evidence` null for this reason."""
    return replace(report, null_reasons={**report.null_reasons, "image.evidence": why})
