"""Novelty measured on an untrained bundle: refused without a limit; what lies beyond one is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from orinspect.calibration.confidence.judgement_write import write_section
from orinspect.calibration.confidence.novelty_fit import novelty_section
from orinspect.examples.novelty.measure import KINDS, main
from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.tests.small_bundle import write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

pytestmark = pytest.mark.slow

SCENES = "scenes:pcb?seed=3&size_px=192&parts=3"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("novelty"), sizes=REFERENCE_SIZES).path


def test_without_a_limit_nothing_is_measured(bundle: Path) -> None:
    with pytest.raises(BundleError, match="has no novelty; run `orinspect calibrate confidence`"):
        main([str(bundle), SCENES])


def test_parts_beyond_the_limit_are_counted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Statistics of tokens that no encoder gives: everything with a tile is beyond them."""
    opened = Bundle.open(bundle)
    rng = np.random.default_rng(1)
    far = [rng.normal(size=(4, 2, opened.shape.hidden)).astype(np.float32) * 1e-3 + 100 for _ in range(40)]
    section = novelty_section(far, ["a", "b"] * 20)
    assert section is not None
    write_section(bundle, opened.recipe_ids[0], "novelty", section)
    assert main([str(bundle), SCENES, "--parts", "2", "--json", "--kinds", "as they are", "noise"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["limit"], result["groups"]) == (section["limit"], 2)
    assert (result["noise"]["count"], result["noise"]["parts"], result["noise"]["high"]) == (2, 2, 1.0)
    assert set(result) == {"recipe", "limit", "parts", "groups", "expected_share", "worst_share",
                           "as they are", "noise"}


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "as they are"])
def test_each_kind_is_another_picture_of_the_same_size(kind: str) -> None:
    rng = np.random.default_rng(2)
    part, other = rng.integers(60, 200, (2, 200, 240)).astype(np.uint8)
    shown = KINDS[kind](part, other, 4)
    assert shown.shape == part.shape and shown.dtype == np.uint8
    assert (shown != part).mean() > 0.03
