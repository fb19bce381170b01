"""A part in chunks is the part in one piece, and no more of it is held at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.infer import first_look
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.first_look import HeldFeatures, Seen, tiles_a_chunk
from orinspect.runtime.infer.inspector import Inspection, Inspector
from orinspect.runtime.infer.pictures import views
from orinspect.runtime.recipe import Thresholds, Tiling
from orinspect.tests.small_bundle import small_recipe, write_small_bundle
from orinspect.tests.tiny_checkpoint import REFERENCE_SIZES

pytestmark = pytest.mark.slow

TILES = 49


@pytest.fixture(scope="module")
def frame() -> Frame:
    return Frame(pcb_scene(5, size_px=448, style="grey").image, None, 1, 0.0, 0, "test")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A grid of 49 tiles over 448 px; the random dense head asks about a few of them."""
    recipe = small_recipe(
        mode="single", compare=None, tiling=Tiling(128, 64, (1.0,), 64), token_budget=12,
        thresholds=dataclasses.replace(Thresholds(), candidate=0.6),
    )
    return write_small_bundle(tmp_path_factory.mktemp("chunks"), recipe, sizes=REFERENCE_SIZES)


@pytest.fixture
def cuts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tiles were cut at a time."""
    counted: list[int] = []
    plain = views.view_from_frame

    def counting(recipe: object, frame: Frame) -> views.View:
        view = plain(recipe, frame)  # type: ignore[arg-type]

        def cut(indices: Sequence[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
            counted.append(len(indices))
            return view.cut(indices)

        return dataclasses.replace(view, cut=cut)

    monkeypatch.setattr("orinspect.runtime.infer.inspector.view_from_frame", counting)
    return counted


def inspected(bundle: Bundle, frame: Frame, detectors: tuple[str, ...]) -> Inspection:
    with Inspector(bundle, threads=1, detectors=detectors, looks_again=False) as inspector:
        return inspector.inspect(frame)


@pytest.mark.parametrize("detectors", [("dense", "words"), ("words",)])
def test_chunks_find_what_one_piece_finds(
    bundle: Bundle, frame: Frame, detectors: tuple[str, ...], cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspected(bundle, frame, detectors)
    assert cuts == [TILES] and whole.passes.tiles == TILES
    monkeypatch.setattr(first_look, "CHUNK_BYTES", 1)  # one call of the encoder a chunk
    few = inspected(bundle, frame, detectors)
    assert cuts[1:] == [16, 16, 16, 1]
    assert whole.dense or whole.words or whole.passes.tiles_decoded, "nothing to compare"
    assert few.passes.tiles_decoded == whole.passes.tiles_decoded > 0
    assert few.passes.row_passes == whole.passes.row_passes
    for name in ("dense", "words", "defects"):
        found, expected = getattr(few, name), getattr(whole, name)
        assert [one.type for one in found] == [one.type for one in expected]
        for one, other in zip(found, expected, strict=True):  # never bitwise: a batch of 1 has its own kernel
            assert one.bbox_xyxy == pytest.approx(other.bbox_xyxy, abs=1e-2)
            assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


def test_a_chunk_is_bounded_by_bytes_and_by_one_call(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, shape = bundle.recipe().recipe, bundle.shape
    usual = tiles_a_chunk(recipe, shape)
    assert usual % 16 == 0 and usual * 4 * shape.patches * shape.patch_features <= first_look.CHUNK_BYTES
    monkeypatch.setattr(first_look, "CHUNK_BYTES", first_look.CHUNK_BYTES // 4)
    assert tiles_a_chunk(recipe, shape) == pytest.approx(usual / 4, abs=16)
    large = dataclasses.replace(shape, grid_hw=(28, 28), hidden=2048, vision_heads=16)
    wide = dataclasses.replace(recipe, tiling=Tiling(448, 448, (1.0,), 64))
    assert tiles_a_chunk(wide, large) == 1, "64 MB of scores allow one picture of a 2B a call"


def test_only_tiles_that_may_reach_the_decoder_are_held(
    bundle: Bundle, frame: Frame, cuts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "CHUNK_BYTES", 1)
    most_held: list[int] = []
    plain = HeldFeatures.hold

    def counting(self: HeldFeatures, seen: Seen, tiles: Iterator[int]) -> None:
        plain(self, seen, tiles)
        most_held.append(len(self))

    monkeypatch.setattr(HeldFeatures, "hold", counting)
    found = inspected(bundle, frame, ("dense", "words"))
    assert max(cuts) == 16
    assert found.passes.tiles_decoded <= most_held[-1] < TILES
    most_held.clear()
    strict = dataclasses.replace(Thresholds(), candidate=1.0)
    bundle_recipe = bundle.recipe()
    recipe = dataclasses.replace(bundle_recipe.recipe, thresholds=strict)
    monkeypatch.setattr(
        Bundle, "recipe", lambda self, recipe_id=None: dataclasses.replace(bundle_recipe, recipe=recipe)
    )
    inspected(bundle, frame, ("dense", "words"))
    assert most_held == [0, 0, 0, 0], "without a candidate nothing is held"


def test_what_was_taken_is_held_no_more() -> None:
    features: dict[str, FloatArray] = {"image_tokens": np.arange(24, dtype=np.float32).reshape(4, 3, 2)}
    held = HeldFeatures()
    held.hold(Seen(10, features, [], 1), [11, 13, 11])
    assert len(held) == 2
    taken = held.taken([11, 13])
    assert np.array_equal(taken["image_tokens"], features["image_tokens"][[1, 3]])
    assert len(held) == 0
    features["image_tokens"][:] = 0
    assert taken["image_tokens"].any(), "held features are copies: their chunk goes"
