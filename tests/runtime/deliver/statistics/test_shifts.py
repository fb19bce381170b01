"""Shifts, on ordinary days and on those when the clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from orinspect.runtime.config import ShiftsConfig
from orinspect.runtime.deliver.statistics.shifts import Shift, Shifts
from orinspect.runtime.errors import ConfigError

BERLIN = "Europe/Berlin"
THREE = ShiftsConfig(BERLIN, ("06:00", "14:00", "22:00"), ("early", "late", "night"))


def _at(config: ShiftsConfig, local: str, fold: int = 0) -> Shift:
    moment = datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(config.time_zone), fold=fold)
    return Shifts(config).at(moment.timestamp())


@pytest.mark.parametrize(
    ("local", "name", "day"),
    [
        ("2026-01-15T05:59:59.999", "night", "2026-01-14"),
        ("2026-01-15T06:00", "early", "2026-01-15"),
        ("2026-01-15T13:59:59", "early", "2026-01-15"),
        ("2026-01-15T14:00", "late", "2026-01-15"),
        ("2026-01-15T22:00", "night", "2026-01-15"),
        ("2026-01-01T01:00", "night", "2025-12-31"),
    ],
)
def test_a_moment_belongs_to_the_shift_that_started_last(local: str, name: str, day: str) -> None:
    shift = _at(THREE, local)
    assert (shift.name, shift.day) == (name, day)


def _hours(shift: Shift) -> float:
    assert shift.starts_at is not None
    assert shift.ends_at is not None
    lasts = datetime.fromisoformat(shift.ends_at[:-1]) - datetime.fromisoformat(shift.starts_at[:-1])
    return lasts / timedelta(hours=1)


def test_the_night_of_the_change_is_seven_or_nine_hours_long() -> None:
    assert _hours(_at(THREE, "2026-03-29T01:00")) == 7
    assert _hours(_at(THREE, "2026-10-25T01:00")) == 9
    assert _hours(_at(THREE, "2026-10-26T01:00")) == 8
    assert _at(THREE, "2026-10-25T02:30", fold=0) == _at(THREE, "2026-10-25T02:30", fold=1)


def test_a_start_that_is_skipped_begins_as_long_after_the_change() -> None:
    shift = _at(ShiftsConfig(BERLIN, ("02:30",)), "2026-03-29T03:30")
    assert (shift.day, shift.starts_at) == ("2026-03-29", "2026-03-29T01:30:00.000Z")
    assert _at(ShiftsConfig(BERLIN, ("02:30",)), "2026-03-29T03:29").day == "2026-03-28"


def test_a_start_that_occurs_twice_begins_at_the_first() -> None:
    config = ShiftsConfig(BERLIN, ("02:30",))
    assert _at(config, "2026-10-25T02:29", fold=0).day == "2026-10-24"
    assert _at(config, "2026-10-25T02:31", fold=0).day == "2026-10-25"
    assert _at(config, "2026-10-25T02:29", fold=1).day == "2026-10-25", "it is behind the first 02:30"


@pytest.mark.parametrize("zone", [BERLIN, "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC"])
def test_every_minute_of_a_year_has_one_shift_and_they_join(zone: str) -> None:
    shifts = Shifts(ShiftsConfig(zone, ("00:00", "02:30", "03:00", "21:15")))
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc).timestamp()
    last: Shift | None = None
    for _ in range(365 * 24 * 2):
        moment += 1800
        shift = shifts.at(moment)
        if last is not None and shift != last:
            assert shift.starts_at == last.ends_at
            assert shift.key != last.key
        last = shift


def test_no_start_of_the_year_is_forgotten_except_where_two_fall_together() -> None:
    shifts = Shifts(ShiftsConfig(BERLIN, ("02:00", "03:00")))
    first = datetime(2026, 1, 1, 12, tzinfo=timezone.utc).timestamp()
    keys = {shifts.at(first + 600 * n).key for n in range(365 * 144)}
    assert len(keys) == 2 * 365 - 1 + 1, "on 29 March both begin at 03:00, and one of them is empty"


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (ShiftsConfig("Europe/Atlantis"), ["Europe/Atlantis", "tzdata"]),
        (ShiftsConfig("../../etc/passwd"), ["passwd"]),
        (ShiftsConfig("UTC", ("25:00",)), ["25:00"]),
        (ShiftsConfig("UTC", ()), ["none"]),
        (ShiftsConfig("UTC", ("06:00", "06:00")), ["06:00, 06:00"]),
        (ShiftsConfig("UTC", ("06:00",), ("a", "b")), ["2 names for 1 starts"]),
    ],
)
def test_shifts_that_make_no_sense_are_refused(config: ShiftsConfig, names: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Shifts(config)
    for name in names:
        assert name in str(caught.value)


def test_either_end_of_the_calendar() -> None:
    assert Shifts(THREE).at(0.0).name == "night"
    assert Shifts(ShiftsConfig()).at(253402200000.0).day == "9999-12-30"
