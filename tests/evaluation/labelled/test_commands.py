"""`calibrate confidence` on an untrained bundle: what it prints, writes, and leaves alone when it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orinspect.cli import main
from orinspect.evaluation.labelled.confidence import calibrate_confidence
from orinspect.runtime.errors import DataSetError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspector
from orinspect.runtime.infer.judgement import judgement_of
from orinspect.tests.evaluation.sets.drawn_sets import write_voc
from orinspect.tests.small_bundle import write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

pytestmark = pytest.mark.slow

SCENES = "scenes:pcb?seed=1&size_px=192&parts=2"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("labelled"), sizes=REFERENCE_SIZES).path


def test_the_bundle_is_written_anew_and_says_what_it_rests_on(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(bundle).id
    assert main(["calibrate", "confidence", str(bundle), SCENES, "--threads", "1", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    opened = Bundle.open(bundle)
    assert result["bundle"] == opened.id != before
    report = result["confidence"]["report"]
    assert (report["source"], report["parts"]) == (SCENES, 2)
    assert result["novelty"] is None  # too few parts
    found = judgement_of(opened, result["recipe"])
    assert (found.defect is not None) == (report["labels"] >= 50)
    with Inspector(opened, threads=1) as inspector:
        assert inspector.judgement == found


def test_a_data_set_without_sides_is_read_whole(bundle: Path, tmp_path: Path) -> None:
    """Asking it for a training side would be refused."""
    folder = write_voc(tmp_path, {"a": (("open", 2, 2, 9, 9),), "b": None})
    with pytest.raises(DataSetError, match="has parts without templates"):
        calibrate_confidence(bundle, str(folder), threads=1)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["{bundle}", "no-data"], "no-data"),
        (["{bundle}", SCENES, "--recipe", "other"], "no recipe 'other'"),
        (["no-bundle", SCENES], "no-bundle"),
    ],
)
def test_a_refusal_is_one_sentence_and_leaves_the_bundle(
    words: list[str], named: str, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = Bundle.open(bundle).id
    assert main(["calibrate", "confidence", *(word.format(bundle=bundle) for word in words)]) in (1, 2)
    shown = capsys.readouterr()
    assert named in shown.err and "Traceback" not in shown.err
    assert Bundle.open(bundle).id == before
