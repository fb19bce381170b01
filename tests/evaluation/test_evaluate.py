"""`evaluate` on an untrained bundle: the object that scripts read, predictions, floors, failures."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from orinspect.evaluation.evaluate import evaluate_bundle, thinned_rows, write_predictions
from orinspect.evaluation.inspected import EvaluatedPart
from orinspect.evaluation.rates.cost import passes_summary
from orinspect.evaluation.scorecard import scored_parts
from orinspect.evaluation.scores import NamedBox
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.evaluation.terminal import ProgressLine, evaluation_text
from orinspect.runtime.errors import BundleError, DataSetError
from orinspect.runtime.infer.inspector import CandidateDefect, Inspection, Passes
from orinspect.runtime.recipe import DefectType, Recipe
from orinspect.tests.evaluation.small_data_set import write_deeppcb

RECIPE = Recipe("r", "1", "p", "List.", (DefectType("open", "O"), DefectType("short", "S")))
SCENES = "scenes:pcb?seed=3&parts=2&size_px=192&defects=2"


def _defect(type_name: str, x: float, confidence: float, detector: str = "both") -> CandidateDefect:
    return CandidateDefect(type_name, (x, 0.0, x + 40.0, 40.0), confidence, detector)


def _part(defects: tuple[CandidateDefect, ...] = (), dense: tuple[CandidateDefect, ...] = (),
          words: tuple[CandidateDefect, ...] = (), failed: str | None = None) -> EvaluatedPart:
    """A part whose truth is an open at 0 and a short at 100."""
    passes = Passes(row_passes=20, engine_calls=4, tiles=10, tiles_gated=8, tiles_decoded=2)
    inspection = Inspection(defects, dense, words, (), {"vision": 10.0, "decode": 30.0}, passes, failed)
    truth = (NamedBox("open", (0, 0, 40, 40)), NamedBox("short", (100, 0, 140, 40)))
    return EvaluatedPart("board/1.jpg", "board", truth, inspection, 50.0)


def test_the_object_has_what_scripts_read(small_bundle: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = evaluate_bundle(small_bundle, SCENES, threads=1,
                             progress=lambda done, total, text: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert result["parts"] == 2 and result["baseline"] is None
    for name in ("precision", "recall", "f", "map"):
        assert 0.0 <= result[name] <= 1.0
    assert set(result["agnostic"]) == {"precision", "recall", "f"}
    assert set(result["per_detector"]) == {"dense", "words", "both"}
    assert result["per_detector"]["both"]["f"] == result["f"]
    assert {"open", "pin-hole"} <= set(result["per_class"])
    assert result["ms_per_part"]["total"] > 0 and "vision" in result["ms_per_part"]
    assert result["passes"]["row_passes_forced"] == 0
    assert sum(row["truth"] for row in result["recall_by_size"].values()) == sum(
        row["truth"] for row in result["per_class"].values())
    assert json.loads(json.dumps(result)) == result
    assert "F without class" in evaluation_text(result)


def test_predictions_are_a_row_a_picture(small_bundle: Path, tmp_path: Path) -> None:
    folder = write_deeppcb(tmp_path / "set", {"group00041": 2, "group13000": 1})
    chosen, out = tmp_path / "rows.txt", tmp_path / "said" / "rows.jsonl"
    chosen.write_text("group13000/13000/13000000.jpg group13000/13000_not/13000000.txt\n")
    result = evaluate_bundle(small_bundle, str(folder), list_path=chosen, predictions=out, threads=1)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["image"] for row in rows] == ["group13000/13000/13000000.jpg"]
    assert result["split"] == "list rows.txt" and result["parts"] == 1
    for defect in rows[0]["defects"]:
        assert set(defect) == {"type", "bbox", "confidence"} and len(defect["bbox"]) == 4


@pytest.mark.slow
def test_the_floors_run_on_the_same_rows(small_bundle: Path, tmp_path: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    _train_briefly(monkeypatch)
    folder = write_deeppcb(tmp_path / "set", {"group00041": 1, "group13000": 3})
    result = evaluate_bundle(small_bundle, str(folder), baseline=True, warp_seed=2, threads=1)
    xor, cnn = result["baseline"]["xor"], result["baseline"]["cnn"]
    assert cnn["training_parts"] == 3 and 120_000 < cnn["parameters"] < 145_000
    for floor in (xor, cnn):
        assert {"precision", "recall", "f", "map"} <= set(floor)
    assert "floor: CNN" in evaluation_text(result)


def test_predictions_that_cannot_be_written_are_refused_and_nothing_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(DataSetError, match="taken"):
        write_predictions(tmp_path / "taken", [_part()])
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_results_that_could_not_be_written_are_said_before_the_work(
    small_bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "page").write_text("mine")
    seen: list[int] = []

    def progress(done: int, total: int, text: str) -> None:
        seen.append(done)

    with pytest.raises(DataSetError, match="page is a file; give --page a folder"):
        evaluate_bundle(small_bundle, SCENES, page=tmp_path / "page", threads=1, progress=progress)
    with pytest.raises(DataSetError, match="is a folder; give --predictions a file"):
        evaluate_bundle(small_bundle, SCENES, predictions=tmp_path, threads=1, progress=progress)
    assert seen == []


def test_a_bad_row_leaves_no_predictions(small_bundle: Path, tmp_path: Path) -> None:
    folder = write_deeppcb(tmp_path / "set", {"group00041": 2})
    (folder / "PCBData/group00041/00041/00041001_test.jpg").write_bytes(b"no picture")
    with pytest.raises(DataSetError, match=r"trainval\.txt:2"):
        evaluate_bundle(small_bundle, str(folder), predictions=tmp_path / "rows.jsonl", threads=1)
    assert not list(tmp_path.glob("*.jsonl*")) and not list(tmp_path.glob(".*"))


def test_no_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        evaluate_bundle(tmp_path / "none", SCENES)


def test_detectors_stand_by_what_passes_their_own_threshold() -> None:
    sure, doubtful = _defect("open", 0, 0.9, "dense"), _defect("short", 100, 0.1, "dense")
    scores = scored_parts([_part((sure,), (sure, doubtful), (_defect("open", 0, 0.7, "words"),))], RECIPE)
    assert scores["per_detector"]["dense"]["recall"] == 0.5
    assert scores["per_detector"]["dense"]["map"] == 1.0  # the doubtful one counts for the ranking
    assert scores["per_detector"]["words"]["precision"] == 1.0
    assert scores["recall"] == 0.5 and scores["map"] == 1.0


def test_a_candidate_that_was_not_reported_never_ranks_before_one_that_was() -> None:
    reported = _defect("open", 0, 0.45)
    refused = _defect("open", 300, 0.99, "dense")
    scores = scored_parts([_part((reported,), (refused,))], RECIPE)
    assert scores["per_class"]["open"]["ap"] == 1.0


def test_a_failed_part_is_listed_with_its_reason() -> None:
    scores = scored_parts([_part(), _part(failed="the answer was cut")], RECIPE)
    assert scores["failed_parts"] == [{"image": "board/1.jpg", "reason": "the answer was cut"}]
    assert scores["ms_per_part"] == {"decode": 30.0, "vision": 10.0, "total": 50.0}


def test_row_passes_are_held_against_the_budget() -> None:
    # 15 a defect and 2 a tile that passed the gate: 15 + 2 * 2 = 19 and 2 * 2 = 4, where 20 and 20 were used.
    passes = _part().inspection.passes
    summary = passes_summary([(passes, 1), (passes, 0)])
    assert summary["budget"] == {"allowed": 23, "used": 40, "parts_over": 2}
    assert summary["row_passes_per_defect"] == 40.0 and summary["row_passes_per_tile"] == 10.0
    assert passes_summary([])["row_passes_per_defect"] is None


def test_thinned_rows_are_spread_evenly() -> None:
    rows = rows_from_source("scenes:pcb?parts=10")
    assert [row.name[-1] for row in thinned_rows(rows, 4)] == ["0", "2", "5", "7"]
    assert thinned_rows(rows, 20) == rows and thinned_rows(rows, None) == rows


def test_progress_is_a_line_each_tenth_without_a_terminal() -> None:
    stream, now = io.StringIO(), iter(range(1000))
    line = ProgressLine(stream, lambda: float(next(now)))
    for done in range(1, 101):
        line(done, 100, f"evaluate, step {done}")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[-1] == "evaluate, step 100: 100/100, 1:39"


def _train_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A floor of 200 windows: the plumbing is under test here, learning in test_baselines."""
    from orinspect.evaluation.floors import floor_scores
    from orinspect.evaluation.floors.baseline_cnn import floor_from_examples

    def brief(*arguments: Any, **keywords: Any) -> Any:
        return floor_from_examples(*arguments, **keywords, windows_seen=200)

    monkeypatch.setattr(floor_scores, "floor_from_examples", brief)
