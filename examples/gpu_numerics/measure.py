"""What a GPU makes of a bundle: numbers of both flavours against the CPU, speed against the byte floor.

python -m orinspect.examples.gpu_numerics.measure bundle --device cuda --float16 bundle-float16

Needs torch; `onnxruntime-gpu` for the rows of ONNX Runtime's CUDA provider, tensorrt-rtx and cuda-python for
the INT8 speed. What is not there, or does not run on this chip, is said in its row. `--device cpu` runs the
numbers alone, in torch's true float16 on the CPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from ...runtime.errors import OrinspectError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.engines.engine import FloatArray
from ...runtime.infer.engines.profile_choice import component_plans
from ...runtime.infer.golden_frames import golden_frames
from ...runtime.infer.shape import ModelShape
from ...tests.decoder_feeds import feeds_of
from .torch_graph import TorchGraph

ROUNDS = 50


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--device", default="cuda", help="cuda or cpu (%(default)s)")
    parser.add_argument("--float16", type=Path, help="the same model exported with --precision float16")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args(words)
    table = measured(arguments.bundle, arguments.device, arguments.float16)
    print(json.dumps(table, indent=1) if arguments.json else table_text(table))
    return 0


def measured(bundle_path: Path, device: str, float16: Path | None = None) -> dict[str, Any]:
    """All that can be measured here, as one table."""
    bundle = Bundle.open(bundle_path)
    table: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numerics": numerics(bundle, device),
    }
    if device == "cuda":
        table["bandwidth_gb_s"] = copy_bandwidth()
        if float16 is not None:
            table["float16"] = decoder_speed(Bundle.open(float16), table["bandwidth_gb_s"])
        table["int8"] = int8_speed(bundle, table["bandwidth_gb_s"])
    return table


def numerics(bundle: Bundle, device: str) -> list[dict[str, Any]]:
    """Every component's two graphs, by torch and by ONNX Runtime CUDA, against ONNX Runtime on the CPU.

    The reference of both flavours is the u8 graph, which the bundle's own gate has judged.
    """
    rows = []
    for component, feeds in component_feeds(bundle).items():
        expected = on_onnxruntime(bundle.graph(component), feeds, "CPUExecutionProvider")
        for flavour in ("", ".tensorrt"):
            path = bundle.path / f"{component}{flavour}.onnx"
            if not path.is_file():
                continue
            ways = {f"torch on {device}": partial(on_torch, path, feeds, device)}
            if device == "cuda":
                cuda = "CUDAExecutionProvider"
                ways["ONNX Runtime CUDA"] = partial(on_onnxruntime, path, feeds, cuda)
            for way, run in ways.items():
                rows.append({"graph": path.name, "way": way} | differences(run, expected))
    return rows


def differences(
    run: Callable[[], dict[str, FloatArray]], expected: Mapping[str, FloatArray]
) -> dict[str, Any]:
    """The worst cosine and the worst error relative to the largest value, over all outputs; or why not."""
    try:
        found = run()
    except Exception as error:  # each library has classes of its own
        return {"failed": str(error).strip().splitlines()[0][:200]}
    cosines, errors = [], []
    for name, array in expected.items():
        left, right = found[name].astype(np.float64).ravel(), array.astype(np.float64).ravel()
        lengths = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
        cosines.append(float(left @ right) / max(lengths, 1e-30))
        errors.append(float(np.abs(left - right).max() / max(np.abs(right).max(), 1e-30)))
    return {"cosine": min(cosines), "relative_error": max(errors)}


def component_feeds(bundle: Bundle) -> dict[str, dict[str, FloatArray]]:
    """Component -> inputs: the golden frames where the bundle has them, else random ones."""
    known = {frame.component: frame.feeds for frame in golden_frames(bundle)}
    for component in bundle.components:
        if component not in known:
            known[component] = random_feeds(bundle.shape, component)
    return known


def random_feeds(shape: ModelShape, component: str) -> dict[str, FloatArray]:
    """Normal values in the shapes of a component; two rows."""
    rng = np.random.default_rng(0)

    def normal(*size: int) -> FloatArray:
        return rng.standard_normal(size).astype(np.float32)

    if component == "vision":
        return {"patches": normal(2, shape.patches, shape.patch_features)}
    if component == "attributes":
        deepstack = normal(2, len(shape.deepstack), shape.tokens, shape.hidden)
        return {"image_tokens": normal(2, shape.tokens, shape.hidden), "deepstack": deepstack}
    if component == "decoder":
        return feeds_of(shape, 2, 8, 64, [40, 33])
    return {"hidden": normal(2, shape.hidden)}


def on_torch(path: Path, feeds: Mapping[str, FloatArray], device: str) -> dict[str, FloatArray]:
    """The outputs of a graph in torch, in the types that it states."""
    return TorchGraph(path, device).run(feeds)


def on_onnxruntime(path: Path, feeds: Mapping[str, FloatArray], provider: str) -> dict[str, FloatArray]:
    """The outputs of a graph on one provider; ValueError when onnxruntime does not have it."""
    if provider not in onnxruntime.get_available_providers():
        raise ValueError(f"this onnxruntime has no {provider}; pip install onnxruntime-gpu")
    session = onnxruntime.InferenceSession(str(path), providers=[provider])
    types = {
        entry.name: np.float16 if entry.type == "tensor(float16)" else np.float32
        for entry in session.get_inputs()
    }
    names = [entry.name for entry in session.get_outputs()]
    arrays = session.run(names, {name: feeds[name].astype(kind) for name, kind in types.items()})
    return {name: array.astype(np.float32) for name, array in zip(names, arrays, strict=True)}


def copy_bandwidth() -> float:
    """Bytes that the device reads and writes a second in a large copy, in GB/s."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = timed(lambda: target.copy_(source))
    return 2 * source.numel() / seconds / 1e9


