"""The signals in a real inspection: bounded, counted, switched by the recipe, the same every time."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from orinspect.calibration.confidence.judgement_write import write_section
from orinspect.calibration.confidence.novelty_fit import novelty_section
from orinspect.evaluation.labelled.answers import answers_from_rows
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspection, Inspector
from orinspect.runtime.infer.signals.second_look import BELOW, MOST_TILES
from orinspect.runtime.limits import Review
from orinspect.runtime.recipe import Thresholds
from orinspect.tests.small_bundle import small_recipe, write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

SCENES = "scenes:pcb?seed=3&size_px=192&defects=2&parts=1"
# random weights are sure of nothing: report whatever they say
EAGER = Thresholds(dense_alone=0.05, words=0.05, both=0.05)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    recipe = small_recipe(thresholds=EAGER)
    return write_small_bundle(tmp_path_factory.mktemp("signals"), recipe, sizes=REFERENCE_SIZES)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return rows_from_source(SCENES)[0].read().frame(1)


@pytest.fixture(scope="module")
def once(bundle: Bundle, frame: Frame) -> Iterator[Inspection]:
    with Inspector(bundle, threads=1, looks_again=False) as inspector:
        yield inspector.inspect(frame)


@pytest.fixture(scope="module")
def twice(bundle: Bundle, frame: Frame) -> Iterator[Inspection]:
    with Inspector(bundle, threads=1) as inspector:
        yield inspector.inspect(frame)


def test_every_reported_defect_carries_its_signals(once: Inspection) -> None:
    assert once.defects
    for defect in once.defects:
        assert (defect.dense_confidence is not None) == (defect.detector in ("dense", "both"))
        assert (defect.words_confidence is not None) == (defect.detector in ("words", "both"))
        assert (defect.agreement_iou is not None) == (defect.detector == "both")
        assert defect.type_margin is not None and -1 <= defect.type_margin <= 1
        assert defect.presence is not None and defect.confidence <= defect.presence + 1e-9
        assert defect.shift_iou is None


def test_a_second_look_changes_nothing_but_what_it_saw(once: Inspection, twice: Inspection) -> None:
    assert 0 < twice.looked_again <= MOST_TILES
    assert tuple(replace(one, shift_iou=None) for one in twice.defects) == once.defects
    asked = [one for one in twice.defects if one.shift_iou is not None]
    assert asked
    assert all(one.confidence < BELOW and one.detector != "words" for one in asked)
    assert all(0 <= one.shift_iou <= 1 for one in asked if one.shift_iou is not None)


def test_a_second_look_is_counted_and_never_decodes(once: Inspection, twice: Inspection) -> None:
    assert twice.passes.engine_calls == once.passes.engine_calls + 2
    assert replace(twice.passes, engine_calls=0) == replace(once.passes, engine_calls=0)
    assert once.looked_again == 0


def test_a_recipe_switches_the_second_look_off(tmp_path: Path, frame: Frame, once: Inspection) -> None:
    recipe = small_recipe(thresholds=EAGER, review=Review(second_look=False))
    with Inspector(write_small_bundle(tmp_path, recipe, sizes=REFERENCE_SIZES), threads=1) as inspector:
        assert inspector.inspect(frame).defects == once.defects


def test_the_rejected_evidence_is_the_presence_of_what_was_not_reported(
    bundle: Bundle, frame: Frame, once: Inspection
) -> None:
    assert once.strongest_rejected == 0.0
    strict = dataclasses.replace(EAGER, both=1.0, dense_alone=1.0, words=1.0)
    with Inspector(bundle, threads=1) as inspector:
        recipe = dataclasses.replace(inspector.recipe, thresholds=strict)
        inspector._compiled = dataclasses.replace(inspector._compiled, recipe=recipe)
        found = inspector.inspect(frame)
    seen = [one.presence or 0.0 for one in (*found.dense, *found.words)]
    assert found.defects == ()
    assert found.strongest_rejected == max(seen) > 0


def test_what_was_nearly_reported_is_known_beside_a_reported_defect(
    bundle: Bundle, frame: Frame, once: Inspection
) -> None:
    most, *rest = sorted((one.presence or 0.0 for one in once.dense), reverse=True)
    assert rest and rest[-1] < most
    strict = dataclasses.replace(EAGER, both=1.0, dense_alone=most, words=1.0)
    with Inspector(bundle, threads=1) as inspector:
        recipe = dataclasses.replace(inspector.recipe, thresholds=strict)
        inspector._compiled = dataclasses.replace(inspector._compiled, recipe=recipe)
        found = inspector.inspect(frame)
    assert found.defects
    assert found.strongest_rejected > 0


def test_novelty_is_known_once_the_bundle_knows_it(
    bundle: Bundle, frame: Frame, once: Inspection, tmp_path: Path
) -> None:
    assert once.novelty is None
    found = answers_from_rows(bundle, bundle.recipe_ids[0], rows_from_source(SCENES), threads=1)
    (tokens,) = found.tokens
    assert len(tokens) == once.passes.tiles - once.passes.tiles_gated
    rng = np.random.default_rng(0)
    parts = [tokens + rng.normal(0, 0.1, tokens.shape).astype(np.float32) for _ in range(24)]
    section = novelty_section(parts, ["board"] * 24)
    assert section is not None
    copy = Path(shutil.copytree(bundle.path, tmp_path / "bundle"))
    write_section(copy, bundle.recipe_ids[0], "novelty", section)
    assert frame.template is not None
    strange = dataclasses.replace(frame, image=255 - frame.image // 3)
    with Inspector(Bundle.open(copy), threads=1) as inspector:
        known, other = inspector.inspect(frame), inspector.inspect(strange)
        same = inspector.inspect(dataclasses.replace(frame, image=frame.template))
    assert known.novelty is not None and known.novelty <= 1
    assert other.novelty is not None and other.novelty > 1
    assert same.novelty == 0.0  # the gate found nothing to look at
