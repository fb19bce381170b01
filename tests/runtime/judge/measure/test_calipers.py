"""The calipers on pictures whose truth is known, and on pictures that hold nothing to measure."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from orinspect.examples.calipers.measure import rows_of_groups, try_of_specimen
from orinspect.examples.calipers.populations import specimen
from orinspect.examples.calipers.scenes import measured
from orinspect.runtime.judge.measure.calipers import BEYOND_PLANE, CUT, measure_defect, measured_defects
from orinspect.runtime.judge.measure.forms.bowl import RIM
from orinspect.runtime.judge.measure.measurement import DIMENSIONS, MEASURES, Measurement
from orinspect.runtime.judge.measure.segment import FAINT
from orinspect.runtime.judge.scale import plain_scale


def _bar(
    length: float = 40.0,
    width: float = 10.0,
    turn: float = 25.0,
    *,
    colour: tuple[float, ...] = (-60, -30, 20),
    middle: tuple[float, float] = (75.3, 50.6),
    noise: float = 2.0,
) -> np.ndarray:
    """A BGR picture [100, 150, 3] of a bar on grey, anti-aliased at 1/8 px and blurred by 1 px."""
    fine = np.zeros((800, 1200), np.float32)
    corners = cv2.boxPoints(((middle[0] * 8 - 0.5, middle[1] * 8 - 0.5), (length * 8, width * 8), turn))
    points = np.round(corners * 16).astype(np.int32)
    cv2.fillPoly(fine, [points], (1.0,), cv2.LINE_8, 4)
    cv2.polylines(fine, [points], True, (0.5,), 1, cv2.LINE_8, 4)
    cover = cv2.GaussianBlur(cv2.resize(fine, (150, 100), interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    light = 130 + cover[..., None] * np.array(colour, np.float32)
    light = light + np.random.default_rng(5).normal(0, noise, light.shape)
    return np.clip(np.round(light), 0, 255).astype(np.uint8)


BOX = (50.0, 32.0, 100.0, 70.0)


def _value(found: Measurement, name: str) -> float:
    value = found.measures[name].value
    assert isinstance(value, float)
    return value


@pytest.mark.slow
def test_the_drawn_shapes_are_measured_and_the_uncertainty_holds() -> None:
    """The short form of `examples/calipers/measure.py`; 95 % of 300 is within 91.5 and 98 by chance alone."""
    row = rows_of_groups([try_of_specimen(specimen(12000 + number)) for number in range(300)])[0]
    assert row["null"] <= 3
    assert row["within_1.5_px"] >= 0.93
    for name in ("length", "width", "area"):
        assert 0.90 <= row[name]["coverage"] <= 0.99, (name, row[name])
    assert row["length"]["median_error_px"] < 0.4 and abs(row["length"]["bias_px"]) < 0.15


def test_twelve_dimensions_of_a_turned_bar() -> None:
    found = measure_defect(_bar(), BOX, scale=plain_scale(0.02, 0.0001), others=[(120.0, 40.0, 140.0, 60.0)])
    assert len(DIMENSIONS) == 12 and set(found.measures) == set(MEASURES)
    for name, truth, unit in (
        ("length", 0.8, "mm"),
        ("width", 0.2, "mm"),
        ("area", 0.16, "mm2"),
        ("aspect", 4.0, "1"),
        ("orientation", 25.0, "deg"),
    ):
        measure = found.measures[name]
        assert measure.unit == unit and measure.k == 2
        assert measure.expanded_uncertainty is not None
        assert abs(_value(found, name) - truth) <= 1.5 * measure.expanded_uncertainty, (name, measure)
    assert _value(found, "roundness") == pytest.approx(4 * math.pi * 400 / 100**2, abs=0.06)
    assert _value(found, "edge_sharpness") == pytest.approx(2.563, abs=0.6)
    assert found.measures["colour_rgb"].value == pytest.approx((150, 100, 70), abs=3)
    assert _value(found, "delta_e") > 15 and _value(found, "contrast") < 0
    assert _value(found, "distance") == pytest.approx(
        (120 - (75.3 + 20 * math.cos(math.radians(25)) + 5 * math.sin(math.radians(25)))) * 0.02, abs=0.03
    )
    assert found.nulls == {"depth": "no_depth_from_one_picture"}
    assert found.size_mm is not None and found.size_mm.length is not None


def test_grey_and_colour_agree_and_both_polarities_are_seen() -> None:
    grey = measure_defect(_bar(colour=(-50, -50, -50))[..., 0].copy(), BOX, scale=None)
    bright = measure_defect(_bar(colour=(50, 50, 50)), BOX, scale=None)
    chroma = measure_defect(_bar(colour=(40, -20, -20)), BOX, scale=None)  # the same grey as around
    for found in (grey, bright, chroma):
        assert _value(found, "length") == pytest.approx(40, abs=0.8)
        assert _value(found, "width") == pytest.approx(10, abs=0.8)
        assert found.measures["length"].unit == "px" and found.nulls["size_mm"] == "not_calibrated"
        assert found.size_mm is None
    assert _value(grey, "contrast") < 0 < _value(bright, "contrast")


def test_the_scale_enters_the_size_and_its_uncertainty() -> None:
    picture = _bar()
    sure, unsure = (
        measure_defect(picture, BOX, scale=plain_scale(0.05, u)).measures["length"] for u in (0.0, 0.002)
    )
    assert sure.value == unsure.value
    assert sure.expanded_uncertainty is not None and unsure.expanded_uncertainty is not None
    of_scale = math.sqrt(unsure.expanded_uncertainty**2 - sure.expanded_uncertainty**2)
    assert of_scale == pytest.approx(2 * 0.04 * 2.0, rel=0.03)  # 2 k, 4 % of 2 mm


def test_a_template_takes_the_pattern_away() -> None:
    pattern = np.full((100, 150), 140, np.uint8)
    pattern[:, 60:72] = 90
    pattern[44:56] = 90
    part = pattern.astype(np.float32) + (_bar(noise=0.0)[..., 0].astype(np.float32) - 130)
    noisy = np.clip(part + np.random.default_rng(1).normal(0, 2, part.shape), 0, 255)
    moved = np.asarray(np.roll(pattern, (2, -3), axis=(0, 1)), np.uint8)
    found = measure_defect(noisy.astype(np.uint8), BOX, scale=None, template=moved)
    assert _value(found, "length") == pytest.approx(40, abs=1.2)
    assert _value(found, "width") == pytest.approx(10, abs=1.2)


def test_a_defect_cut_by_the_picture_says_so() -> None:
    picture = _bar(middle=(6.0, 50.0), turn=0.0)
    found = measure_defect(picture, (0.0, 40.0, 28.0, 60.0), scale=plain_scale(0.02))
    assert found.notes == (CUT,)
    assert _value(found, "length") == pytest.approx(26 * 0.02, abs=0.03)  # what is left of 40 px
    assert _value(found, "distance") == 0.0


@pytest.mark.parametrize(
    "box",
    [
        (50.0, 32.0, 100.0, 70.0),
        (0.0, 0.0, 6.0, 6.0),
        (-20.0, -20.0, 400.0, 300.0),
        (140.0, 90.0, 150.0, 100.0),
        (20.2, 20.2, 21.9, 22.1),
    ],
)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_to_see_is_null_with_a_reason(box: tuple[float, float, float, float], level: int) -> None:
    for shape in ((100, 150), (100, 150, 3)):
        picture = np.full(shape, level, np.uint8)
        found = measure_defect(picture, box, scale=plain_scale(0.02), template=picture)
        assert found.measures == {} and found.size_mm is None
        assert set(found.nulls.values()) == {FAINT, "no_depth_from_one_picture"}


@pytest.mark.parametrize(
    "box",
    [
        (200.0, 20.0, 220.0, 40.0),
        (30.0, 30.0, 30.4, 60.0),
        (60.0, 60.0, 50.0, 50.0),
        (math.nan, 0.0, 10.0, 10.0),
    ],
)
def test_a_box_without_a_pixel_is_null_with_a_reason(box: tuple[float, float, float, float]) -> None:
    found = measure_defect(_bar(), box, scale=None)
    assert found.nulls["length"] == "box_outside_picture" and found.measures == {}


def test_noise_and_odd_pictures_raise_nothing() -> None:
    rng = np.random.default_rng(9)
    for shape in ((40, 60), (40, 60, 3), (9, 200, 3), (3, 3)):
        for _ in range(6):
            picture = rng.integers(0, 256, shape).astype(np.uint8)
            x1, y1 = rng.uniform(0, shape[1] - 2), rng.uniform(0, shape[0] - 2)
            box = (
                float(x1),
                float(y1),
                float(rng.uniform(x1, shape[1] + 4)),
                float(rng.uniform(y1, shape[0] + 4)),
            )
            found = measure_defect(picture, box, scale=None, template=picture[::-1].copy())
            assert found.nulls


def test_many_boxes_of_one_picture_know_each_other() -> None:
    picture = _bar()
    picture[:, 110:] = _bar()[:, 40:80]
    first, second = measured_defects(picture, [BOX, (110.0, 30.0, 150.0, 72.0)], scale=None)
    assert _value(first, "distance") < 20
    assert second.measures


def test_a_large_defect_is_measured_in_larger_pixels() -> None:
    large = cv2.resize(_bar(noise=0.5), None, fx=10, fy=10, interpolation=cv2.INTER_CUBIC)
    picture = np.asarray(large, np.uint8)
    found = measure_defect(picture, (500.0, 320.0, 1000.0, 700.0), scale=None)
    assert _value(found, "length") == pytest.approx(400, abs=8)
    assert _value(found, "width") == pytest.approx(100, abs=8)


def test_a_box_of_one_pixel_in_the_midst_of_another_is_measured_or_says_why() -> None:
    """On no pixel's centre, with every pixel around it a neighbour's: it has its own all the same."""
    image = np.full((60, 60), 128, np.uint8)
    found = measure_defect(image, (30.5, 30.5, 31.5, 31.5), scale=None, others=[(10.0, 10.0, 50.0, 50.0)])
    assert found.nulls["length"] == FAINT


def test_beyond_the_horizon_of_the_calibrated_plane_sizes_stay_in_pixels() -> None:
    identity = ((0.02, 0.0, 0.0), (0.0, 0.02, 0.0), (0.0, -0.1, 1.0))  # the horizon is at y = 10
    tilted = dataclasses.replace(plain_scale(0.02), homography=identity)
    found = measure_defect(_bar(), BOX, scale=tilted)
    assert found.size_mm is None
    assert found.nulls["size_mm"] == BEYOND_PLANE
    assert {found.measures[name].unit for name in ("length", "width")} == {"px"}
    assert all(math.isfinite(_value(found, name)) for name in ("length", "area", "distance"))


@pytest.mark.parametrize(
    ("seed", "size", "corner"), [(1930209338, (39, 14), (7.0, 9.0)), (704336604, (9, 24), (5.0, 3.0))]
)
def test_of_noise_no_size_is_negative_and_none_is_surely_small(
    seed: int, size: tuple[int, int], corner: tuple[float, float]
) -> None:
    rng = np.random.default_rng(seed)
    rng.integers(8, 40), rng.integers(8, 40)
    image = rng.integers(0, 256, size).astype(np.uint8)
    found = measure_defect(image, (*corner, corner[0] + 3, corner[1] + 3), scale=None)
    for name in ("length", "width", "area"):
        assert _value(found, name) >= 0
    assert (found.measures["length"].expanded_uncertainty or 0) > 2  # of three pixels


def test_the_nearest_of_many_boxes_is_the_distance_and_the_far_ones_change_nothing() -> None:
    picture = cv2.copyMakeBorder(_bar(), 200, 200, 200, 200, cv2.BORDER_REPLICATE)
    box = tuple(side + 200 for side in BOX)
    places = np.random.default_rng(3).uniform(0, 380, (400, 2))
    boxes = [(float(x), float(y), float(x) + 6.0, float(y) + 6.0) for x, y in places]
    far = [one for one in boxes if one[2] < 150 or one[3] < 150]
    near = (330.0, 240.0, 340.0, 250.0)
    alone = measure_defect(picture, box, scale=None, others=[near])  # type: ignore[arg-type]
    amid = measure_defect(picture, box, scale=None, others=[*far, near])  # type: ignore[arg-type]
    assert len(far) > 200
    assert amid.measures == alone.measures
    outline = alone.contour_xy
    assert outline is not None
    gaps = np.maximum(np.array([330.0, 240.0]) - outline, outline - np.array([340.0, 250.0]))
    expected = float(np.hypot(*np.maximum(gaps, 0.0).T).min())
    assert _value(alone, "distance") == pytest.approx(expected)


@pytest.mark.slow
def test_defects_of_metal_and_boards_are_measured_and_the_uncertainty_holds() -> None:
    """The short form of `examples/calipers/scenes.py`, on seeds of its own; bounds leave room for chance."""
    table = measured({"metal": 60, "pcb grey": 4, "pcb binary": 4}, 64000)
    for box_name in ("true box", "moved box"):
        metal = table[box_name]["metal"]["rows"][0]
        assert metal["n"] > 100 and metal["null"] <= 0.05 * metal["n"]
        assert metal["within_1.5_px"] >= 0.70, metal
        assert metal["length"]["coverage"] >= 0.88 and metal["width"]["coverage"] >= 0.86, metal
        for kind in ("pcb grey", "pcb binary"):
            board = table[box_name][kind]["rows"][0]
            assert board["null"] == 0 and board["within_1.5_px"] >= 0.70, board
            assert board["length"]["coverage"] >= 0.85, board


def _textured(seed: int, sigma_x: float, deviation: float) -> np.ndarray:
    """A brushed grey surface float32 [160, 200]: streaks along x."""
    grain = np.random.default_rng(seed).standard_normal((160, 200)).astype(np.float32)
    streaks = cv2.GaussianBlur(grain, (0, 0), sigmaX=sigma_x, sigmaY=0.7)
    return 130 + streaks * np.float32(deviation / streaks.std())


def _photographed(light: np.ndarray, seed: int) -> np.ndarray:
    noisy = cv2.GaussianBlur(light, (0, 0), 0.8) + np.random.default_rng(seed).normal(0, 2, light.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def test_a_scratch_that_fades_to_its_ends_is_followed_across_the_lay() -> None:
    """Half of one height for all of it would cut its ends off; streaks of its own contrast are no line."""
    light = _textured(3, 25.0, 9.0)
    steps = np.linspace(0, 1, 400)
    shares = np.minimum(np.minimum(steps, 1 - steps) * 4 + 0.45, 1.0)
    for x, y, share in zip(40 + 110 * steps, 50 + 55 * steps, shares, strict=True):
        rows, columns = np.mgrid[int(y) - 4 : int(y) + 6, int(x) - 4 : int(x) + 6]
        near = np.hypot(columns + 0.5 - x, rows + 0.5 - y) < 1.4
        place = rows[near], columns[near]
        light[place] = np.minimum(light[place], 130 - 60 * share)
    box = (38.0 - 10, 48.0 - 10, 152.0 + 10, 107.0 + 10)
    found = measure_defect(_photographed(light, 4), box, scale=None, box_margin_px=10, defect_type="scratch")
    length = found.measures["length"]
    assert _value(found, "length") == pytest.approx(math.hypot(110, 55) + 2.8, abs=3.0)
    assert length.expanded_uncertainty is not None and length.expanded_uncertainty < 12
    assert found.measures["orientation"].value == pytest.approx(math.degrees(math.atan2(55, 110)), abs=2)


@pytest.mark.parametrize("light_from", [0.0, 1.2, 2.5])
def test_a_dent_is_as_large_as_the_bowl_that_throws_its_shade(light_from: float) -> None:
    rows, columns = np.mgrid[0:160, 0:200] + 0.5
    across, down = columns - 101.3, rows - 78.6
    turn = math.radians(30)
    along = (across * math.cos(turn) + down * math.sin(turn)) / 27.0 * RIM
    aside = (down * math.cos(turn) - across * math.sin(turn)) / 19.0 * RIM
    inside = np.maximum(1 - along**2 - aside**2, 0)
    shade = inside * (along * math.cos(light_from) + aside * math.sin(light_from))
    picture = _photographed(_textured(5, 12.0, 3.0) * (1 + shade).astype(np.float32), 6)
    found = measure_defect(
        picture, (68.0, 48.0, 137.0, 111.0), scale=None, box_margin_px=10, defect_type="dent"
    )
    for name, truth in (("length", 54.0), ("width", 38.0), ("orientation", 30.0)):
        assert _value(found, name) == pytest.approx(truth, abs=2.0), name
    assert found.mask is not None and found.mask.sum() == pytest.approx(math.pi * 27 * 19, rel=0.08)


def test_rust_of_two_tones_and_its_satellite_are_one_defect() -> None:
    """Light and dark rust have their hue in common: no hole in it, no cut, and the small spot counts."""
    light = np.repeat(_textured(7, 20.0, 6.0)[..., None], 3, axis=2)
    rows, columns = np.mgrid[0:160, 0:200] + 0.5
    blot = np.hypot(columns - 90, rows - 80) < 24
    spot = np.hypot(columns - 128.5, rows - 80) < 3.5
    tone = np.where(np.sin(columns / 6) > 0, 1.0, 0.55)[..., None]
    light[blot | spot] = (np.array([30.0, 75.0, 140.0]) * tone)[blot | spot]
    picture = _photographed(light.astype(np.float32), 8)
    box = (66.0 - 10, 56.0 - 10, 132.0 + 10, 104.0 + 10)
    found = measure_defect(picture, box, scale=None, box_margin_px=10, defect_type="rust")
    # The smallest rectangle lies aslant: the spot hides behind the blot's width.
    aslant = math.asin((24 - 3.5) / 38.5)
    assert _value(found, "length") == pytest.approx(24 + 3.5 + 38.5 * math.cos(aslant), abs=1.0)
    assert _value(found, "width") == pytest.approx(48.0, abs=1.0)
    assert _value(found, "area") == pytest.approx(math.pi * (24**2 + 3.5**2), rel=0.06)
