"""A bundle with real INT8 TensorRT graphs of a small random checkpoint, every linear per row: it needs no
calibration. Real graphs, real profiles, no sense.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.linears import linears_of
from orinspect.export.bundle import write_manifest
from orinspect.export.golden import write_golden_frame
from orinspect.export.int8 import int8_to_files
from orinspect.export.tensorrt.files import write_tensorrt_files
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.small_bundle import write_small_bundle
from orinspect.tests.tiny_checkpoint import TinySizes


def write_device_bundle(
    folder: Path, *, sizes: TinySizes | None = None, seed: int = 0, golden: bool = False
) -> Bundle:
    """A bundle in `folder`/device, of the shipped recipe; with golden frames of random inputs on request."""
    small = write_small_bundle(folder, sizes=sizes, seed=seed)
    out = folder / "device"
    shutil.copytree(small.path, out)
    (out / "manifest.json").unlink()
    names = [path.stem for path in sorted(out.glob("*.onnx"))]
    for name in names:
        path = small.path / f"{name}.onnx"
        choices = [
            LinearChoice(
                one.name, one.input, "per_row", None, None, None, 0.0, 1, one.in_features, one.out_features
            )
            for one in linears_of(onnx.load(str(path)))
        ]
        int8_to_files(path, choices, out, name)
    write_tensorrt_files(out, small.shape, [small.recipe()], names)
    kept = {
        key: value
        for key, value in small.manifest.items()
        if key not in ("schema", "files", "manifest_sha256")
    }
    frames = {"golden": golden_frames_of(out, small)} if golden else {}
    write_manifest(out, {**kept, **frames, "precision": "int8"})
    return Bundle.open(out)


def golden_frames_of(folder: Path, small: Bundle) -> dict[str, Any]:
    """Frames of the attributes and the decoder; the float bundle `small` gives the exact outputs."""
    rng, shape = np.random.default_rng(4), small.shape

    def exact(component: str, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        with OnnxruntimeEngine(small.graph(component), threads=1) as engine:
            return engine.run(dict(feeds))

    features = rng.standard_normal((2, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32)
    feeds = {
        "attributes": {"image_tokens": features[:, 0].copy(), "deepstack": features},
        "decoder": feeds_of(shape, 2, 30, 9, [9, 9]),  # longer than any profile, as a real frame is
    }
    return {name: write_golden_frame(folder, name, feed, exact, threads=1)[0] for name, feed in feeds.items()}
