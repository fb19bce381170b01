"""The sweep as a whole, on a small bundle: every picture at every strength, the same way each time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orinspect.calibration.limits.disturbance import KINDS
from orinspect.cli import main
from orinspect.evaluation.scores import NamedBox
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.evaluation.sweeps.limits_text import limits_text
from orinspect.evaluation.sweeps.sweep import limits_from_dataset, scored_frame
from orinspect.runtime.errors import DataSetError, UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes
from orinspect.runtime.infer.judgement import judgement_of
from orinspect.runtime.recipe import load_recipe
from orinspect.tests.evaluation.small_data_set import write_deeppcb
from orinspect.tests.small_bundle import RECIPE, write_small_bundle

SOURCE = "scenes:pcb?seed=3&parts=2&style=grey&size_px=256&defects=2"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("limits")
    write_small_bundle(place)
    return place / "bundle"


@pytest.mark.slow
def test_a_sweep_says_f_and_quality_at_every_strength(bundle: Path, tmp_path: Path) -> None:
    result = limits_from_dataset(bundle, SOURCE, kinds=("blur", "low_light"), threads=1)
    again = limits_from_dataset(bundle, SOURCE, kinds=("blur", "low_light"), threads=1)
    assert again == result == json.loads(json.dumps(result))
    assert (result["pictures"], result["template"]) == (2, "clean")
    blur, light = (result["quality"]["sweeps"][kind] for kind in ("blur", "low_light"))
    for curve, kind in ((blur, "blur"), (light, "low_light")):
        asked = [point["strength"] for point in curve["points"]]
        assert set(KINDS[kind][1]) <= set(asked) or curve["points"][-1]["pictures"] < 2
    assert result["looks"] == 2 + sum(p["pictures"] for curve in (blur, light) for p in curve["points"])
    measured = [point["measured"] for point in light["points"]]
    assert measured == sorted(measured, reverse=True)
    for point in (*blur["points"], *light["points"]):
        assert point["f_low"] <= point["f"] <= point["f_high"] and 0 <= point["outside"] <= 1
    text = limits_text(result)
    assert "blur (px sigma), measured as blur_added_px" in text and "its template is not" in text


@pytest.mark.slow
def test_surfaces_without_a_template_are_swept_by_their_own_numbers(tmp_path: Path) -> None:
    recipe = load_recipe(RECIPE.parent / "metal-surface.toml")
    write_small_bundle(tmp_path, recipe, dense_types=recipe.types)
    source = "scenes:metal?seed=3&parts=2&size_px=256&defects=2"
    result = limits_from_dataset(tmp_path / "bundle", source, kinds=("blur", "low_light"), threads=1)
    assert (result["mode"], result["template"]) == ("single", None)
    curves = result["quality"]["sweeps"]
    assert (curves["blur"]["quantity"], curves["low_light"]["quantity"]) == ("blur_px", "brightness")
    assert set(result["quality"]["limits"]) == {"blur_px", "brightness"}
    assert "its template is not" not in limits_text(result)


@pytest.mark.slow
def test_the_command_writes_what_it_measured(bundle: Path, tmp_path: Path) -> None:
    """To a file, or into the bundle, where the judge reads it."""
    out, own = tmp_path / "limits.json", shutil.copytree(bundle, tmp_path / "bundle")
    command = ["calibrate", "limits", str(own), SOURCE, "--kinds", "glare", "--threads", "1"]
    assert main([*command, "-o", str(out)]) == 0
    written = json.loads(out.read_text())["quality"]
    assert set(written["sweeps"]) == {"glare"}
    assert judgement_of(Bundle.open(own), "pcb-compare").quality is None
    assert main(command) == 0
    section = judgement_of(Bundle.open(own), "pcb-compare").quality
    assert section is not None and section["limits"] == written["limits"]
    assert section["measured_on"]["pictures"] == 2


def test_what_cannot_be_swept_is_one_sentence(bundle: Path) -> None:
    with pytest.raises(UsageError, match="'fog' is unknown; known are low_light"):
        limits_from_dataset(bundle, SOURCE, kinds=("fog",))
    with pytest.raises(DataSetError, match="without a labelled defect"):
        limits_from_dataset(bundle, SOURCE + "&good=1", kinds=("blur",), threads=1)


def test_stored_limits_are_not_set_on_the_boards_that_are_scored(bundle: Path, tmp_path: Path) -> None:
    data = write_deeppcb(tmp_path, {"group00041": 2, "group20085": 1})
    with pytest.raises(DataSetError, match="1 pictures without a labelled defect"):  # the other board has two
        limits_from_dataset(bundle, str(_without_labels(data, "group20085")), kinds=("blur",), threads=1)


def _without_labels(data: Path, board: str) -> Path:
    for annotation in data.rglob(f"{board}/**/*.txt"):
        annotation.write_text("")
    return data


@pytest.mark.parametrize("option", [["--seed", "-1"], ["--limit", "0"], ["--threads", "0"]])
def test_a_number_that_cannot_be_is_refused_at_once(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "limits", "no-bundle", SOURCE, *option]) == 2
    assert f"argument {option[0]}: must be at least" in capsys.readouterr().err


def test_what_is_reported_in_an_ignored_region_does_not_lower_f() -> None:
    defect = CandidateDefect("open", (10.0, 10.0, 40.0, 40.0), 0.9, "both")
    found = Inspection((defect,), (), (), (), {}, Passes(), None)
    example = rows_from_source(SOURCE)[0].read()
    region = NamedBox("open", (0.0, 0.0, 60.0, 60.0))
    inspector: Any = SimpleNamespace(inspect=lambda frame: found)
    for ignored, said in (((), 1), ((region,), 0)):
        scored = scored_frame(inspector, example.frame(1), replace(example, truth=(), ignored=ignored))
        assert len(scored.detections) == said