def decoder_speed(bundle: Bundle, bandwidth_gb_s: float) -> dict[str, Any]:
    """One decoder pass of one row and one token in true float16, captured as a CUDA graph, and its floor."""
    graph = TorchGraph(bundle.path / "decoder.tensorrt.onnx", "cuda")
    feeds = feeds_of(bundle.shape, 1, 1, 64, [40])
    placed = {name: graph.placed(name, array) for name, array in feeds.items()}
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            graph.call(placed)
    torch.cuda.current_stream().wait_stream(stream)
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        graph.call(placed)
    seconds = timed(captured.replay)
    return speed_row(seconds, graph.weight_bytes, bandwidth_gb_s)


def int8_speed(bundle: Bundle, bandwidth_gb_s: float) -> dict[str, Any]:
    """The same pass through tensorrt_rtx, built for this chip; or the sentence that says why not."""
    from ...runtime.infer.engines.cuda import driver_of_this_machine
    from ...runtime.infer.engines.device import CudaDevice
    from ...runtime.infer.engines.tensorrt_builder import PlanOrder, plan_from_order
    from ...runtime.infer.engines.tensorrt_engine import (
        Scratch,
        TensorrtEngine,
        tensorrt_library,
        tensorrt_logger,
    )

    plan = component_plans(bundle.path)["decoder"]
    profiles = plan.profiles(None, bundle.shape.layers)
    graph = bundle.path / "decoder.tensorrt.onnx"
    said: list[str] = []
    try:
        trt = tensorrt_library("tensorrt_rtx")
        with tempfile.TemporaryDirectory() as folder, CudaDevice(driver_of_this_machine()) as device:
            place = Path(folder) / "decoder.plan"
            plan_from_order(PlanOrder("tensorrt_rtx", graph, place, profiles, None, 1 << 30), lambda *_: None)
            with device.current():
                runtime = trt.Runtime(tensorrt_logger(trt, said))
            engine = TensorrtEngine(trt, runtime, device, Scratch(device), place, said)
            engine.serve(profiles, plan.least_k)
            feeds = feeds_of(bundle.shape, 1, 1, 64, [40])
            seconds = statistics.median(_seconds(lambda: engine.run(feeds)) for _ in range(ROUNDS))
            engine.close()
    except OrinspectError as error:
        return {"failed": str(error)}
    weights = TorchGraph(graph, "cpu").weight_bytes
    return speed_row(seconds, weights, bandwidth_gb_s) | {"note": "feeds and keys go over the bus each time"}


def speed_row(seconds: float, weight_bytes: int, bandwidth_gb_s: float) -> dict[str, Any]:
    """Milliseconds a pass beside the time in which its weights can be read once."""
    floor = weight_bytes / bandwidth_gb_s / 1e9
    return {"ms": seconds * 1e3, "floor_ms": floor * 1e3, "times_floor": seconds / floor}


def timed(work: Callable[[], Any]) -> float:
    """Median seconds of a piece of work on the GPU."""
    for _ in range(3):
        work()
    found = []
    for _ in range(ROUNDS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        found.append(start.elapsed_time(end) / 1e3)
    return statistics.median(found)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table_text(table: Mapping[str, Any]) -> str:
    """The table as markdown."""
    lines = [
        f"{table['device']}, torch {table['torch']}, onnxruntime {table['onnxruntime']}",
        "",
        "| graph | run by | worst cosine | worst error / largest value |",
        "| --- | --- | ---: | ---: |",
    ]
    for row in table["numerics"]:
        result = row.get("failed") or f"{row['cosine']:.6f} | {row['relative_error']:.2e}"
        lines.append(f"| {row['graph']} | {row['way']} | {result} |")
    for name in ("float16", "int8"):
        if name in table:
            row = table[name]
            said = row.get("failed") or (
                f"{row['ms']:.2f} ms a pass, floor {row['floor_ms']:.2f} ms, {row['times_floor']:.1f} x"
            )
            lines += ["", f"{name}: {said}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
