"""The statistics of the station: counts reports, publishes `stats/shift`, writes the CSV files.

A disk that refuses stops nothing: what was not counted is counted when it can be, from the outbox.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from ...config import ShiftsConfig
from ...errors import DeliveryError
from ...report import timestamp
from .counters import Counters, Reports
from .figures import Figures, figures_of, lots_of, number_of, shift_of, totals_of
from .sheet import write_sheets
from .shifts import Shift, Shifts

SCHEMA = "orinspect.stats/1.0"
TOPIC = "stats/shift"
NOT_COUNTED, NOT_WRITTEN = "statistics.not_counted", "statistics.not_written"
MOST_LOTS = 50  # in the message; the CSV has all

log = logging.getLogger(__name__)


class Clock(Protocol):
    """The time, and whether to trust it."""

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Nanoseconds that never jump within one boot."""
        ...

    def synchronised(self) -> bool:
        """Whether `unix_s` can be trusted."""
        ...


class Publishes(Protocol):
    """What the statistics need of a `Publisher`."""

    def publish(self, name: str, payload: str, *, retain: bool = False) -> None:
        """Publish below the station's root, when there is a connection."""
        ...


class Statistics:
    """A context manager; `count` after each commit, `tick` now and then. Safe to use from several threads.

    On entering it counts what the outbox holds and no earlier run has counted. ConfigError for shifts that
    make no sense.
    """

    def __init__(
        self,
        config: ShiftsConfig,
        path: str | Path,
        outbox: Reports,
        publisher: Publishes,
        *,
        facts: dict[str, str],
        clock: Clock,
        alarm: Callable[[str, str | None], None] = lambda code, text: None,
    ) -> None:
        """`path`: the file of the counters; `facts`: device_id, station_id, boot_id."""
        self.last_result_ns: int | None = None
        """When the last result was counted, on the clock that never jumps."""
        self._config, self._path, self._outbox, self._publisher = config, Path(path), outbox, publisher
        self._facts, self._clock, self._alarm = facts, clock, alarm
        self._shifts = Shifts(config)
        self._mutex = threading.RLock()  # of the counters; never held while a CSV is written
        self._sheets = threading.Lock()
        self._problems: dict[str, str] = {}
        self._counters: Counters | None = None
        self._is_behind = True
        self._unwritten: set[int] = set()  # shifts whose CSV is older than their counters
        self._said: str | None = None  # the last message but for its time
        self._next_ns = 0  # no message before

    def __enter__(self) -> Statistics:
        self._attempt(NOT_COUNTED, self._catch_up)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next_ns = 0
        self.tick()
        with self._mutex:
            if self._counters is not None:
                self._counters.close()
                self._counters = None

    @property
    def problems(self) -> dict[str, str]:
        """What does not work, by alarm code."""
        with self._mutex:
            return dict(self._problems)

    def count(self, payload: str) -> None:
        """Count what was just committed."""

        self.last_result_ns = self._clock.monotonic_ns()

        def work() -> None:
            if self._is_behind:
                self._catch_up()
            self._ready().count(payload)

        self._attempt(NOT_COUNTED, work)

    def tick(self) -> None:
        """Publish and write what changed, at most every `publish_s`; count what a disk that refused left."""
        now_ns = self._clock.monotonic_ns()
        if now_ns < self._next_ns:
            return
        self._next_ns = now_ns + int(self._config.publish_s * 1e9)
        self._attempt(NOT_COUNTED, self._publish)
        if self._config.csv is not None:
            with self._sheets:
                self._attempt(NOT_WRITTEN, self._write_sheets, self._config.csv)

    def totals(self) -> dict[bool, Figures] | None:
        """Everything since the counters were begun, by is_simulated; None while they cannot be read."""
        with self._mutex:
            if self._counters is None:
                return None
            try:
                with self._counters.atomic() as connection:
                    return {each: totals_of(connection, is_simulated=each) for each in (False, True)}
            except DeliveryError:
                return None

    def message(self) -> dict[str, Any]:
        """The payload of `stats/shift`; DeliveryError while the counters cannot be read."""
        with self._mutex:
            counters = self._ready()
            now = self._clock.unix_s()
            boot = self._facts["boot_id"]
            shift = counters.shift_of(now if self._clock.synchronised() else None, boot)
            with counters.atomic() as connection:
                number = number_of(connection, shift.key)
                before = connection.execute(
                    "SELECT max(id) FROM shift WHERE id < ? OR ?", (number or 0, number is None)
                ).fetchone()[0]
                previous = None if before is None else shift_of(connection, before)
                return {
                    "schema": SCHEMA,
                    **self._facts,
                    "created_at": timestamp(now),
                    "clock_synchronised": self._clock.synchronised(),
                    "time_zone": self._config.time_zone,
                    "counting_since": _begun_at(connection),
                    "shift": _shift_table(connection, shift, number),
                    "previous": None if previous is None else _shift_table(connection, previous, before),
                }

    def _ready(self) -> Counters:
        if self._counters is None:
            self._counters = Counters(
                self._path, self._shifts, keep_shifts=self._config.keep, unix_s=self._clock.unix_s()
            )
        return self._counters

    def _catch_up(self) -> None:
        self._is_behind = True
        counted = self._ready().catch_up(self._outbox)
        self._is_behind = False
        if counted:
            log.info("%d results were counted from the outbox", counted)

    def _publish(self) -> None:
        if self._is_behind:
            self._catch_up()
        message = self.message()
        said = json.dumps({**message, "created_at": ""})
        if said != self._said:
            self._publisher.publish(TOPIC, json.dumps(message, ensure_ascii=False), retain=True)
            self._said = said

    def _write_sheets(self, folder: Path) -> None:
        with self._mutex:
            counters = self._counters
        if counters is None:
            return
        self._unwritten |= counters.take_changed()
        while self._unwritten:
            number = max(self._unwritten)
            with counters.atomic() as connection:
                shift = shift_of(connection, number)
            if shift is not None:
                write_sheets(folder, counters, shift)
            self._unwritten.discard(number)

    def _attempt(self, code: str, work: Callable[..., None], *arguments: Any) -> None:
        """Do it; a disk that refuses makes an alarm and leaves the work for later."""
        try:
            if code == NOT_COUNTED:
                with self._mutex:
                    work(*arguments)
            else:
                work(*arguments)
            problem = None
        except (DeliveryError, OSError) as error:
            problem = str(error)
        with self._mutex:
            self._is_behind |= code == NOT_COUNTED and problem is not None
            before = self._problems.pop(code, None)
            if problem is not None:
                self._problems[code] = problem
        if (before is None) != (problem is None):
            if problem is not None:
                log.error("%s: %s", code, problem)
            self._alarm(code, problem)


def _begun_at(connection: Any) -> str:
    return str(connection.execute("SELECT value FROM fact WHERE name = 'begun_at'").fetchone()[0])


def _shift_table(connection: Any, shift: Shift, number: int | None) -> dict[str, Any]:
    """A shift with its figures and lots; zeros when nothing was counted in it."""
    found = -1 if number is None else number
    lots = lots_of(connection, found, is_simulated=False)
    return {
        "name": shift.name,
        "day": shift.day,
        "starts_at": shift.starts_at,
        "ends_at": shift.ends_at,
        **figures_of(connection, found, is_simulated=False).to_table(),
        "lots": [
            {"lot": lot, **figures_of(connection, found, is_simulated=False, lot=key).to_table()}
            for key, lot in lots[-MOST_LOTS:]
        ],
        "simulated": figures_of(connection, found, is_simulated=True).to_table(),
    }
