"""The pixel scale: points and lengths in mm, what its file keeps, and when it must not be used."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.examples.scale.render import KnownView
from orinspect.runtime.errors import ScaleError
from orinspect.runtime.judge.scale import PixelScale, plain_scale, read_scale, scale_id, scale_problem
from orinspect.runtime.judge.site_scale import SiteScale
from orinspect.tests.report_cases import report

MADE = "2026-01-01T00:00:00.000Z"
MADE_S = 1767225600.0
DAY_S = 86400.0

# A camera with distortion above a tilted plane: the truth for the map of points.
VIEW = KnownView((640, 480), 1000.0, 140.0, (0.1, -0.15), 0.0, (2.0, -1.0), (-0.2, 0.05, 1e-3, -5e-4, 0.0))


def _mapped() -> PixelScale:
    """The scale that knows VIEW exactly; its parameters are uncertain by a millionth of themselves."""
    camera = np.array([[1000.0, 0, 320.0], [0, 1000.0, 240.0], [0, 0, 1]])
    pose = np.column_stack([VIEW.rotation()[:, :2], [*VIEW.shift_mm, VIEW.distance_mm]])
    homography = np.linalg.inv(camera @ pose)
    homography = homography / homography[2, 2]
    scale = PixelScale(
        0.14,
        0.0001,
        calibrated_at=MADE,
        expires_at="2026-07-01T00:00:00.000Z",
        method="charuco with lens",
        camera_id="cam0",
        picture_wh=(640, 480),
        camera_matrix=tuple(map(tuple, camera.tolist())),
        distortion=VIEW.distortion,
        homography=tuple(map(tuple, homography.tolist())),
        common_uncertainty=1e-4,
    )
    spread = np.diag((1e-6 * np.abs(scale.parameters())) ** 2)
    return replace(scale, covariance=tuple(map(tuple, spread.tolist())))


def test_a_plain_factor_is_a_factor_with_an_uncertainty() -> None:
    scale = plain_scale(0.02, 0.0001)
    assert scale.points_mm([[100, 50]]).tolist() == [[2.0, 1.0]]
    assert scale.length_mm((0, 0), (30, 40)) == pytest.approx((1.0, 0.005))
    assert scale.relative_uncertainty == pytest.approx(0.005)
    assert scale.expanded_uncertainty == pytest.approx(0.0002)
    assert scale.mm_per_px_at(7, 9) == pytest.approx(0.02)


def test_distortion_and_perspective_are_taken_out() -> None:
    """Points all over the picture, against the camera that they were seen through."""
    picture = np.random.default_rng(1).uniform([0, 0], [640, 480], (200, 2))
    assert np.allclose(_mapped().points_mm(picture), VIEW.plane_points(picture), atol=1e-6)


def test_the_scale_at_a_place_is_the_root_of_what_areas_scale_with() -> None:
    around = np.array([[99.5, 80], [100.5, 80], [100, 79.5], [100, 80.5]])
    left, right, up, down = VIEW.plane_points(around)
    true = np.sqrt(abs(np.linalg.det(np.stack([right - left, down - up]))))
    assert _mapped().mm_per_px_at(100, 80) == pytest.approx(true, rel=1e-6)


def test_the_uncertainty_of_a_length_is_that_of_its_parameters() -> None:
    """Against the scatter of lengths under thrown parameters."""
    scale = _mapped()
    generator = np.random.default_rng(2)
    spread = 1e-6 * np.abs(scale.parameters())
    lengths = []
    for _ in range(1500):
        moved = scale.parameters() + generator.normal(0, 1, len(spread)) * spread
        matrix = np.append(moved[:8], 1.0).reshape(3, 3)
        camera = ((moved[8], 0.0, moved[10]), (0.0, moved[9], moved[11]), (0.0, 0.0, 1.0))
        thrown = replace(
            scale,
            homography=tuple(map(tuple, matrix.tolist())),
            camera_matrix=camera,
            distortion=tuple(moved[12:].tolist()),
            covariance=None,
        )
        lengths.append(thrown.length_mm((50, 60), (600, 400))[0])
    stated = replace(scale, common_uncertainty=0.0).length_mm((50, 60), (600, 400))[1]
    assert stated == pytest.approx(float(np.std(lengths)), rel=0.08)
    length, with_common = scale.length_mm((50, 60), (600, 400))
    assert with_common == pytest.approx(np.hypot(stated, 1e-4 * length), rel=1e-9)


def test_a_point_beyond_the_horizon_is_no_point() -> None:
    scale = PixelScale(0.1, homography=((0.1, 0, 0), (0, 0.1, 0), (-0.01, 0, 1)))
    points = scale.points_mm([[10, 10], [200, 10]])
    assert np.isfinite(points[0]).all()
    assert np.isnan(points[1]).all()


def test_a_plane_that_no_number_can_hold_maps_to_no_point() -> None:
    scale = replace(_mapped(), homography=((1e308, 1e308, 0.0), (0.0, 1e308, 0.0), (0.0, 0.0, 1.0)))
    assert np.isnan(scale.points_mm([[300.0, 200.0]])).all()


def test_a_file_gives_back_the_same_scale(tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    path.write_text(_mapped().to_json({"residual_px": 0.1}), encoding="utf-8")
    read = read_scale(path)
    assert read.calibration_id is not None
    assert read.calibration_id.startswith("scale-")
    assert replace(read, calibration_id=None) == _mapped()
    assert json.loads(path.read_text("utf-8"))["residual_px"] == 0.1
    path.write_text(_mapped().to_json({"residual_px": 0.2}), encoding="utf-8")
    assert read_scale(path).calibration_id != read.calibration_id


def _table(change: dict[str, Any]) -> str:
    """A file whose content was replaced and whose id fits again."""
    table = {**json.loads(_mapped().to_json()), **change}
    del table["id"]
    return json.dumps({"id": scale_id(table), **table})


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "not JSON"),
        ("[]", "orinspect.scale/1.0"),
        ('{"schema": "orinspect.scale/9.0"}', "orinspect.scale/9.0"),
        (_mapped().to_json().replace("0.14,", "0.15,"), "altered"),
        (_table({"mm_per_px": 0}), "more than 0"),
        (_table({"mm_per_px": "0.1"}), "calibrate again"),
        (_table({"homography": [[1, 0], [0, 1]]}), "homography"),
        (_table({"covariance": [[1.0]]}), "covariance"),
        (_table({"expires_at": "soon"}), "soon"),
        (_table({"picture_wh": [640]}), "calibrate again"),
        (_table({"expires_at": 5}), "calibrate again"),
        (_table({"homography": [[1, 0, 0], [0, 1, 0], [0, 0, 0]]}), "homography"),
        (_table({"camera_id": "x"}).replace('"x"', '"\\ud800"'), "calibrate again"),
        ('{"schema": "orinspect.scale/1.0", "mm_per_px": NaN}', "NaN"),
        ("[" * 100_000, "nested"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_refused_by_name(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "scale.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ScaleError, match=named) as failed:
        read_scale(path)
    assert "scale.json" in str(failed.value) or named == "more than 0"


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match=r"none\.json: cannot be read"):
        read_scale(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({}, None),
        ({"unix_s": MADE_S + 180 * DAY_S}, None),
        ({"unix_s": MADE_S + 182 * DAY_S}, "expired at 2026-07-01"),
        ({"camera_id": "cam1"}, "camera 'cam0'.*'cam1'"),
        ({"camera_id": None}, None),
        ({"picture_wh": (1280, 960)}, "640x480.*1280x960"),
        # a Jetson without a battery for its clock wakes in 1970: that is wrong, and not a reason to refuse
        ({"unix_s": 0.0}, None),
    ],
)
def test_when_a_scale_must_not_be_used(change: dict[str, Any], named: str | None) -> None:
    known: dict[str, Any] = {"unix_s": MADE_S + DAY_S, "camera_id": "cam0", "picture_wh": (640, 480)}
    problem = scale_problem(_mapped(), **{**known, **change})
    if named is None:
        assert problem is None
    else:
        assert problem is not None
        assert re.search(named, problem), problem


@pytest.mark.parametrize(("value", "spread"), [(0.0, 0.0), (-1.0, 0.0), (float("nan"), 0.0), (0.1, -1.0)])
def test_a_scale_that_makes_no_sense_is_refused(value: float, spread: float) -> None:
    with pytest.raises(ScaleError, match="must be"):
        PixelScale(value, spread)


def _site(tmp_path: Path, now_s: float, *, synchronised: bool = True, camera: str = "cam0") -> SiteScale:
    path = tmp_path / "scale.json"
    path.write_text(_mapped().to_json(), encoding="utf-8")
    return SiteScale(path, camera, unix_s=now_s, is_synchronised=synchronised)


def test_the_log_says_once_why_sizes_are_missing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site = _site(tmp_path, MADE_S + 400 * DAY_S)
    refused = replace(report("pass"), null_reasons={"scale.mm_per_px": "the calibration expired"})
    fine = replace(report("pass"), null_reasons={})
    for each in (refused, refused, fine, refused):
        site.follow(each)
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 3  # at the start, for the first part, and again after parts that were measured
    assert "expired at" in said[0]


def test_an_unsynchronised_clock_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert _site(tmp_path, 1000.0, synchronised=False).scale is not None
    assert "not synchronised" in caplog.text


def test_no_file_is_no_scale(caplog: pytest.LogCaptureFixture) -> None:
    site = SiteScale(None, "cam0", unix_s=0.0, is_synchronised=False)
    assert site.scale is None
    assert not caplog.text
