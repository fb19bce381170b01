"""The gate on real bundles of a small checkpoint: float against itself, and against broken linears."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx")

import cv2
import numpy as np
import onnx
from rich.console import Console

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.int8_graph import int8_from_float
from orinspect.calibration.linears import linears_of
from orinspect.evaluation.gate.culprits import culprits
from orinspect.evaluation.gate.gate import gate
from orinspect.evaluation.gate.table import gate_tables
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.export.bundle import write_manifest
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.infer.bundle import MANIFEST

pytestmark = pytest.mark.slow

ROWS = rows_from_source("scenes:pcb?seed=88&parts=2&size_px=256&defects=2")


def int8_bundle(source: Path, out: Path, clip: float) -> tuple[Path, dict[str, list[LinearChoice]]]:
    """A copy of a float bundle whose decoder is static INT8 with one clip for everything."""
    shutil.copytree(source, out)
    model = onnx.load(str(source / "decoder.onnx"))
    choices = [
        LinearChoice(one.name, one.input, "static", clip, "abs_max", 0.1, 0.1, 9, one.in_features, 1)
        for one in linears_of(model)
    ]
    onnx.save(int8_from_float(model, choices), str(out / "decoder.onnx"))
    entries = json.loads((out / MANIFEST).read_text(encoding="utf-8")) | {"precision": "int8"}
    del entries["files"], entries["manifest_sha256"]
    (out / MANIFEST).unlink()
    write_manifest(out, entries)
    return out, {"decoder": choices}


def test_a_bundle_against_itself_is_perfect(small_bundle: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = gate(
        small_bundle, small_bundle, "pcb-compare", {"calibration": ROWS[:1], "validation": ROWS[1:]}, {},
        threads=1, progress=lambda *step: steps.append(step),
    )
    assert report.passed and report.worst_linears == ()
    assert set(report.pictures) == {"calibration", "validation"}
    for seen in report.pictures.values():
        assert seen.tokens.decisions > 0 and seen.tokens.share == 1.0
        assert seen.tokens.answers == seen.tokens.answers_equal > 0
        assert seen.tokens.logit_error == 0.0
        assert {"vision", "decoder"} <= set(seen.components)
        assert all(error.max_abs_error == 0.0 for error in seen.components.values())
        assert seen.f is not None and seen.f.change == 0.0
    last = {what: (done, total) for what, done, total in steps}
    assert len(last) in (6, 8) and all(done == total == 1 for done, total in last.values())


def test_a_broken_decoder_is_found_and_named(small_bundle: Path, tmp_path: Path) -> None:
    broken, choices = int8_bundle(small_bundle, tmp_path / "int8", clip=0.01)
    report = gate(small_bundle, broken, "pcb-compare", {"validation": ROWS}, choices, threads=1)
    assert not report.passed
    assert report.failures[0].startswith("decoder: cosine")
    seen = report.pictures["validation"]
    assert seen.components["vision"].max_abs_error == 0.0
    assert seen.components["decoder"].relative_error > 0.5
    assert seen.tokens.share < 1.0
    assert set(report.worst_linears) <= {choice.name for choice in choices["decoder"]}
    assert report.culprits[0].error > 0.5
    errors = [one.error for one in report.culprits]
    assert errors == sorted(errors, reverse=True)


def test_pictures_that_show_the_model_nothing_are_no_pass(small_bundle: Path, tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (128, 128), np.uint8)
    cv2.imwrite(str(tmp_path / "good.png"), picture)  # its own template: the gate spares every tile
    nothing = rows_from_source(str(tmp_path), unlabelled=True)
    with pytest.raises(DataSetError, match=r"none of the 1 validation pictures .* --validation"):
        gate(small_bundle, small_bundle, "pcb-compare", {"validation": nothing}, {}, threads=1)
    with pytest.raises(DataSetError, match="got no pictures"):
        gate(small_bundle, small_bundle, "pcb-compare", {"validation": []}, {}, threads=1)


def test_where_no_feed_was_kept_the_chosen_ways_noted_error_counts(tmp_path: Path) -> None:
    factors = np.ones(4, np.float32)
    poor = LinearChoice("poor", "x", "per_row", 1.0, "mse", 0.9, 0.09, 9, 4, 4)
    smoothed = LinearChoice("cured", "x", "static", 1.0, "mse", 0.9, 0.8, 9, 4, 4, 0.5, factors, 0.03)
    found = culprits({"decoder": tmp_path / "decoder.onnx"}, {"decoder": [smoothed, poor]}, {})
    assert [(one.linear, one.error) for one in found] == [("poor", 0.09), ("cured", 0.03)]


def test_the_tables_show_both_sets_apart(small_bundle: Path) -> None:
    pictures = {"calibration": ROWS[:1], "validation": ROWS}
    report = gate(small_bundle, small_bundle, "pcb-compare", pictures, {}, threads=1)
    console = Console(record=True, width=120, file=io.StringIO())
    for table in gate_tables(json.loads(json.dumps(report.to_json()))):
        console.print(table)
    text = console.export_text()
    assert "calibration (1)" in text and "validation (2)" in text
    assert "decoder: cosine" in text and "tokens as float" in text and "pin-hole" in text
