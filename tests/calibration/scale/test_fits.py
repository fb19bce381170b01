"""Discs, edges, marks and boards rendered through a known camera: what is found, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from orinspect.calibration.scale.boards import Board, board_corners
from orinspect.calibration.scale.budget import Contribution, Dimension, Distribution, combined, widened
from orinspect.calibration.scale.command import scale_of_finding
from orinspect.calibration.scale.edges import fitted_step
from orinspect.calibration.scale.lengths import between_edges, between_marks, between_points
from orinspect.calibration.scale.rounds import RoundFit, fitted_round, round_outlines
from orinspect.calibration.scale.ways import (
    Finding,
    NamedPicture,
    scale_from_board,
    scale_from_diameter,
    scale_from_length,
)
from orinspect.examples.scale.render import (
    Exposure,
    KnownView,
    Pattern,
    bar,
    charuco,
    checkerboard,
    disc,
    marks,
    rendered,
)
from orinspect.runtime.errors import ScaleError

pytestmark = pytest.mark.slow

WH = (480, 360)
STRAIGHT = KnownView(WH, 1500.0, 500.0, spin=0.03, shift_mm=(2.0, -1.0))
NEAR = KnownView(WH, 800.0, 140.0, (0.08, -0.06), 0.1)
PX_PER_MM = 3.0
BOARD = Board((9, 6), 7.0)
CHARUCO = Board((7, 5), 10.0, 7.0)


def _seen(
    view: KnownView, pattern: Pattern, exposure: Exposure | None = None, seed: int = 1, glints: int = 0
) -> NamedPicture:
    return NamedPicture("part.png", rendered(view, pattern, exposure or Exposure(), seed, glints))


def _disc(diameter_mm: float, exposure: Exposure | None = None, glints: int = 0) -> RoundFit:
    picture = _seen(STRAIGHT, disc(diameter_mm), exposure, glints=glints)
    return fitted_round(picture.grey, round_outlines(picture.grey, 10)[0], "part.png")


def test_a_step_is_found_to_a_hundredth_of_a_pixel() -> None:
    """Phi in closed form; position and blur as drawn, noise as thrown."""
    from math import erf

    generator = np.random.default_rng(3)
    across = generator.uniform(-6, 6, 900)
    rise = np.array([0.5 + 0.5 * erf((t - 0.37) / 1.3 / 2**0.5) for t in across])
    step = fitted_step(across, 40 + 150 * rise + generator.normal(0, 2, 900), 1.0)
    assert step is not None
    assert step.position == pytest.approx(0.37, abs=0.015)
    assert step.blur == pytest.approx(1.3, abs=0.03)
    assert step.contrast == pytest.approx(150, abs=1)
    assert step.noise == pytest.approx(2, rel=0.1)
    assert not step.is_cut


def test_noise_is_no_step() -> None:
    generator = np.random.default_rng(4)
    assert fitted_step(generator.uniform(-6, 6, 900), generator.normal(90, 2, 900), 1.0) is None


@pytest.mark.parametrize("blur", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("diameter_mm", [8.0, 90.0])
def test_a_disc_is_found_to_a_few_hundredths_of_a_pixel(diameter_mm: float, blur: float) -> None:
    """Blur draws a curved edge inwards by blur^2 / (2 radius): not put right, this fails at 2.5 px."""
    fit = _disc(diameter_mm, Exposure(blur_px=blur))
    assert fit.diameter_px == pytest.approx(diameter_mm * PX_PER_MM, abs=0.04 if diameter_mm < 10 else 0.015)
    assert fit.centre_xy == pytest.approx(tuple(STRAIGHT.picture_points([[0, 0]])[0]), abs=0.04)
    assert fit.blur_px == pytest.approx(np.hypot(blur, 12**-0.5), rel=0.15)  # the pixel's own width too


def test_glints_on_the_edge_are_left_out() -> None:
    fit = _disc(90.0, glints=8)
    assert fit.kept < 0.97
    assert fit.diameter_px == pytest.approx(270.0, abs=0.03)


def test_a_bright_part_on_a_dark_ground_is_as_good() -> None:
    fit = _disc(90.0, Exposure(dark=210, bright=40))
    assert fit.diameter_px == pytest.approx(270.0, abs=0.02)


def test_a_part_that_the_border_cuts_is_not_taken() -> None:
    picture = _seen(KnownView(WH, 1500.0, 500.0, shift_mm=(60.0, 0.0)), disc(90.0))
    with pytest.raises(ScaleError, match=r"part\.png: no round part"):
        scale_from_diameter([picture], Dimension(90.0))


def _tilted() -> Finding:
    view = KnownView(WH, 1500.0, 500.0, (0.25, 0.0))
    return scale_from_diameter([_seen(view, disc(90.0))], Dimension(90.0))


def _out_of_focus() -> Finding:
    return scale_from_diameter([_seen(STRAIGHT, disc(90.0), Exposure(blur_px=8))], Dimension(90.0))


def _half_covered() -> Finding:
    picture = _seen(STRAIGHT, disc(90.0)).grey.copy()
    x, y = (round(float(value)) for value in STRAIGHT.picture_points([[0, 0]])[0])
    picture[y - 150 : y, x - 3 : x + 150] = np.random.default_rng(1).integers(20, 60, (150, 153))
    return scale_from_diameter([NamedPicture("part.png", picture)], Dimension(90.0))


def _edges_apart() -> Finding:
    wedge = _seen(STRAIGHT, lambda x, y: ((x < -30) | (x > 30 + 0.2 * y)).astype(np.float64))
    ends = tuple(STRAIGHT.picture_points([[-30, 0], [30, 0]]).ravel())
    return scale_from_length(
        "edges", [wedge], Dimension(60.0), lambda seen: between_edges(seen.grey, ends, seen.name)
    )


def _no_edge() -> Finding:
    picture, places = _seen(STRAIGHT, bar(60, 40)), (30.0, 30.0, 99.0, 30.0)
    return scale_from_length(
        "edges", [picture], Dimension(60.0), lambda seen: between_edges(seen.grey, places, seen.name)
    )


def _three_marks() -> Finding:
    third, pair = disc(6, (0.0, 20.0)), marks(60, 6)
    picture = _seen(STRAIGHT, lambda x, y: pair(x, y) * third(x, y))
    return scale_from_length(
        "fiducials", [picture], Dimension(60.0), lambda seen: between_marks(seen.grey, (), seen.name)
    )


def _bent_lens() -> Finding:
    view = KnownView(WH, 800.0, 140.0, distortion=(-0.6, 0.0, 0.0, 0.0, 0.0))
    return scale_from_board([_seen(view, checkerboard((9, 6), 7.0))], BOARD, Dimension(7.0))


def _at_one_side() -> Finding:
    view = KnownView(WH, 800.0, 220.0, shift_mm=(32.0, 0.0))
    return scale_from_board([_seen(view, checkerboard((9, 6), 7.0))], BOARD, Dimension(7.0))


def _other_board() -> Finding:
    picture = _seen(NEAR, checkerboard((9, 6), 7.0))
    return scale_from_board([picture], Board((8, 6), 7.0), Dimension(7.0))


def _other_dictionary() -> Finding:
    picture = _seen(NEAR, charuco((7, 5), 10.0, 7.0, "DICT_4X4_50"))
    board = Board((7, 5), 10.0, 7.0, "DICT_6X6_50")
    return scale_from_board([picture], board, Dimension(10.0))


def _covered_corners() -> Finding:
    picture = _seen(NEAR, charuco((7, 5), 10.0, 7.0, "DICT_4X4_50")).grey.copy()
    picture[:, : WH[0] * 6 // 10] = 90
    return scale_from_board([NamedPicture("part.png", picture)], CHARUCO, Dimension(10.0))


def _all_alike() -> Finding:
    pictures = [_seen(NEAR, checkerboard((9, 6), 7.0), seed=seed) for seed in range(5)]
    return scale_from_board(pictures, BOARD, Dimension(7.0))


@pytest.mark.parametrize(
    ("spoilt", "named"),
    [
        (_tilted, r"flatter one way.*\d+ degrees off.*board"),
        (_out_of_focus, r"blurred over \d\.\d px"),
        (_half_covered, r"(% of its outline has a clean edge|degrees of its outline)"),
        (_edges_apart, r"not parallel \(1?\d\.\d degrees"),
        (_no_edge, r"near 30,30 is clean in \d+ of \d+ places"),
        (_three_marks, r"3 round marks of like size.*--fiducials"),
        (_bent_lens, r"miss a flat board by \d\.\d\d px.*lens bends"),
        (_at_one_side, r"(one side|too little) of the picture"),
        (_other_board, r"no checkerboard of 8x6 INNER corners"),
        (_other_dictionary, r"no marker of DICT_6X6_50"),
        (_covered_corners, r"\d+ of the board's 24 corners were found"),
        (_all_alike, r"focal length is known to .* tilt it"),
    ],
)
def test_a_bad_fit_is_refused_with_its_number_and_a_remedy(spoilt: Callable[[], Finding], named: str) -> None:
    with pytest.raises(ScaleError, match=named):
        spoilt()


def test_an_edge_to_edge_length_is_measured_across_the_edges() -> None:
    """The points lie askew; the bar is turned: the distance across its edges counts."""
    ends = STRAIGHT.picture_points([[-35, 4], [35, -6]]) + np.array([[3.0, -2.0], [-2.5, 1.0]])
    length = between_edges(_seen(STRAIGHT, bar(70, 50)).grey, tuple(ends.ravel()), "part.png")
    assert length.value_px == pytest.approx(70 * PX_PER_MM, abs=0.03)
    assert length.residual_px is not None
    assert length.residual_px < 0.1


def test_marks_are_found_and_the_named_ones_taken() -> None:
    third, pair = disc(6, (0.0, 20.0)), marks(60, 6)
    grey = _seen(STRAIGHT, lambda x, y: pair(x, y) * third(x, y)).grey
    seeds = STRAIGHT.picture_points([[-30, 1], [30, -1]]).tolist()
    named = between_marks(grey, seeds, "part.png")
    assert named.value_px == pytest.approx(60 * PX_PER_MM, abs=0.03)
    found = between_marks(_seen(STRAIGHT, marks(60, 6)).grey, (), "part.png")
    assert found.value_px == pytest.approx(60 * PX_PER_MM, abs=0.03)


def test_two_points_are_taken_as_they_stand() -> None:
    length = between_points((10, 10, 40, 50), 0.5)
    assert (length.value_px, length.residual_px) == (50.0, None)
    assert length.uncertainty_px == pytest.approx(0.5 * (2 / 3) ** 0.5)


@pytest.mark.parametrize("board", [BOARD, CHARUCO], ids=["checkerboard", "charuco"])
def test_corners_lie_where_the_camera_saw_them(board: Board) -> None:
    """Up to the half turn that a checkerboard cannot tell."""
    is_charuco = board.marker_mm is not None
    pattern = charuco((7, 5), 10.0, 7.0, "DICT_4X4_50") if is_charuco else checkerboard((9, 6), 7.0)
    corners = board_corners(_seen(NEAR, pattern).grey, board, "part.png")
    middle = corners.plane_mm - (corners.plane_mm.max(axis=0) + corners.plane_mm.min(axis=0)) / 2
    error = min(
        float(np.abs(corners.picture_xy - NEAR.picture_points(sign * middle)).max()) for sign in (1, -1)
    )
    assert len(corners.plane_mm) == board.corners
    assert error < 0.15


def test_one_picture_of_a_board_takes_perspective_out() -> None:
    finding = scale_from_board([_seen(NEAR, checkerboard((9, 6), 7.0))], BOARD, Dimension(7.0))
    scale = scale_of_finding(finding, WH)
    for start, end in (((60, 40), (400, 60)), ((60, 320), (400, 310)), ((70, 30), (80, 330))):
        first, second = NEAR.plane_points([start, end])
        length, uncertainty = scale.length_mm(start, end)
        assert length == pytest.approx(float(np.hypot(*(second - first))), rel=5e-4)
        assert uncertainty < 5e-4 * length
    assert scale.camera_matrix is None


@pytest.mark.slow
def test_several_pictures_take_the_lens_out() -> None:
    bend = (-0.3, 0.1, 1e-3, -5e-4, 0.0)
    tilts = [(0.05, 0.03), (0.4, 0.1), (-0.4, 0.2), (0.1, 0.4), (0.2, -0.4), (-0.3, -0.3)]
    views = [KnownView(WH, 800.0, 140.0, tilt, 0.1 * i, distortion=bend) for i, tilt in enumerate(tilts)]
    pattern = checkerboard((9, 6), 7.0)
    pictures = [_seen(view, pattern, seed=i) for i, view in enumerate(views)]
    scale = scale_of_finding(scale_from_board(pictures, BOARD, Dimension(7.0)), WH)
    assert scale.camera_matrix is not None
    assert scale.camera_matrix[0][0] == pytest.approx(800, rel=0.01)
    assert scale.distortion[0] == pytest.approx(-0.3, abs=0.05)
    first, second = views[0].plane_points([(60, 40), (420, 320)])
    length, uncertainty = scale.length_mm((60, 40), (420, 320))
    assert length == pytest.approx(float(np.hypot(*(second - first))), abs=3 * uncertainty)
    assert uncertainty < 1e-3 * length


def test_too_few_pictures_for_the_lens_are_said() -> None:
    pictures = [_seen(NEAR, checkerboard((9, 6), 7.0), seed=seed) for seed in range(2)]
    finding = scale_from_board(pictures, BOARD, Dimension(7.0))
    assert finding.plane is not None
    assert finding.plane.camera_matrix is None
    assert any("2 pictures are too few for the lens" in note for note in finding.notes)


def test_the_budget_is_the_root_of_the_sum_of_squares() -> None:
    lines = [Contribution(name, value, "normal", "") for name, value in (("a", 3e-4), ("b", 4e-4))]
    assert combined(lines) == pytest.approx(5e-4)


@pytest.mark.parametrize(
    "lines",
    [
        [("rectangular", 1.0)],
        [("rectangular", 1.0), ("normal", 1.0)],
        [("rectangular", 1.0), ("normal", 0.1), ("U-shaped", 0.3)],
        [("rectangular", 1.0), ("rectangular", 0.5)],
    ],
)
def test_twice_the_combined_uncertainty_covers_what_k_2_covers_of_a_normal_one(
    lines: list[tuple[Distribution, float]],
) -> None:
    """Against drawing: JCGM 101's own way. Twice a bound's standard deviation would cover everything."""
    rng = np.random.default_rng(5)
    drawn = {
        "normal": lambda: rng.normal(size=400_000),
        "rectangular": lambda: rng.uniform(-(3**0.5), 3**0.5, 400_000),
        "U-shaped": lambda: 2**0.5 * np.sin(rng.uniform(0, 2 * np.pi, 400_000)),
    }
    total = sum(relative * drawn[kind]() for kind, relative in lines)
    stated = 2 * combined([Contribution("x", relative, kind, "") for kind, relative in lines])
    assert np.mean(np.abs(total) <= stated) == pytest.approx(0.9545, abs=0.002)


def test_a_lens_that_is_left_in_has_a_line_of_its_own() -> None:
    """k1 = -0.05 makes lengths wrong by a thousandth; a straight camera has no such line."""
    for bend, is_there in ((-0.05, True), (0.0, False)):
        view = KnownView(WH, 800.0, 140.0, (0.08, -0.06), 0.1, distortion=(bend, 0.0, 0.0, 0.0, 0.0))
        finding = scale_from_board([_seen(view, checkerboard((9, 6), 7.0))], BOARD, Dimension(7.0))
        lens = [one for one in finding.budget if one.name == "lens"]
        assert bool(lens) == is_there == any("bends straight lines" in note for note in finding.notes)
        if lens:
            assert 2e-4 < lens[0].relative < 5e-3


def test_tolerance_and_temperature_are_in_the_budget() -> None:
    """120 +-0.05 mm of steel at 30 +-2 degrees: by hand after JCGM 100, 4.3.7."""
    dimension = Dimension(120.0, 0.05, 30.0, 2.0, 11.5)
    assert dimension.actual_mm == pytest.approx(120.0 * (1 + 115e-6))
    tolerance, warm = dimension.contributions()
    assert tolerance.relative == pytest.approx(0.05 / 120 / 3**0.5)
    assert warm.relative == pytest.approx(np.hypot(11.5e-6 * 2, 11.5e-7 * 10) / 3**0.5)
    assert not dimension.unknown()
    assert len(Dimension(120.0).unknown()) == 2


def test_few_degrees_of_freedom_widen_as_students_table_says() -> None:
    """t at 97.5 % for 5, 10 and 30 degrees of freedom: 2.571, 2.228, 2.042."""
    for freedom, factor in ((5, 2.571), (10, 2.228), (30, 2.042)):
        assert widened(freedom) * 1.96 == pytest.approx(factor, rel=0.01)


def test_several_discs_show_what_the_scale_changes_by() -> None:
    """The same disc nearer and farther: the spread of the two is in the budget, not only their fits."""
    views = [KnownView(WH, 1500.0, distance) for distance in (500.0, 505.0)]
    pictures = [_seen(view, disc(90.0)) for view in views]
    finding = scale_from_diameter(pictures, Dimension(90.0))
    place = next(one for one in finding.budget if one.name == "place")
    assert finding.mm_per_px == pytest.approx((1 / 3 + 505 / 1500) / 2, rel=1e-4)
    assert place.relative > 0.005


def test_cut_grey_levels_cost_certainty() -> None:
    fine, cut = (
        scale_from_diameter([_seen(STRAIGHT, disc(90.0), Exposure(bright=bright))], Dimension(90.0))
        for bright in (200.0, 300.0)
    )
    assert any("cut" in note for note in cut.notes)
    assert combined(cut.budget) > 3 * combined(fine.budget)
