"""The ONNX Runtime engine, on a graph of one matrix product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engine import check_finite, engine_from_bundle
from orinspect.runtime.infer.onnxruntime_engine import OnnxruntimeEngine
from orinspect.tests.linear_graphs import linear_graph, saved


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return saved(linear_graph(np.arange(6, dtype=np.float32).reshape(2, 3)), tmp_path)


def test_an_engine_names_its_inputs_and_gives_every_output(product: Path) -> None:
    with OnnxruntimeEngine(product, threads=1) as engine:
        assert list(engine.inputs) == ["x"]
        assert list(engine.outputs) == ["y"]
        outputs = engine.run({"x": np.array([[[1.0, 10.0]]], np.float32)})
    assert outputs["y"].tolist() == [[[30.0, 41.0, 52.0]]]
    assert outputs["y"].dtype == np.float32


def test_feeds_that_do_not_fit_are_named(product: Path) -> None:
    with OnnxruntimeEngine(product, threads=1) as engine:
        with pytest.raises(EngineError, match=r"takes \['x'\], got \['z'\]"):
            engine.run({"z": np.zeros((1, 1, 2), np.float32)})
        with pytest.raises(EngineError, match="float32, got float64"):
            engine.run({"x": np.zeros((1, 1, 2))})  # type: ignore[dict-item]
        with pytest.raises(EngineError, match="failed"):
            engine.run({"x": np.zeros((1, 1, 5), np.float32)})
        assert engine.run({"x": np.zeros((1, 1, 2), np.float32)})["y"].shape == (1, 1, 3)


def test_a_closed_engine_says_so(product: Path) -> None:
    engine = OnnxruntimeEngine(product)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"x": np.zeros((1, 1, 2), np.float32)})


def test_a_file_that_is_no_graph_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        OnnxruntimeEngine(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"cannot load broken\.onnx") as caught:
        OnnxruntimeEngine(tmp_path / "broken.onnx")
    assert "\n" not in str(caught.value)


def test_a_bundle_opens_its_components(small_bundle: Bundle) -> None:
    engine = engine_from_bundle(small_bundle, "vision", threads=1)
    assert list(engine.inputs) == ["patches"]
    engine.close()
    with pytest.raises(BundleError, match="no graph 'speech'"):
        engine_from_bundle(small_bundle, "speech")
    with pytest.raises(EngineError, match="backend 'tpu'"):
        engine_from_bundle(small_bundle, "vision", backend="tpu")
    with pytest.raises(EngineError, match="thread"):
        engine_from_bundle(small_bundle, "vision", threads=0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_an_engine_error(value: float) -> None:
    array = np.zeros((2, 3), np.float32)
    check_finite(array, "zeros")
    array[1, 1] = value
    with pytest.raises(EngineError, match="1 values of 6"):
        check_finite(array, "the logits")
