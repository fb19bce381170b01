"""False alarms on good parts, counted on an untrained bundle and on one that always sees something."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orinspect.cli import main
from orinspect.evaluation.good_parts.alarms import good_part_figures
from orinspect.evaluation.good_parts.alarms_text import good_parts_text
from orinspect.evaluation.rates.binomial import upper_bound
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.recipe import Thresholds
from orinspect.tests.small_bundle import small_recipe, write_small_bundle

pytestmark = pytest.mark.slow

SOURCE = "good:scenes:pcb?seed=3&parts=2&size_px=192"


@pytest.mark.slow
def test_the_gate_spares_good_parts_and_without_it_every_tile_is_looked_at(small_bundle: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = good_part_figures(small_bundle, SOURCE, copies=2, threads=1,
                               progress=lambda done, total, text: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert (result["parts"], result["templates"], result["copies"]) == (4, 2, 2)
    on, off = result["gate"]["on"], result["gate"]["off"]
    assert on["tiles"] == off["tiles"] == off["tiles_looked_at"] > 0
    assert on["tiles_looked_at"] < off["tiles_looked_at"]
    for row in (on, off):
        count = row["false_alarm"]["count"]
        assert row["parts"] == 4 == sum(row["dispositions"].values())
        assert row["false_alarm"]["upper_95"] == pytest.approx(upper_bound(count, 4), abs=1e-6)
        assert len(row["alarms"]) == count
    assert json.loads(json.dumps(result)) == result
    assert "upper 95 % bound" in good_parts_text(result)


def test_a_detector_that_sees_defects_everywhere_is_found_out(tmp_path: Path) -> None:
    eager = Thresholds(candidate=0.0, presence=0.0, dense_alone=0.0, words=0.0, both=0.0)
    bundle = write_small_bundle(tmp_path, small_recipe(thresholds=eager), seed=1).path
    result = good_part_figures(bundle, "good:scenes:pcb?seed=3&parts=1&size_px=192", gate="off", threads=1)
    row = result["gate"]["off"]
    assert list(result["gate"]) == ["off"] and row["false_alarm"]["count"] == 1
    (entry,) = row["alarms"]
    assert entry["defects"] and set(entry["capture"]) >= {"shift_xy", "noise_sigma", "threshold"}
    assert row["a_tile"]["count"] == len(entry["defects"]) and row["templates_with_alarms"] == 1
    assert "1 parts on 1 templates" in good_parts_text(result)


def test_rows_without_a_template_cannot_be_captured_again(small_bundle: Path) -> None:
    with pytest.raises(DataSetError, match="no template"):
        good_part_figures(small_bundle, "good:scenes:metal?seed=3&parts=1&size_px=192", threads=1)


@pytest.mark.parametrize(("arguments", "named"), [
    ([SOURCE, "--baseline"], "--baseline"),
    ([SOURCE, "--warp", "0"], "--warp"),
    (["scenes:pcb?seed=3&parts=1", "--copies", "2"], "--copies"),
    (["scenes:pcb?seed=3&parts=1", "--seed", "0"], "--seed"),
])
def test_options_of_the_other_kind_are_refused(
    arguments: list[str], named: str, small_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(small_bundle), *arguments]) == 2
    assert named in capsys.readouterr().err


def test_the_command_prints_it(small_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = "good:scenes:pcb?seed=3&parts=1&size_px=192"
    assert main(["evaluate", str(small_bundle), source, "--gate", "on", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gate"]["on"]["parts"] == 1
