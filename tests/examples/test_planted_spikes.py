"""Planted spikes: float answers stay, naive INT8 fails the gate, ours passes; the page shows it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("safetensors")

from orinspect.evaluation.gate.gate import gate
from orinspect.evaluation.gate.verdict import check
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.examples.planted_spikes.plant import PLANTS
from orinspect.examples.planted_spikes.table import (
    BEGIN,
    PAGE,
    RESULT,
    Planted,
    judged,
    markdown,
    page_with,
    planted,
)
from orinspect.examples.planted_spikes.tokens import Tokens, tokens_of
from orinspect.runtime.errors import AccuracyError

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"
CALIBRATION = "scenes:pcb?seed=62000&parts=4"
BOARDS = "scenes:pcb?seed=63000&parts=4"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


@pytest.fixture(scope="module")
def tokens(work: Path) -> Tokens:
    return tokens_of(REFERENCE / "reference", REFERENCE / "pcb-compare.toml", work)


@pytest.fixture(scope="module")
def everything(work: Path, tokens: Tokens) -> Planted:
    return planted("all", tokens, work, CALIBRATION)


def test_all_spikes_together_leave_the_float_answers_as_they_are(work: Path, everything: Planted) -> None:
    rows = rows_from_source(BOARDS)[:2]
    report = gate(work / "float", everything.bundle, "pcb-compare", {"both": rows}, {}, threads=1)
    seen = report.pictures["both"]
    assert seen.tokens.decisions > 50 and seen.tokens.share == 1.0
    assert seen.tokens.logit_error < 1e-3
    assert seen.components["vision"].relative_error < 1e-4
    assert seen.f is not None and seen.f.f_float > 0.9 and seen.f.change == 0.0


def test_the_spikes_stand_where_they_should(work: Path, tokens: Tokens, everything: Planted) -> None:
    plain = planted("none", tokens, work, CALIBRATION)
    for component, share in (("decoder", 1.0), ("vision", 0.5)):
        before = {one.tensor: one for one in plain.statistics[component]}
        after = {one.tensor: one for one in everything.statistics[component]}
        grown = [after[tensor].abs_max > 50 * before[tensor].abs_max for tensor in before]
        assert np.mean(grown) >= share
    # a spike that depends on the row, in one of many
    only = planted("delimiter", tokens, work, CALIBRATION)
    downs = [one for one in only.statistics["decoder"] if "down_proj" in one.linears[0].name]
    assert len(downs) == 4
    assert all(one.row_max_largest > 50 * one.row_max_median for one in downs)


def test_naive_int8_fails_the_gate_by_name(work: Path, everything: Planted) -> None:
    report, _, _ = judged(everything, "naive", work, BOARDS)
    assert not report.passed
    with pytest.raises(AccuracyError, match=r"cosine .* --keep-float \w+\.\d.* --precision float16"):
        check(report)


def test_ours_passes_the_gate_and_keeps_most_in_int8(work: Path, everything: Planted) -> None:
    report, choices, ratio = judged(everything, "ours", work, BOARDS)
    check(report)
    modes = [choice.mode for of_component in choices.values() for choice in of_component]
    assert modes.count("float") <= len(modes) // 3
    assert ratio < 0.6


def test_no_remedy_alone_passes_everywhere() -> None:
    plants = json.loads(RESULT.read_text(encoding="utf-8"))["plants"]
    assert set(plants) == set(PLANTS)
    spiked = [cells for name, cells in plants.items() if name != "none"]
    for remedy in spiked[0]:
        passed = [cells[remedy]["passed"] for cells in spiked]
        assert all(passed) if remedy == "ours" else not all(passed), remedy
    assert not any(cells["naive"]["passed"] for cells in spiked)
    for cells in plants.values():
        assert len({cell["f_float"] for cell in cells.values()}) == 1


def test_the_page_holds_the_measured_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert BEGIN in page
    assert page == page_with(page, markdown(json.loads(RESULT.read_text(encoding="utf-8"))))
