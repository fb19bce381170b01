"""Figures of inspected parts: ignored regions, labels, verdicts, sizes; two bundles beside each other."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.evaluation.evaluate import evaluate_bundle
from orinspect.evaluation.inspected import EvaluatedPart
from orinspect.evaluation.scorecard import scored_parts
from orinspect.evaluation.scores import NamedBox
from orinspect.evaluation.sets.example import TrueSize
from orinspect.evaluation.terminal import evaluation_text
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes
from orinspect.runtime.recipe import DefectType, Recipe
from orinspect.runtime.report import Defect, Quantity, Report, SizeMm
from orinspect.tests import report_cases

RECIPE = Recipe("r", "1", "p", "List.", (DefectType("open", "O"), DefectType("short", "S")))
SCENES = "scenes:pcb?seed=3&parts=2&size_px=192&defects=2"
PLACE = (0.0, 0.0, 40.0, 40.0)


def _part(truth: str | None, said: str | None, *, name: str = "1", group: str = "g", confidence: float = 0.9,
          **more: Any) -> EvaluatedPart:
    """One true box and one reported one at the same place, each of a type or missing."""
    found = () if said is None else (CandidateDefect(said, PLACE, confidence, "both"),)
    inspection = Inspection(found, found, (), (), {"vision": 1.0}, Passes(), None)
    boxes = () if truth is None else (NamedBox(truth, PLACE),)
    return EvaluatedPart(name, group, boxes, inspection, 1.0, **more)


def _report(disposition: str, *defects: Defect) -> Report:
    return replace(report_cases.report("pass"), disposition=disposition, defects=defects)  # type: ignore[arg-type]


def _defect(confidence: float, size: SizeMm | None = None) -> Defect:
    return Defect("d1", "O", "open", PLACE, "major", confidence, "both", size_mm=size, raw_confidence=0.9)


def test_what_lies_in_an_ignored_region_is_neither_right_nor_wrong() -> None:
    region = (NamedBox("open", (-10.0, -10.0, 60.0, 60.0)),)
    assert scored_parts([_part(None, "short")], RECIPE)["precision"] == 0.0
    parts = [_part(None, "short", ignored=region), _part("open", "open", ignored=region)]
    ignoring = scored_parts(parts, RECIPE)
    assert (ignoring["precision"], ignoring["recall"]) == (1.0, 1.0)
    assert ignoring["confusion"]["rows"] == {"open": {"open": 1}}


def test_ignored_regions_count_neither_as_escapes_nor_in_the_calibration() -> None:
    region = (NamedBox("open", (-10.0, -10.0, 60.0, 60.0)),)
    parts = [_part("open", "open", report=_report("reject", _defect(0.8))),
             _part(None, None, ignored=region, report=_report("pass")),
             _part(None, "short", ignored=region, report=_report("reject", _defect(0.8)))]
    scores = scored_parts(parts, RECIPE)
    assert (scores["escape"]["parts"], scores["escape"]["count"]) == (1, 0)
    assert scores["false_alarm"]["parts"] == 0
    for name in ("raw", "calibrated"):
        assert (scores["ece"][name]["n"], scores["ece"][name]["right"]) == (1, 1.0)


def test_the_area_of_the_alarm_curve_has_an_interval_where_all_parts_are_one_group() -> None:
    parts = [_part("open", "open", confidence=0.3 + 0.02 * index) for index in range(20)]
    parts += [_part(None, "open", confidence=0.1 + 0.02 * index) for index in range(20)]
    curve = scored_parts(parts, RECIPE)["alarm_curve"]
    assert curve["auc_low"] < curve["auc"] < curve["auc_high"]


def test_a_label_of_the_picture_goes_before_its_boxes() -> None:
    parts = [_part("open", "short", label="short"), _part("open", "open"), _part("short", None)]
    accuracy = scored_parts(parts, RECIPE)["class_accuracy"]
    assert (accuracy["right"], accuracy["pictures"]) == (2, 3)
    both = (NamedBox("open", PLACE), NamedBox("short", (90.0, 0.0, 99.0, 9.0)))
    mixed = [replace(_part("open", "open"), truth=both) for _ in range(3)]
    assert scored_parts(mixed, RECIPE)["class_accuracy"] is None


def test_the_judge_says_what_became_of_a_part() -> None:
    parts = [
        _part("open", None, report=_report("pass")), _part("open", None, report=_report("review")),
        _part(None, "open", report=_report("review", _defect(0.5))),
        _part(None, "open", report=_report("pass", replace(_defect(0.5), severity="ignore"))),
    ]
    scores = scored_parts(parts, RECIPE)
    assert scores["escape"]["count"] == 1 and scores["escape"]["parts"] == 2
    assert scores["false_alarm"]["count"] == 1  # what the plant ignores is no alarm
    assert scores["review_share"] == 0.5 and scores["escape"]["images"] == ["1"]


def test_confidences_are_calibrated_when_the_report_says_another_than_the_detector() -> None:
    raw = scored_parts([_part("open", "open", report=_report("reject", _defect(0.9)))], RECIPE)["ece"]
    assert raw["calibrated"] is None and raw["raw"]["equal_width"] == pytest.approx(0.1)
    fitted = scored_parts([_part("open", "open", report=_report("reject", _defect(0.99)))], RECIPE)["ece"]
    assert fitted["calibrated"]["equal_width"] == pytest.approx(0.01)
    assert fitted["raw"] == raw["raw"]


def test_sizes_of_found_defects_are_held_against_known_ones() -> None:
    size = SizeMm(Quantity(1.05, 0.1), Quantity(0.4, 0.01), None)
    part = _part("open", "open", report=_report("reject", _defect(0.9, size)),
                 truth_sizes=(TrueSize(1.0, 0.5, 0.4),))
    table = scored_parts([part, _part("open", None, truth_sizes=(TrueSize(1.0, 0.5, 0.4),))], RECIPE)[
        "size_error_mm"]
    assert table["length"]["median"] == pytest.approx(0.05) and table["length"]["inside"]["rate"] == 1.0
    assert table["width"]["bias"] == pytest.approx(-0.1) and table["width"]["inside"]["rate"] == 0.0
    assert (table["area"]["n"], table["area"]["unmeasured"]) == (0, 1)
    unknown = _part("open", "open", report=_report("reject", _defect(0.9, size)))
    assert scored_parts([unknown], RECIPE)["size_error_mm"] is None


def test_every_group_of_its_own_is_no_table_of_boards() -> None:
    parts = [_part("open", "open", name=str(index), group=str(index)) for index in range(4)]
    assert list(scored_parts(parts, RECIPE)["per_board"]) == ["all"]
    assert list(scored_parts([*parts, _part("open", None, group="1")], RECIPE)["per_board"]) == list("0123")


def test_a_thousand_resamples_of_three_hundred_parts_take_seconds_at_most() -> None:
    rng = np.random.default_rng(11)
    parts = [_part("open" if rng.random() < 0.7 else None, "open" if rng.random() < 0.8 else None,
                   group=f"tile {index % 50}", confidence=float(rng.uniform(0.3, 1.0)))
             for index in range(300)]
    started = time.process_time()
    scores = scored_parts(parts, RECIPE)
    assert time.process_time() - started < 5.0
    low, high = scores["bootstrap"]["group"]["f"]
    assert low < scores["f"] < high and scores["bootstrap"]["groups"] == 50
    low, high = scores["bootstrap"]["group"]["map"]
    assert low < scores["map"] < high


@pytest.mark.slow
def test_a_bundle_against_itself_differs_in_nothing(small_bundle: Path) -> None:
    result = evaluate_bundle(small_bundle, SCENES, threads=1, against=small_bundle)
    other = result["against"]
    assert other["scores"]["f"] == result["f"] and other["scores"]["map"] == result["map"]
    for row in other["difference"].values():
        assert row["difference"] in (0.0, None)
    assert {row["p"] for row in other["mcnemar"].values()} == {1.0}
    assert json.loads(json.dumps(result)) == result
    assert "McNemar" in evaluation_text(result)


@pytest.mark.slow
def test_floors_without_templates_say_why_they_do_not_apply(tmp_path: Path) -> None:
    from orinspect.evaluation.floors.floor_scores import floor_scores
    from orinspect.evaluation.sets.source import rows_from_source

    source = "scenes:metal?seed=1&parts=1&size_px=192"
    floors = floor_scores(source, rows_from_source(source), ("scratch",), 10, None)
    assert floors["xor"] is None and floors["cnn"] is None and "not applicable" in floors["reason"]


def test_every_key_is_documented() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs/evaluate.md").read_text("utf-8")
    table = text.partition("## Keys of")[2].partition("\n## ")[0]
    words = set(re.findall(r"\w+", "".join(re.findall(r"^\| (.*?) \|", table, re.M))))
    scores = scored_parts([_part("open", "open", report=_report("reject", _defect(0.9)))], RECIPE)
    assert set(scores) <= words
