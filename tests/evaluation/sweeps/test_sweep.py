"""The sweep as a whole, on a small bundle: every picture at every strength, the same way each time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orinspect.cli import main
from orinspect.evaluation.sweeps.limits_text import limits_text
from orinspect.evaluation.sweeps.sweep import limits_from_dataset
from orinspect.runtime.errors import DataSetError, UsageError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.judgement import judgement_of
from orinspect.tests.small_bundle import write_small_bundle

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
    assert [len(curve["points"]) for curve in (blur, light)] == [6, 6]
    measured = [point["measured"] for point in light["points"]]
    assert measured == sorted(measured, reverse=True)
    for point in (*blur["points"], *light["points"]):
        assert point["f_low"] <= point["f"] <= point["f_high"] and 0 <= point["outside"] <= 1
    text = limits_text(result)
    assert "blur (px sigma), measured as blur_added_px" in text and "its template is not" in text


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
