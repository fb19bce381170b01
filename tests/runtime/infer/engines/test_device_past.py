"""The past on the device: its copies through the real CUDA bindings, its numbers from a real decoder graph.

The engine is TensorrtEngine, with ONNX Runtime in TensorRT's place: it runs the float16-KV graph that
TensorRT gets, on the memory that the copies fill.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines import cuda
from orinspect.runtime.infer.engines.device import CudaDevice
from orinspect.runtime.infer.engines.device_past import DevicePast, growth_copies
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.engines.past import PastBuffer
from orinspect.runtime.infer.engines.profile_choice import component_plans
from orinspect.runtime.infer.engines.tensorrt_engine import Scratch, TensorrtEngine, tensorrt_logger
from orinspect.runtime.infer.sequence import mask_for
from orinspect.tests import ort_tensorrt
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.device_bundle import write_device_bundle
from orinspect.tests.host_cuda import host_cuda

ort = pytest.importorskip("onnxruntime")


class Watched(TensorrtEngine):
    """Notes how many new tokens each call has."""

    columns: list[int]

    def execute(self, feeds: Any, resident: Any, kept: Any) -> Any:
        self.columns.append(feeds["embeds"].shape[1])
        return super().execute(feeds, resident, kept)


class OnHost:
    """The same graph on the same engine, its past on the host, unpadded."""

    def __init__(self, path: Path) -> None:
        self._session = ort.InferenceSession(str(path))
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self._types = {
            entry.name: np.float16 if entry.type == "tensor(float16)" else np.float32
            for entry in self._session.get_inputs()
        }

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        names = ["hidden", "new_kv"]
        arrays = {name: array.astype(self._types[name]) for name, array in feeds.items()}
        found = zip(names, self._session.run(names, arrays), strict=True)
        return {name: array.astype(np.float32) for name, array in found}

    def close(self) -> None:
        """Nothing to free."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_device_bundle(tmp_path_factory.mktemp("device"))


@pytest.fixture
def engine(bundle: Bundle, tmp_path: Path) -> Iterator[Watched]:
    bindings = pytest.importorskip("cuda.bindings.driver")
    host_cuda()
    plan = component_plans(bundle.path)["decoder"]
    profiles = plan.profiles(None, bundle.shape.layers)
    path = tmp_path / "decoder.plan"
    path.write_bytes(ort_tensorrt.plan_bytes(bundle.path / "decoder.tensorrt.onnx", profiles))
    said: list[str] = []
    runtime = ort_tensorrt.Runtime(tensorrt_logger(ort_tensorrt, said))
    with CudaDevice(cuda._BoundDriver(bindings)) as device:
        opened = Watched(ort_tensorrt, runtime, device, Scratch(device), path, said)
        opened.columns = []
        # least_k 4: as if single tokens were no Int8 GEMM, so that padding is used
        opened.serve(profiles, 4)
        yield opened
        opened.close()
        opened.close()
    assert host_cuda().host_cuda_live() == 0


@pytest.fixture(scope="module")
def on_host(bundle: Bundle) -> OnHost:
    return OnHost(bundle.path / "decoder.tensorrt.onnx")


def contents(past: DevicePast, engine: Watched) -> FloatArray:
    """[rows, layers, 2, kv_heads, slots, head_dim] as it lies on the device."""
    shape = past._shape.past_kv_shape(len(past.lengths), past.slots)
    with engine.device.current():
        pinned = engine.device.pinned(int(np.prod(shape)) * 2)
        engine.device.download(pinned, past._memory)
        engine.device.synchronise()
        return np.asarray(pinned.view(np.float16).reshape(shape).astype(np.float32))


