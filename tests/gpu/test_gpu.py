"""On a machine with an NVIDIA GPU: numbers of both flavours, and the TensorRT engine behind its Protocol."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")

from orinspect.jetson.engines import build_engines, verify_engines
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.decode import Decoder
from orinspect.runtime.infer.engines.cuda import driver_of_this_machine
from orinspect.runtime.infer.engines.device import CudaDevice, StridedCopy
from orinspect.runtime.infer.engines.engine import engines_from_bundle
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.device_bundle import write_device_bundle

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_device_bundle(tmp_path_factory.mktemp("gpu"))


def test_the_device_copies_as_the_host_does() -> None:
    with CudaDevice(driver_of_this_machine()) as device, device.current():
        source, target, pinned = device.allocate(60), device.allocate(60), device.pinned(60)
        pinned[:] = np.arange(60)
        device.upload(source, pinned)
        device.fill_zero(target, 60)
        device.copy(StridedCopy(source + 3, 10, target + 1, 15, 4, 3))
        device.download(pinned, target)
        device.synchronise()
        assert pinned[16:20].tolist() == [13, 14, 15, 16] and pinned[0] == 0


def test_numbers_of_both_flavours_agree_with_the_cpu(bundle: Bundle) -> None:
    pytest.importorskip("torch")
    from orinspect.examples.gpu_numerics.measure import numerics

    for row in numerics(bundle, "cuda"):
        assert row.get("failed") or (row["cosine"] > 0.999 and row["relative_error"] < 0.05), row
        assert not (row["way"].startswith("torch") and "failed" in row), row


@pytest.mark.parametrize("parts", [1, 2])
def test_tensorrt_engines_answer_as_the_cpu_does(bundle: Bundle, parts: int, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    table = build_engines(bundle.path, tmp_path, parts=parts)
    assert table["in_use"] and not table["wrong"]
    assert not verify_engines(bundle.path, tmp_path)["wrong"]
    rng, shape = np.random.default_rng(5), bundle.shape
    image = rng.standard_normal((6, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = rng.standard_normal((6, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    answers, hidden = [], []
    for backend in ("onnxruntime", "tensorrt"):
        with engines_from_bundle(bundle, backend=backend, plans=tmp_path) as engine:
            decoder, head = engine("decoder"), engine(f"head_schema.{bundle.recipe_ids[0]}")
            hidden.append(decoder.run(feeds_of(shape, 2, 5, 64, [40, 33]))["hidden"])
            loop = Decoder(shape, bundle.recipe(), bundle.embeddings, decoder, head, clock=lambda: 0.0)
            answers.append([answer.ids for answer in loop.answers(image, deepstack).answers])
    left, right = (array.ravel() / np.linalg.norm(array) for array in hidden)
    assert left @ right > 0.999
    assert answers[0] == answers[1]
