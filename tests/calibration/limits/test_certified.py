"""The certified range of a planted curve."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from orinspect.calibration.limits.certified import SweepPoint, certified_points, quality_section
from orinspect.runtime.capture.quality import Quality, within

CLEAN = Quality(120.0, 150.0, 1.0, 2.0, 0.0, 0.0, 1.0, 1.0, 0.2, 0.0)


def point(strength: float, loss_high: float, *qualities: Quality) -> SweepPoint:
    return SweepPoint(strength, 0.98 - loss_high, 0.9, 1.0, loss_high - 0.004, loss_high, qualities)


def blur_curve(*losses: float) -> list[SweepPoint]:
    """Strength n has a measured blur of n - 0.1, n and n + 0.3."""
    return [
        point(n, loss, *(replace(CLEAN, blur_added_px=n + more) for more in (0.3, -0.1, 0.0)))
        for n, loss in enumerate(losses, start=1)
    ]


def test_what_comes_after_a_strength_that_fails_is_not_certified() -> None:
    assert certified_points(blur_curve(0.0, 0.009, 0.011, 0.002), 0.01) == 2
    assert certified_points(blur_curve(0.02, 0.0), 0.01) == 0
    assert certified_points(blur_curve(-0.01, 0.01), 0.01) == 2


def test_the_limit_is_the_median_where_the_last_strength_held() -> None:
    section = quality_section([CLEAN] * 3, {"blur": blur_curve(0.0, 0.009, 0.011)})
    assert section["limits"] == {"blur_added_px": {"max": 2.0}}
    curve = section["sweeps"]["blur"]
    assert (curve["certified"], curve["is_open"], curve["quantity"]) == (2, False, "blur_added_px")
    assert [row["measured"] for row in curve["points"]] == [1.0, 2.0, 3.0]
    assert curve["points"][0]["measured_low_high"] == [0.9, 1.3]
    assert json.loads(json.dumps(section)) == section
    assert within(replace(CLEAN, blur_added_px=2.4), section) == ("blur_added_px 2.4 > 2",)
    assert within(replace(CLEAN, blur_added_px=1.9), section) == ()


def test_clean_pictures_are_always_inside() -> None:
    spread = [CLEAN, replace(CLEAN, blur_added_px=1.7), replace(CLEAN, blur_added_px=0.0)]
    for losses in ((0.0, 0.2), (0.2, 0.2)):
        section = quality_section(spread, {"blur": blur_curve(*losses)})
        assert section["limits"]["blur_added_px"]["max"] == 1.7
        assert not any(within(one, section) for one in spread)
    assert section["sweeps"]["blur"]["certified"] is None


def test_two_kinds_of_one_quantity_leave_the_narrower_range() -> None:
    blur, motion = blur_curve(0.0, 0.0, 0.0), blur_curve(0.0, 0.3)
    section = quality_section([CLEAN], {"blur": blur, "motion": motion})
    assert section["limits"] == {"blur_added_px": {"max": 1.0}}
    assert section["sweeps"]["blur"]["is_open"] and not section["sweeps"]["motion"]["is_open"]
    light = [point(n, loss, replace(CLEAN, light_ratio=n)) for n, loss in ((0.5, 0.0), (0.2, 0.4))]
    bright = [point(1.5, 0.0, replace(CLEAN, light_ratio=1.5))]
    section = quality_section([CLEAN], {"low_light": light, "bright_light": bright})
    assert section["limits"] == {"light_ratio": {"min": 0.5, "max": 1.5}}


def test_without_a_template_the_pictures_own_numbers_count() -> None:
    alone = replace(CLEAN, light_ratio=None, contrast_ratio=None, blur_added_px=None, noise_added=None)
    dark = [point(0.5, 0.001, replace(alone, brightness=60.0))]
    blur = [point(2.0, 0.0, replace(alone, blur_px=2.2), replace(alone, blur_px=None))]
    section = quality_section([alone], {"low_light": dark, "blur": blur})
    assert section["limits"] == {"brightness": {"min": 60.0}, "blur_px": {"max": pytest.approx(2.2)}}


def test_a_quantity_that_nothing_shows_has_no_limit() -> None:
    flat = replace(CLEAN, blur_px=None, blur_added_px=None)
    section = quality_section([flat], {"blur": [point(1.0, 0.0, flat)]})
    assert section["limits"] == {}
    assert section["sweeps"]["blur"]["points"][0]["measured"] is None
