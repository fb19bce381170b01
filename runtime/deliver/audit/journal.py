"""The audit as the service writes it: one line an event, on disk before `write` returns.

A disk that refuses never stops the station: events wait in memory, at most `MOST_WAITING`, and are written
when the disk takes them again; what did not fit is counted in a line of its own.
"""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

from ...config import AuditConfig
from ...errors import DeliveryError
from ...report import timestamp
from .chain import TORN, Link, files_of, line_from_record, read_line, torn_facts, verified

ALARM = "audit.not_written"
MOST_WAITING = 1000
MOST_TEXT = 2000  # characters of one fact; whatever a stranger sends must not fill the disk

log = logging.getLogger(__name__)


class Clock(Protocol):
    """Where the times of the lines come from."""

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never jump within one boot."""
        ...

    def synchronised(self) -> bool:
        """Whether `unix_s` can be trusted."""
        ...


class Audit:
    """The chain in `config.folder`; a context manager, safe to use from several threads.

    `alarm(code, text)`, which may be set later, is told `audit.not_written` when the disk begins to refuse,
    and with None when it takes lines again. DeliveryError when another process writes this chain.
    """

    def __init__(
        self,
        config: AuditConfig,
        *,
        boot_id: str,
        clock: Clock,
        alarm: Callable[[str, str | None], None] = lambda code, text: None,
    ) -> None:
        self.problem: str | None = None
        self.alarm = alarm
        self._config, self._boot_id, self._clock = config, boot_id, clock
        self._mutex = threading.RLock()
        self._waiting: deque[dict[str, Any]] = deque()
        self._lost = 0
        self._end = Link()
        self._file: IO[bytes] | None = None
        self._path = config.folder
        self._lock_file: IO[str] | None = None
        self.flush()

    def __enter__(self) -> Audit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def head(self) -> Link:
        """The last line on disk: publish it where the station cannot change it, and the chain is pinned."""
        with self._mutex:
            return self._end

    def write(self, event: str, **facts: Any) -> bool:
        """Append one line; True when it is on disk, False when it waits in memory for a disk that refuses."""
        record = self._record(event, _short(facts))
        with self._mutex:
            if len(self._waiting) >= MOST_WAITING:
                self._lost += 1
            else:
                self._waiting.append(record)
        return self.flush()

    def flush(self) -> bool:
        """Write what waits; True when nothing waits any more."""
        before = self.problem
        with self._mutex:
            try:
                self._write_waiting()
                self.problem = None
            except OSError as error:
                self._forget_file()
                self.problem = f"audit {self._path}: {error.strerror or error}; lines wait in memory"
            after = self.problem
        if (after is None) != (before is None):  # outside the lock: whoever hears of it may write a line
            if after is not None:
                log.error("%s", after)
            self.alarm(ALARM, after)
        return after is None

    def close(self) -> None:
        """Write what waits, and let another process have the chain; twice is fine."""
        with self._mutex:
            if self._waiting:
                self.flush()
            self._forget_file()
            if self._lock_file is not None:
                self._lock_file.close()
                self._lock_file = None

    def _write_waiting(self) -> None:
        if self._file is None:
            self._open()
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting.popleft()
            if self._lost and not self._waiting:
                self._append(self._record("events_lost", {"count": self._lost}))
                self._lost = 0

    def _append(self, record: dict[str, Any]) -> None:
        """One line at the end of the newest file, behind a new file's first line when that one is full."""
        assert self._file is not None
        if self._file.tell() >= self._config.file_bytes:
            self._rotate()
        line, end = line_from_record(record, self._end)
        self._put(line)
        self._end = end

    def _put(self, content: bytes) -> None:
        """On disk when this returns. OSError also for a write that ended early, as on a full disk."""
        assert self._file is not None
        written = self._file.write(content)  # unbuffered: one call of the system
        if written != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._file.fileno())

    def _rotate(self) -> None:
        """Begin a file whose first line continues the last one, and remove the oldest beyond the quota."""
        full = self._path
        self._begin_file()
        self._append(self._record("file_begins", {"previous_file": full.name}))
        files = files_of(self._config.folder)
        removed = files[: max(len(files) - self._config.keep_files, 0)]
        for old in removed:
            old.unlink()
        if removed:
            self._append(self._record("files_removed", {"files": [old.name for old in removed[:20]]}))

    def _begin_file(self) -> None:
        self._forget_file()
        self._path = self._config.folder / f"audit-{self._end.n + 1:012d}.jsonl"
        self._file = self._path.open("ab", buffering=0)
        _sync_folder(self._config.folder)

    def _open(self) -> None:
        """Find the end of the chain and repair, visibly, what a power cut left there."""
        folder = self._config.folder
        folder.mkdir(parents=True, exist_ok=True)
        if self._lock_file is None:
            self._lock_file = _locked(folder / "audit.lock")
        files = files_of(folder)
        if not files:
            self._begin_file()
            return
        self._path = files[-1]
        before = _end_before(files, len(files) - 1)
        self._file = self._path.open("ab", buffering=0)
        found = verified([self._path], before=before)
        if found.unfinished_bytes and not _tail(self._path, 1).endswith(b"\n"):
            self._put(b"\n")  # it may be all that was missing
            found = verified([self._path], before=before)
        self._end = found.end
        if found.broken is not None:
            self._begin_again(files[-1], found.broken.line, found.broken.why)
        elif found.unfinished_bytes:
            log.warning("audit %s: its last line is torn; a marker line says so", self._path)
            facts = torn_facts(_tail(self._path, found.unfinished_bytes))
            line, end = line_from_record(self._record(TORN, facts), self._end)
            self._put(line)
            self._end = end

    def _begin_again(self, path: Path, line: int, why: str) -> None:
        """Somebody changed the last file: go on in a new one that says so. Verification goes on to fail."""
        log.error("audit %s, line %d: %s; going on in a new file", path, line, why)
        names = " ".join(file.stem for file in files_of(self._config.folder))
        numbers = [int(digits) for digits in re.findall(r"\d+", names)]
        self._end = Link(max([self._end.n, *numbers]), self._end.hash)
        self._begin_file()
        self._append(self._record("chain_broken", {"file": path.name, "line": line, "why": why}))

    def _record(self, event: str, facts: dict[str, Any]) -> dict[str, Any]:
        return {
            "at": timestamp(self._clock.unix_s()),
            "clock_synchronised": self._clock.synchronised(),
            "monotonic_ns": self._clock.monotonic_ns(),
            "boot_id": self._boot_id,
            "event": event,
            "facts": facts,
        }

    def _forget_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _end_before(files: list[Path], index: int) -> Link | None:
    """What the first line of a file must continue: what it says itself, or, where its first line is not
    whole, the end of the file before it."""
    with files[index].open("rb") as file:
        record, _, _ = read_line(file.readline(), None)
    if record is not None:
        return None
    if index == 0:
        return Link()
    return verified(files[index - 1 : index], before=_end_before(files, index - 1)).end


def _tail(path: Path, size: int) -> bytes:
    """The last bytes of a file."""
    with path.open("rb") as file:
        file.seek(-size, os.SEEK_END)
        return file.read()


def _short(value: Any) -> Any:
    """Facts with long texts cut, so that no line grows without bound."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key)[:MOST_TEXT]: _short(member) for key, member in list(value.items())[:100]}
    if isinstance(value, list | tuple):
        return [_short(member) for member in value[:100]]
    if isinstance(value, float) and value - value != 0:  # infinite or not a number: JSON knows neither
        return str(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}… ({len(text)} characters)"


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> IO[str]:
    """The open lock file of the chain; the kernel drops the lock when its process dies."""
    lock_file = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows workstation
        return lock_file
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        raise DeliveryError(f"audit {path.parent} is written by another orinspect; stop it first") from error
    return lock_file
