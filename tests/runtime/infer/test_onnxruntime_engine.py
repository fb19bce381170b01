"""The ONNX Runtime engine, on a graph of one matrix product."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from orinspect.calibration import exact_dot
from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines import onnxruntime_engine
from orinspect.runtime.infer.engines.engine import check_finite, engine_from_bundle
from orinspect.runtime.infer.engines.onnxruntime_engine import (
    OnnxruntimeEngine,
    long_dot_graph,
    sums_are_exact,
)
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


def test_the_graph_of_the_long_dot_is_what_it_says() -> None:
    model = onnx.load_from_string(long_dot_graph())
    onnx.checker.check_model(model, full_check=True)
    (node,), (weight,) = model.graph.node, model.graph.initializer
    assert node.op_type == "MatMulInteger" and list(node.input) == ["x", "w"]
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    values = numpy_helper.to_array(weight)
    assert values.dtype == np.int8 and values.shape == (4096, 16) and (values == 127).all()


def test_exactness_is_asked_for_where_the_sums_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = "session.x64quantprecision"
    monkeypatch.setattr(onnxruntime_engine, "sums_are_exact", lambda: False)
    assert onnxruntime_engine._session_options(1).get_session_config_entry(entry) == "1"
    monkeypatch.setattr(onnxruntime_engine, "sums_are_exact", lambda: True)
    with pytest.raises(RuntimeError):  # onnxruntime's way to say that it is not set
        onnxruntime_engine._session_options(1).get_session_config_entry(entry)


def test_both_ways_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not sums_are_exact():
        pytest.skip("this CPU has one exact way only")
    weight = np.random.default_rng(1).integers(-127, 128, (exact_dot.LENGTH, exact_dot.COLUMNS))
    graph = tmp_path / "linear.onnx"
    graph.write_bytes(exact_dot._qdq_graph(weight.astype(np.int8)))
    rows = np.random.default_rng(2).normal(0, 40, (9, exact_dot.LENGTH)).astype(np.float32)
    outputs = []
    for exact in (True, False):
        monkeypatch.setattr(onnxruntime_engine, "sums_are_exact", lambda exact=exact: exact)
        with OnnxruntimeEngine(graph, threads=1) as engine:
            outputs.append(engine.run({"x": rows})["y"])
    np.testing.assert_array_equal(outputs[0], outputs[1])
