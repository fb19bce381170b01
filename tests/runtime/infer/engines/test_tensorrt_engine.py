"""TensorrtEngine and TensorrtDevice on real graphs: ONNX Runtime in TensorRT's place, the host's memory in
the GPU's, the real CUDA bindings between them.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines import cuda, tensorrt_device
from orinspect.runtime.infer.engines.engine import FloatArray, engines_from_bundle
from orinspect.runtime.infer.engines.parts import PartedEngine
from orinspect.runtime.infer.engines.plans import (
    BoardFacts,
    PlanFile,
    PlanSet,
    l4t_of_this_board,
    model_hash,
    name_of_this_board,
)
from orinspect.runtime.infer.engines.profile_choice import component_plans
from orinspect.runtime.infer.engines.tensorrt_engine import TensorrtEngine, tensorrt_library
from orinspect.tests import ort_tensorrt
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.device_bundle import write_device_bundle
from orinspect.tests.host_cuda import host_cuda

pytestmark = pytest.mark.slow  # all of them together take several seconds

ort = pytest.importorskip("onnxruntime")
HERE = l4t_of_this_board(), "8.7", name_of_this_board()
FACTS = BoardFacts("tensorrt", ort_tensorrt.__version__, "12.6", *HERE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_device_bundle(tmp_path_factory.mktemp("tensorrt"))


@pytest.fixture(autouse=True)
def in_tensorrts_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()
    monkeypatch.setattr(tensorrt_device, "tensorrt_library", lambda: ort_tensorrt)
    monkeypatch.setattr(tensorrt_device, "driver_of_this_machine", lambda: cuda._BoundDriver(bindings))
    yield
    assert host_cuda().host_cuda_live() == 0  # whatever happened, everything was freed


def plans_of(bundle: Bundle, folder: Path, parts: int, **facts: str) -> Path:
    """A folder of engines as `orinspect engines build` leaves it."""
    place = folder / f"{'0' * 16}-1"
    place.mkdir(parents=True)
    components: dict[str, tuple[PlanFile, ...]] = {}
    for name, known in component_plans(bundle.path).items():
        layers = known.layers.get(parts, (None,))
        files = []
        for graph, count in zip(known.files(parts), layers, strict=True):
            session = ort.InferenceSession(str(bundle.path / graph))
            profiles = known.profiles([entry.name for entry in session.get_inputs()], count)
            plan = place / graph.replace(".onnx", ".plan")
            plan.write_bytes(ort_tensorrt.plan_bytes(bundle.path / graph, profiles))
            files.append(PlanFile(plan.name, graph, plan.stat().st_size, "", count))
        components[name] = tuple(files)
    model = model_hash(bundle.manifest["files"])
    made = PlanSet(place, "0" * 16, model, dataclasses.replace(FACTS, **facts), parts, components)
    (place / "built.json").write_text(json.dumps(made.to_table()))
    (folder / "current").write_text(place.name)
    return folder


def on_cpu(bundle: Bundle, component: str, feeds: dict[str, FloatArray]) -> dict[str, Any]:
    session = ort.InferenceSession(str(bundle.path / f"{component}.tensorrt.onnx"))
    kinds = {entry.name: entry.type for entry in session.get_inputs()}
    arrays = {
        name: feeds[name].astype(np.float16 if kind == "tensor(float16)" else np.float32)
        for name, kind in kinds.items()
    }
    names = [entry.name for entry in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays), strict=True))


def feeds_for(bundle: Bundle, component: str, rows: int) -> dict[str, FloatArray]:
    rng, shape = np.random.default_rng(2), bundle.shape

    def normal(*size: int) -> FloatArray:
        return rng.standard_normal(size).astype(np.float32)

    if component == "vision":
        return {"patches": normal(rows, shape.patches, shape.patch_features)}
    if component == "attributes":
        features = normal(rows, len(shape.deepstack), shape.tokens, shape.hidden)
        return {"image_tokens": normal(rows, shape.tokens, shape.hidden), "deepstack": features}
    if component == "decoder":
        return feeds_of(shape, rows, 20, 9, [9, 3] * (rows // 2))
    return {"hidden": normal(rows, shape.hidden)}


@pytest.mark.parametrize("component", ["vision", "attributes", "decoder", "head_schema.pcb-compare"])
@pytest.mark.parametrize("rows", [2, 18])
def test_an_engine_gives_what_its_graph_gives(
    bundle: Bundle, component: str, rows: int, tmp_path: Path
) -> None:
    """18 rows are more than a profile takes, a past of 9 slots and 20 tokens are fewer."""
    plans = plans_of(bundle, tmp_path, 1)
    feeds = feeds_for(bundle, component, rows)
    expected = on_cpu(bundle, component, feeds)
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine:
        engine = open_engine(component)
        assert set(engine.inputs) == set(feeds) and set(engine.outputs) == set(expected)
        for _ in range(2):  # buffers are used again
            found = engine.run(feeds)
            for name, array in expected.items():
                assert found[name].dtype == np.float32 and found[name].shape == array.shape
                # sums of another batch may fall on the other side of an INT8 step
                np.testing.assert_allclose(found[name], array.astype(np.float32), atol=0.05)
        again = engine.run({name: array * 0 if name != "mask" else array for name, array in feeds.items()})
        assert any(np.abs(again[name] - found[name]).max() > 1e-3 for name in found)  # a copy, not a view


@pytest.mark.parametrize("parts", [1, 2])
def test_answers_do_not_depend_on_where_the_past_lies(bundle: Bundle, parts: int, tmp_path: Path) -> None:
    plans = plans_of(bundle, tmp_path, parts)
    rng, shape = np.random.default_rng(5), bundle.shape
    image = rng.standard_normal((6, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = rng.standard_normal((6, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    answers = []
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine:
        decoder, head = open_engine("decoder"), open_engine(f"head_schema.{bundle.recipe_ids[0]}")
        assert isinstance(decoder, PartedEngine if parts > 1 else TensorrtEngine)
        for one in (decoder, HostPast(decoder)):
            loop = Decoder(shape, bundle.recipe(), bundle.embeddings, one, head, clock=lambda: 0.0)
            answers.append([answer.ids for answer in loop.answers(image, deepstack).answers])
    assert answers[0] == answers[1] and len(set(answers[0])) > 1


class HostPast:
    """An engine that is asked to run from host arrays only."""

    def __init__(self, engine: Any) -> None:
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.run: Callable[..., Any] = engine.run
        self.close: Callable[[], None] = engine.close


def test_a_value_that_float16_cannot_hold_is_clipped(bundle: Bundle, tmp_path: Path) -> None:
    feeds = feeds_for(bundle, "decoder", 2)
    feeds["past_kv"][0, 0, 0, 0, 0, 0] = 1e6
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans_of(bundle, tmp_path, 1)) as open_engine:
        assert np.isfinite(open_engine("decoder").run(feeds)["hidden"]).all()


def test_wrong_calls_are_sentences(bundle: Bundle, tmp_path: Path) -> None:
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans_of(bundle, tmp_path, 1)) as open_engine:
        engine = open_engine("attributes")
        with pytest.raises(EngineError, match=r"takes \['deepstack', 'image_tokens'\], got \['x'\]"):
            engine.run({"x": np.zeros(1, np.float32)})
        wrong = {name: array[..., :3] for name, array in feeds_for(bundle, "attributes", 2).items()}
        with pytest.raises(EngineError, match="no profile takes"):
            engine.run(wrong)
        with pytest.raises(EngineError, match="has no engine 'speech'"):
            open_engine("speech")
        engine.close()
        with pytest.raises(EngineError, match="was closed"):
            engine.run(feeds_for(bundle, "attributes", 2))


def test_a_call_that_tensorrt_refuses_is_a_sentence(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = plans_of(bundle, tmp_path, 1)
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine:
        engine = open_engine("attributes")
        monkeypatch.setattr(ort_tensorrt, "SCRATCH_BYTES", 1 << 40)  # as if it had asked for more
        with pytest.raises(
            EngineError, match=r"attributes\.tensorrt\.plan: TensorRT refuses a call .*restart"
        ):
            engine.run(feeds_for(bundle, "attributes", 2))


def test_memory_that_runs_out_frees_what_was_taken(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_CUDA_LIMIT", "65536")
    with (
        engines_from_bundle(bundle, backend="tensorrt", plans=plans_of(bundle, tmp_path, 1)) as open_engine,
        pytest.raises(EngineError, match="of device memory were refused"),
    ):
        open_engine("vision").run(feeds_for(bundle, "vision", 16))


def test_a_gpu_that_fails_is_said_once_and_everything_is_given_back(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing on the way out must not put another error in this one's place: the service exits by it."""
    plans = plans_of(bundle, tmp_path, 1)
    feeds = feeds_for(bundle, "attributes", 2)

    def run_until_it_fails() -> None:
        with engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine:
            engine = open_engine("attributes")
            engine.run(feeds)
            monkeypatch.setenv("HOST_CUDA_BROKEN", "1")
            engine.run(feeds)

    with pytest.raises(EngineError, match=r"the GPU failed \(.*ILLEGAL_ADDRESS.*restart the service"):
        run_until_it_fails()


