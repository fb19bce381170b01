"""A bundle with real INT8 TensorRT graphs of a small random checkpoint, every linear per row: it needs no
calibration. Real graphs, real profiles, no sense.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.linears import linears_of
from orinspect.export.bundle import write_manifest
from orinspect.export.int8 import int8_to_files
from orinspect.export.tensorrt.files import write_tensorrt_files
from orinspect.runtime.infer.bundle import Bundle
from orinspect.tests.small_bundle import write_small_bundle
from orinspect.tests.tiny_checkpoint import TinySizes


def write_device_bundle(folder: Path, *, sizes: TinySizes | None = None, seed: int = 0) -> Bundle:
    """A bundle in `folder`/device, of the shipped recipe."""
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
    write_manifest(out, {**kept, "precision": "int8"})
    return Bundle.open(out)
