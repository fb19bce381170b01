"""Shifts: which one a moment belongs to, in the plant's own time, on the days when its clocks change too.

Starts are local times. A start that the change to summer time skips (02:30 on a day without one) begins as
many minutes after the change; one that occurs twice begins at its first occurrence. So every moment belongs
to exactly one shift, and the shift over the change is an hour shorter or longer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

from ...config import ShiftsConfig
from ...errors import ConfigError
from ...report import timestamp


@dataclass(frozen=True)
class Shift:
    """One shift: `day` is the local date on which it starts; times in RFC 3339, UTC.

    While the clock is not synchronised nobody knows the shift: then `name` is `unsynchronised`, there is one
    for each boot, and day and times are None.
    """

    key: str
    name: str
    day: str | None
    starts_at: str | None
    ends_at: str | None


class Shifts:
    """The plant's shifts; ConfigError for an unknown time zone, a start that is no time, or names that do not
    fit the starts."""

    def __init__(self, config: ShiftsConfig) -> None:
        try:
            self.zone = ZoneInfo(config.time_zone)
        except (KeyError, ValueError, OSError) as error:
            raise ConfigError(
                f"shifts.time_zone is {config.time_zone!r}, which this system does not know; give a name such"
                " as Europe/Berlin (Debian: the package tzdata)"
            ) from error
        if config.names and len(config.names) != len(config.starts):
            raise ConfigError(
                f"shifts.names has {len(config.names)} names for {len(config.starts)} starts; give one each"
            )
        names = config.names or config.starts
        if not config.starts or len(set(names)) < len(names):
            raise ConfigError(f"the shifts are {', '.join(names) or 'none'}; give one or more, each once")
        self._starts = [(_local_time(text), name) for text, name in zip(config.starts, names, strict=True)]

    def at(self, unix_s: float) -> Shift:
        """The shift of a moment."""
        today = datetime.fromtimestamp(unix_s, self.zone).date()
        starts = sorted(self._near(today))
        index = max(n for n, (start_s, *_) in enumerate(starts) if start_s <= unix_s)
        start_s, _, name, day = starts[index]
        starts_at, ends_at = timestamp(start_s), timestamp(starts[index + 1][0])
        return Shift(f"{starts_at}/{name}", name, day.isoformat(), starts_at, ends_at)

    def _near(self, today: date) -> Iterator[tuple[float, int, str, date]]:
        """Starts in unix seconds from two days before to two days after, with their order in a day."""
        for days in (-2, -1, 0, 1, 2):
            try:
                day = today + timedelta(days=days)
                for order, (start, name) in enumerate(self._starts):
                    moment = datetime.combine(day, start, self.zone)  # fold 0: what the docstring promises
                    yield moment.astimezone(timezone.utc).timestamp(), order, name, day
            except (OverflowError, ValueError):  # at either end of the calendar
                continue


def unsynchronised(boot_id: str) -> Shift:
    """What stands for a shift while the clock is not synchronised."""
    return Shift(f"unsynchronised/{boot_id}", "unsynchronised", None, None, None)


def _local_time(text: str) -> time:
    try:
        found = datetime.strptime(text, "%H:%M").time()
    except ValueError as error:
        raise ConfigError(f"shifts.starts holds {text!r}; give local times such as '06:00'") from error
    return found