def test_a_failed_gpu_can_be_closed(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The service has reported the part by then and returns its own exit code: it is said, not raised."""
    plans = plans_of(bundle, tmp_path, 1)
    with engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine:
        open_engine("attributes").run(feeds_for(bundle, "attributes", 2))
        monkeypatch.setenv("HOST_CUDA_BROKEN", "1")
        assert not caplog.records
    assert any("ILLEGAL_ADDRESS" in record.getMessage() for record in caplog.records)


def test_a_plan_that_does_not_load_says_what_tensorrt_says(bundle: Bundle, tmp_path: Path) -> None:
    plans = plans_of(bundle, tmp_path, 1)
    path = next(plans.glob("*/vision.tensorrt.plan"))
    path.write_bytes(b"x" * path.stat().st_size)
    with (
        engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine,
        pytest.raises(EngineError, match=r"cannot load vision\.tensorrt\.plan \(Serialization .*failed\)"),
    ):
        open_engine("vision")


def test_plans_with_other_profiles_are_refused(bundle: Bundle, tmp_path: Path) -> None:
    plans = plans_of(bundle, tmp_path, 1)
    path = next(plans.glob("*/vision.tensorrt.plan"))
    table = json.loads(path.read_text())
    size = path.stat().st_size
    path.write_text(json.dumps({**table, "profiles": table["profiles"][:1]}).ljust(size))
    with (
        engines_from_bundle(bundle, backend="tensorrt", plans=plans) as open_engine,
        pytest.raises(EngineError, match=r"has 1 profiles, the bundle lists 2; run: orinspect engines build"),
    ):
        open_engine("vision")


def test_plans_of_another_gpu_are_refused_before_they_load(bundle: Bundle, tmp_path: Path) -> None:
    plans = plans_of(bundle, tmp_path, 1, sm="8.6")
    with (
        pytest.raises(EngineError, match=r"sm 8\.6 -> 8\.7.*plans do not move; run: orinspect engines build"),
        engines_from_bundle(bundle, backend="tensorrt", plans=plans),
    ):
        pass


def test_the_library_is_named() -> None:
    with pytest.raises(EngineError, match="'openvino' is not known; use tensorrt or tensorrt_rtx"):
        tensorrt_library("openvino")


@pytest.mark.trt
def test_the_real_runtime_refuses_a_plan_in_its_own_words(tmp_path: Path) -> None:
    """tensorrt_rtx has no GPU here, but it reads a plan's head before it looks for one."""
    from orinspect.runtime.infer.engines.device import CudaDevice
    from orinspect.runtime.infer.engines.tensorrt_engine import Scratch, tensorrt_logger

    trt = tensorrt_library("tensorrt_rtx")
    path, said = tmp_path / "other.plan", list[str]()
    path.write_bytes(b"x" * 4096)
    bindings = pytest.importorskip("cuda.bindings.driver")
    with CudaDevice(cuda._BoundDriver(bindings)) as device:
        with device.current():
            runtime = trt.Runtime(tensorrt_logger(trt, said))
        with pytest.raises(EngineError, match=r"cannot load other\.plan \(.*magicTag"):
            TensorrtEngine(trt, runtime, device, Scratch(device), path, said)
