"""`orinspect calibrate scale` as a person runs it: the file, the table, the refusals, what is left behind."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from orinspect import __version__
from orinspect.cli import main
from orinspect.examples.scale.render import Exposure, KnownView, checkerboard, disc, rendered
from orinspect.runtime.judge.scale import read_scale

VIEW = KnownView((400, 320), 1500.0, 600.0)  # 2.5 px a mm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures: a disc of 110 mm in grey and in colour, a board, another size, and none."""
    path = tmp_path_factory.mktemp("scale")
    grey = rendered(VIEW, disc(110.0), Exposure(), 1)
    cv2.imwrite(str(path / "disc.png"), grey)
    cv2.imwrite(str(path / "colour.png"), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    near = KnownView((400, 320), 800.0, 150.0)
    cv2.imwrite(str(path / "board.png"), rendered(near, checkerboard((9, 6), 7.0), Exposure(), 2))
    cv2.imwrite(str(path / "small.png"), np.full((100, 100), 128, np.uint8))
    (path / "note.png").write_text("this is a note", encoding="utf-8")
    return path


def _run(folder: Path, words: str, out: Path) -> int:
    pictures, _, options = words.partition(" ")
    names = [str(folder / name) for name in pictures.split(",")]
    return main(["calibrate", "scale", *names, *shlex.split(options), "-o", str(out)])


def _calibrated(folder: Path, words: str, out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert _run(folder, words + " --json", out) == 0
    table: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert table == json.loads(out.read_text("utf-8"))
    return table


@pytest.mark.parametrize("picture", ["disc.png", "colour.png"])
def test_a_disc_gives_a_scale_that_the_runtime_reads(
    picture: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"{picture} --diameter-mm 110 --tolerance-mm 0.05 --camera-id cam0 --valid-days 30"
    table = _calibrated(folder, words, tmp_path / "scale.json", capsys)
    scale = read_scale(tmp_path / "scale.json")
    assert scale.mm_per_px == pytest.approx(0.4, abs=table["expanded_uncertainty"])
    assert scale.relative_uncertainty > 0.05 / 110 / 3**0.5
    assert (scale.calibration_id, scale.camera_id) == (table["id"], "cam0")
    assert (scale.picture_wh, scale.method) == ((400, 320), "diameter")
    assert table["expires_at"] > table["created_at"]
    assert table["tool"]["version"] == __version__
    assert table["residual_mm"] == pytest.approx(table["residual_px"] * table["mm_per_px"])
    assert {line["name"] for line in table["budget"]} == {"fit", "edge", "tilt", "dimension"}
    assert table["sha256"].keys() == {picture}


def test_without_json_a_short_table_is_shown(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folder, "board.png --checkerboard 9x6 --square-mm 7", tmp_path / "scale.json") == 0
    shown = capsys.readouterr().out
    for word in ("scale-", "checkerboard", "mm/px", "residual", "k = 2", "corners", "--tolerance-mm"):
        assert word in shown
    assert len(shown.splitlines()) < 16
    assert read_scale(tmp_path / "scale.json").homography is not None


def test_warm_parts_are_larger(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cold, warm = (
        _calibrated(folder, f"disc.png --diameter-mm 110 {words}", tmp_path / "scale.json", capsys)
        for words in ("", "--temperature-c 40 --expansion-ppm 20")
    )
    assert warm["mm_per_px"] / cold["mm_per_px"] == pytest.approx(1 + 20e-6 * 20, rel=1e-9)


def test_the_same_picture_twice_has_another_id_only_by_its_date(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (
        _calibrated(folder, "disc.png --diameter-mm 110", tmp_path / "scale.json", capsys) for _ in range(2)
    )
    for table in (first, second):
        for name in ("id", "created_at", "expires_at"):
            del table[name]
    assert first == second


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        ("disc.png", 2, "exactly one of --diameter-mm"),
        ("disc.png --length-mm 50", 2, "exactly one of"),
        ("disc.png --diameter-mm 110 --checkerboard 9x6", 2, "--diameter-mm and --checkerboard"),
        ("disc.png --diameter-mm 110 --square-mm 7", 2, "--square-mm does not belong to --diameter-mm"),
        ("disc.png --points 1,2,3,4", 2, "--points needs --length-mm"),
        ("disc.png --points 1,2,3 --length-mm 5", 2, "four numbers"),
        ("disc.png --fiducials 1,2 --distance-mm 5", 2, "two places"),
        ("disc.png --charuco 7x5 --square-mm 10", 2, "--charuco needs --marker-mm"),
        ("disc.png --charuco 7x5 --square-mm 7 --marker-mm 7", 2, "not smaller"),
        ("disc.png --diameter-mm 0", 2, "more than 0"),
        ("disc.png --diameter-mm nan", 2, "must be a number"),
        ("disc.png --checkerboard 9 --square-mm 7", 2, "columns x rows"),
        ("disc.png --checkerboard 9x2 --square-mm 7", 2, "9x2 counts INNER corners, at least 3"),
        ("disc.png --diameter-mm 110 --valid-days 1e12", 2, "--valid-days is 1e+12; give at most 36525"),
        ("note.png --diameter-mm 110", 1, "note.png (14 bytes) is not a picture"),
        ("none.png --diameter-mm 110", 1, "none.png cannot be read"),
        ("disc.png,small.png --diameter-mm 110", 1, "100x100"),
        ("small.png --diameter-mm 110", 1, "small.png: no round part"),
        ("disc.png --charuco 7x5 --square-mm 9 --marker-mm 7 --dictionary DICT_9", 1, "'DICT_9' is unknown"),
    ],
)
def test_what_is_refused_is_one_sentence_and_leaves_no_file(
    words: str, code: int, named: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folder, words, tmp_path / "scale.json") == code
    shown = capsys.readouterr()
    assert named in shown.err
    assert not shown.out
    assert not list(tmp_path.iterdir())


def test_a_bad_fit_leaves_the_last_file_as_it_is(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scale.json"
    assert _run(folder, "disc.png --diameter-mm 110", out) == 0
    before = out.read_bytes()
    assert _run(folder, "small.png --diameter-mm 110", out) == 1
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["scale.json"]


def test_a_folder_that_is_not_there_is_said_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(folder, "disc.png --diameter-mm 110", tmp_path / "none" / "scale.json") == 2
    assert "is not a folder" in capsys.readouterr().err


def test_the_help_has_an_example_that_is_accepted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["calibrate", "scale", "--help"]) == 0
    example = " ".join(capsys.readouterr().out.split()).partition("example: orinspect ")[2]
    monkeypatch.setattr("orinspect.calibration.commands._scale", lambda arguments: 0)
    assert main(shlex.split(example)) == 0
