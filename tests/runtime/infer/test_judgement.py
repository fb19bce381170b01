"""judgement.json: read as written, absent as raw, broken as a sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from orinspect.calibration.confidence.judgement_write import write_section
from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspector
from orinspect.runtime.infer.judgement import (
    JUDGEMENT,
    UNJUDGED,
    ConfidenceModel,
    JudgementFile,
    judgement_of,
)

MODEL = ConfidenceModel("platt", {"raw": 0.8, "bias": -0.1}, ((0.1, 0.2), (0.9, 0.8)), 0.01, 0.99)


@pytest.fixture
def bundle(small_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))


def test_a_bundle_without_the_file_states_raw_confidences(small_bundle: Bundle) -> None:
    assert judgement_of(small_bundle, small_bundle.recipe_ids[0]) == UNJUDGED
    assert not UNJUDGED.is_calibrated
    with Inspector(small_bundle, threads=1) as inspector:
        assert inspector.judgement == UNJUDGED


def test_models_come_back_as_they_were_written(bundle: Path) -> None:
    recipe = Bundle.open(bundle).recipe_ids[0]
    write_section(bundle, recipe, "confidence", {"defect": MODEL.to_json(), "clean": None})
    found = judgement_of(Bundle.open(bundle), recipe)
    assert found.defect == MODEL
    assert found.clean is None and found.novelty is None
    assert found.is_calibrated
    assert judgement_of(Bundle.open(bundle), "another") == UNJUDGED


def test_an_altered_judgement_is_noticed(bundle: Path) -> None:
    recipe = Bundle.open(bundle).recipe_ids[0]
    write_section(bundle, recipe, "quality", {"limits": {}})
    text = (bundle / JUDGEMENT).read_text("utf-8")
    (bundle / JUDGEMENT).write_text(text.replace("limits", "limitz"), encoding="utf-8")
    with pytest.raises(BundleError, match=r"judgement\.json was altered"):
        Bundle.open(bundle)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "is broken"),
        ('{"schema": "orinspect.judgement/2.0", "recipes": {}}', "reads 'orinspect.judgement/1.0'"),
        ('{"recipes": {}}', "is broken"),
        ('{"schema": "orinspect.judgement/1.0", "recipes": {"a": {"quality": {"max": NaN}}}}', "holds NaN"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(text: str, named: str) -> None:
    with pytest.raises(BundleError, match=named):
        JudgementFile.from_json(text)


def test_a_newer_minor_version_is_read() -> None:
    text = json.dumps({"schema": "orinspect.judgement/1.3", "recipes": {"a": {"later": {}}}})
    assert JudgementFile.from_json(text).judgement("a") == UNJUDGED


def test_a_broken_model_names_its_recipe() -> None:
    file = JudgementFile({"pcb": {"confidence": {"defect": {"method": "platt"}}}})
    with pytest.raises(BundleError, match="confidence of recipe pcb is broken"):
        file.judgement("pcb")


@pytest.mark.parametrize("wrong", [{"low": 0.9, "high": 0.1}, {"weights": {"raw": 1e999}}, {"high": 2.0}])
def test_a_model_that_gives_no_probability_is_broken(wrong: dict[str, object]) -> None:
    file = JudgementFile({"pcb": {"confidence": {"defect": {**MODEL.to_json(), **wrong}}}})
    with pytest.raises(BundleError, match="confidence of recipe pcb is broken"):
        file.judgement("pcb")


def test_a_number_that_is_none_is_never_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        JudgementFile({"pcb": {"quality": {"limits": {"blur_px": {"max": float("nan")}}}}}).to_json()
