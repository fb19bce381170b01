"""The demo's figures, computed from payloads that were built from the truth itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orinspect.evaluation.received import (
    MISSED,
    RIGHT,
    WRONG,
    annotated,
    draw_pictures,
    report_boxes,
    reports_from_file,
    summary_from_reports,
    summary_text,
    truth_boxes,
    unique_reports,
)
from orinspect.evaluation.scores import NamedBox
from orinspect.runtime.capture.frame import Frame, camera_from_source, read_picture
from orinspect.runtime.errors import DataSetError, DeliveryError
from orinspect.runtime.judge.assessment import report_from_inspection, report_not_inspected
from orinspect.runtime.recipe import DefectType, Recipe
from orinspect.tests.report_cases import candidate, inspection, setup, trigger

TYPES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
RECIPE = Recipe("r", "1", "p", "Say.", tuple(DefectType(name, name.upper()) for name in TYPES))
SOURCE = "scenes:pcb?seed=4&parts=3&size_px=256&defects=2"


def _frames() -> list[Frame]:
    with camera_from_source(SOURCE) as camera:
        return list(camera.frames())


def _report(frame: Frame, boxes: tuple[NamedBox, ...]) -> dict[str, Any]:
    accepted = trigger(f"019b7750-ce00-7000-8000-00000000000{frame.sequence}")
    part = accepted.part.__class__(frame.part_id, "p")
    accepted = accepted.__class__(**{**accepted.__dict__, "part": part})
    found = inspection([candidate(box.type, box.bbox_xyxy, 0.95) for box in boxes])  # type: ignore[arg-type]
    report = report_from_inspection(
        accepted,
        frame.sequence,
        frame,
        found,
        setup(RECIPE),
        created_at=1.0,
        capture_ms=1.0,
        total_ms=50.0,
        clock=lambda: 0.0,
    )
    table: dict[str, Any] = json.loads(report.to_json())
    return table


@pytest.fixture(scope="module")
def perfect() -> list[dict[str, Any]]:
    return [_report(frame, truth_boxes(frame, RECIPE)) for frame in _frames()]


def _summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return summary_from_reports(reports, SOURCE, RECIPE, least_f=0.9)


def test_perfect_reports_score_one(perfect: list[dict[str, Any]]) -> None:
    summary = _summary(perfect)
    assert (summary["parts"], summary["precision"], summary["recall"], summary["f"]) == (3, 1.0, 1.0, 1.0)
    assert summary["passed"]
    assert summary["ms_per_part"]["total"] == 50.0
    assert summary["ms_per_part"]["measure"] == 0.0
    assert summary["row_passes_per_tile"] == 3.0
    assert summary["engine_calls_per_part"] == 7.0
    assert summary["canonical_tokens_per_part"] == 60.0
    assert summary["row_passes_per_defect"] == pytest.approx(27 / summary["true_defects"], abs=1e-3)
    assert "NOT GOOD" not in summary_text(summary)


def test_doubles_count_once_and_missing_parts_are_said(perfect: list[dict[str, Any]]) -> None:
    summary = _summary([perfect[1], perfect[0], perfect[0]])
    assert (summary["parts"], summary["received_twice"], summary["not_inspected"]) == (2, 1, 1)
    assert summary["f"] == 1.0
    assert [report["sequence"] for report in unique_reports([perfect[1], perfect[0]])] == [1, 2]


def test_a_part_under_two_ids_does_not_pass(perfect: list[dict[str, Any]]) -> None:
    twin = {**perfect[0], "result_id": "019b7750-ce00-7000-8000-0000000000ff"}
    summary = _summary([*perfect, twin])
    assert summary["part_under_two_ids"] == 1
    assert not summary["passed"]


def test_nothing_found_fails_and_says_so(perfect: list[dict[str, Any]]) -> None:
    summary = _summary([_report(frame, ()) for frame in _frames()])
    assert (summary["f"], summary["passed"], summary["defects"]) == (0.0, False, 0)
    assert "NOT GOOD ENOUGH" in summary_text(summary)


def test_a_part_that_was_not_inspected_is_counted_and_not_scored(perfect: list[dict[str, Any]]) -> None:
    aborted = report_not_inspected(
        trigger(), 9, setup(RECIPE), created_at=1.0, reason_code="not_inspected.restart", why="w"
    )
    summary = _summary([*perfect[:2], json.loads(aborted.to_json())])
    assert (summary["parts"], summary["not_inspected"], summary["f"]) == (2, 1, 1.0)
    assert summary["dispositions"]["review"] == 1


def test_no_reports_at_all_is_a_failed_summary() -> None:
    summary = _summary([])
    assert (summary["parts"], summary["f"], summary["passed"]) == (0, 0.0, False)
    summary_text(summary)


def test_another_picture_than_the_inspected_one_is_refused(perfect: list[dict[str, Any]]) -> None:
    other = {**perfect[0], "image": {**perfect[0]["image"], "sha256": "0" * 64}}
    with pytest.raises(DataSetError, match="scenes-4-0000"):
        _summary([other])


def test_pictures_show_right_wrong_and_missed(tmp_path: Path, perfect: list[dict[str, Any]]) -> None:
    frame = _frames()[0]
    truth = truth_boxes(frame, RECIPE)
    assert truth
    wrong = NamedBox("open", (200.0, 200.0, 220.0, 220.0), 0.9)
    for boxes, colours in (
        (report_boxes(perfect[0]), {RIGHT}),
        ((wrong,), {WRONG, MISSED}),
        ((), {MISSED}),
    ):
        picture = annotated(frame, boxes, truth, "review")
        shown = {tuple(pixel) for pixel in picture.reshape(-1, 3).tolist()}
        assert {colour for colour in (RIGHT, WRONG, MISSED) if colour in shown} == colours
    assert draw_pictures(perfect[:2], SOURCE, RECIPE, tmp_path / "pictures") == 2
    saved = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert saved == ["scenes-4-0000.png", "scenes-4-0001.png"]
    assert read_picture(tmp_path / "pictures" / saved[0]).shape == (256, 256, 3)


def test_a_broken_results_file_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    with pytest.raises(DeliveryError, match="missing"):
        reports_from_file(path)
    path.write_text('{"a": 1}\n{"b"\n')
    with pytest.raises(DeliveryError, match="line 2"):
        reports_from_file(path)