def test_the_same_keys_and_values_as_on_the_host(bundle: Bundle, engine: Watched, on_host: OnHost) -> None:
    """Prefix, ragged passes, growth over two buckets and a row that leaves, against the host's past."""
    shape, prefix = bundle.shape, bundle.recipe().prefix_kv
    rows, capacity = 3, prefix.shape[3] + 120
    device = DevicePast(engine, shape, prefix, rows, capacity)
    host = PastBuffer(shape, prefix, rows, capacity)
    for step, counts in enumerate([[22, 20, 15], [1, 3, 2], [7, 16], [16, 16], [16, 9]]):
        feeds = feeds_of(shape, len(counts), max(counts), device.slots, device.lengths)
        del feeds["past_kv"]
        feeds["mask"] = mask_for(device.lengths, counts, device.slots, max(counts))
        hidden = device.step(engine, feeds, counts)
        expected = host.step(on_host, feeds, counts)
        assert device.lengths == host.lengths and device.slots == host.slots
        for row, count in enumerate(counts):
            np.testing.assert_allclose(hidden[row, -count:], expected[row, -count:], atol=2e-3)
        found = contents(device, engine)
        for row, length in enumerate(device.lengths):
            np.testing.assert_allclose(
                found[row, ..., :length, :], host.view[row, ..., :length, :], atol=2e-3
            )
        if step == 1:
            before = contents(device, engine)
            device.drop(0)
            host.drop(0)
            after = contents(device, engine)
            assert (after[0] == before[2]).all() and (after[1] == before[1]).all()
    assert engine.columns == [22, 4, 16, 16, 16]  # 3 new tokens were padded to least_k
    assert device.slots == 96  # of 32 at the start


def test_answers_from_the_device_are_those_from_the_host(
    bundle: Bundle, engine: Watched, on_host: OnHost
) -> None:
    """The whole decode loop; batches as small as the engine takes, rows leave one by one."""
    rng, shape = np.random.default_rng(5), bundle.shape
    image = rng.standard_normal((6, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = rng.standard_normal((6, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    answers = []
    with OnnxruntimeEngine(bundle.graph(f"head_schema.{bundle.recipe_ids[0]}"), threads=1) as head:
        for one in (on_host, engine):
            decoder = Decoder(
                shape, bundle.recipe(), bundle.embeddings, one, head, clock=lambda: 0.0, max_rows=4
            )
            answers.append(decoder.answers(image, deepstack).answers)
    assert [answer.ids for answer in answers[0]] == [answer.ids for answer in answers[1]]
    assert len({answer.ids for answer in answers[0]}) > 1
    assert min(engine.columns) >= engine.least_k


def test_a_full_past_is_said(bundle: Bundle, engine: Watched) -> None:
    shape, prefix = bundle.shape, bundle.recipe().prefix_kv
    past = DevicePast(engine, shape, prefix, 1, prefix.shape[3])
    for count in (22, 4):
        feeds = feeds_of(shape, 1, count, past.slots, past.lengths)
        del feeds["past_kv"]
        if count == 22:
            past.step(engine, feeds, [count])
        else:
            with pytest.raises(EngineError, match="raise the recipe's token_budget"):
                past.step(engine, feeds, [count])


@pytest.mark.parametrize(("rows", "pieces", "before", "after"), [(1, 3, 4, 8), (4, 3, 4, 5), (3, 2, 6, 60)])
def test_growth_moves_every_byte_over_one_spare_row(rows: int, pieces: int, before: int, after: int) -> None:
    """The copies, done byte by byte in order on one array, as a device would do them."""
    size = rows * pieces * after
    memory = np.zeros(size + pieces * before, np.uint8)
    memory[: rows * pieces * before] = np.arange(rows * pieces * before) % 251 + 1
    expected = memory[: rows * pieces * before].reshape(rows, pieces, before).copy()
    for copy in growth_copies(0, size, rows, pieces, before, after):
        for piece in range(copy.rows):
            source = copy.source + piece * copy.source_pitch
            target = copy.destination + piece * copy.destination_pitch
            assert abs(source - target) >= copy.width or source == target  # no piece overlaps itself
            memory[target : target + copy.width] = memory[source : source + copy.width].copy()
    assert (memory[:size].reshape(rows, pieces, after)[:, :, :before] == expected).all()
