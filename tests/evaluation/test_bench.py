"""`bench`: bundles in turns on the same pictures, and a peer that says why it did not run."""

import sys
from pathlib import Path

import cv2
import pytest

from orinspect.evaluation.bench import bench_bundles, examples_from_images
from orinspect.evaluation.terminal import bench_text
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.errors import DataSetError

pytestmark = pytest.mark.slow


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    scene = pcb_scene(2, size_px=192, defects=2)
    cv2.imwrite(str(tmp_path / "7_test.png"), scene.image)
    cv2.imwrite(str(tmp_path / "7_temp.png"), scene.template)
    return tmp_path / "7_test.png"


def test_two_bundles_take_turns_on_the_same_pictures(small_bundle: Path, picture: Path) -> None:
    result = bench_bundles([small_bundle, small_bundle], [picture], threads=1, rounds=2)
    assert result["pictures"] == ["7_test.png"]
    first, second = result["bundles"]
    assert set(first["median_ms"]) == {"preprocess", "vision", "dense", "prefill", "decode", "total"}
    assert first["passes"] == second["passes"] and first["passes"]["engine_calls"] > 0
    assert first["peak_rss_mib"] > 20
    assert result["peer"] == {"reason": "not run: no checkpoint was given (--peers CHECKPOINT)"}
    assert "median ms a part" in bench_text(result)


def test_the_peer_says_which_library_is_missing(small_bundle: Path, picture: Path,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    result = bench_bundles([small_bundle], [picture], threads=1, rounds=1, peer_checkpoint=Path("anything"))
    assert result["peer"] == {"reason": "not run: torch is not installed"}
    assert "torch is not installed" in bench_text(result)


@pytest.mark.oracle
def test_the_peer_runs_on_the_same_tiles(small_bundle: Path, picture: Path) -> None:
    checkpoint = small_bundle.parent / "checkpoint"
    result = bench_bundles([small_bundle], [picture], threads=1, rounds=1, peer_checkpoint=checkpoint)
    assert result["peer"]["ms_per_tile"] > 0 and 1 <= result["peer"]["tiles"] <= 8
    assert "transformers generate" in bench_text(result)


def test_a_picture_without_its_template_is_refused(tmp_path: Path, picture: Path) -> None:
    lone = tmp_path / "part.png"
    lone.write_bytes(picture.read_bytes())
    with pytest.raises(DataSetError, match="--template"):
        examples_from_images([lone], None)
    assert len(examples_from_images([lone], picture)) == 1
