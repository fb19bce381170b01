"""A decoder in parts on ONNX Runtime is the whole decoder: in one call and through the decode loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

import onnx

from orinspect.calibration.blocks import decoder_part
from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.engines.parts import PartedEngine
from orinspect.runtime.infer.engines.past import most_rows_of, past_for
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.small_bundle import write_small_bundle

CUTS = [(1, 2), (2, 1), (1, 1, 1)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Three layers, two of them with DeepStack features."""
    return write_small_bundle(tmp_path_factory.mktemp("parts"))


def parted(bundle: Bundle, layers: tuple[int, ...], folder: Path) -> PartedEngine:
    model = onnx.load(str(bundle.graph("decoder")))
    engines, first = [], 0
    for count in layers:
        path = folder / f"{first}.onnx"
        onnx.save(decoder_part(model, bundle.shape, first, first + count), str(path))
        engines.append(OnnxruntimeEngine(path, threads=1))
        first += count
    return PartedEngine(engines)


@pytest.mark.parametrize("layers", CUTS)
def test_a_chain_of_parts_is_the_whole_decoder(
    bundle: Bundle, layers: tuple[int, ...], tmp_path: Path
) -> None:
    feeds = feeds_of(bundle.shape, 2, 5, 32, [7, 0])
    with OnnxruntimeEngine(bundle.graph("decoder"), threads=1) as engine:
        whole = engine.run(feeds)
        chain = parted(bundle, layers, tmp_path)
        assert chain.layers == layers
        assert set(chain.inputs) == set(engine.inputs)
        assert chain.inputs["past_kv"][1] == sum(layers)
    outputs = chain.run(feeds)
    for name, expected in whole.items():
        assert outputs[name].shape == expected.shape
        np.testing.assert_allclose(outputs[name], expected, atol=2e-5)
    swapped = PartedEngine(chain._parts[::-1]) if len(set(layers)) == 1 else None
    if swapped is not None:  # the order of the parts matters, so this test can fail
        assert np.abs(swapped.run(feeds)["hidden"] - whole["hidden"]).max() > 1e-2
    chain.close()
    with pytest.raises(EngineError, match="closed"):
        chain.run(feeds)


@pytest.mark.parametrize("layers", CUTS)
def test_answers_do_not_depend_on_the_parts(bundle: Bundle, layers: tuple[int, ...], tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shape = bundle.shape
    image = rng.standard_normal((5, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = rng.standard_normal((5, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    head = OnnxruntimeEngine(bundle.graph(f"head_schema.{bundle.recipe_ids[0]}"), threads=1)
    whole = OnnxruntimeEngine(bundle.graph("decoder"), threads=1)
    answers = []
    for engine in (whole, parted(bundle, layers, tmp_path)):
        decoder = Decoder(shape, bundle.recipe(), bundle.embeddings, engine, head, clock=lambda: 0.0)
        answers.append(decoder.answers(image, deepstack))
    assert [answer.ids for answer in answers[0].answers] == [answer.ids for answer in answers[1].answers]
    assert answers[0].row_passes == answers[1].row_passes
    assert len({answer.ids for answer in answers[0].answers}) > 1


def test_the_pasts_of_all_parts_advance_together(bundle: Bundle, tmp_path: Path) -> None:
    chain, shape = parted(bundle, (2, 1), tmp_path), bundle.shape
    prefix = bundle.recipe().prefix_kv
    past = past_for(chain, shape, prefix, 3, prefix.shape[3] + 90)
    first = prefix.shape[3]
    for columns in (30, 2):
        feeds = feeds_of(shape, 3, columns, past.slots, past.lengths)
        del feeds["past_kv"]
        past.step(chain, feeds, [columns, columns - 1, columns])
    assert past.lengths == [first + 32, first + 30, first + 32]
    past.drop(0)
    assert past.lengths == [first + 32, first + 30]
    assert most_rows_of(chain) > 1000  # the host sets no limit


def test_an_engine_without_parts_is_refused() -> None:
    with pytest.raises(EngineError, match="at least one part"):
        PartedEngine([])
