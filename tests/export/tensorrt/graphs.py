"""The TensorRT graphs of a checkpoint without calibrating anything: every mode of a linear, in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from orinspect.calibration.choice import LinearChoice, Mode
from orinspect.calibration.linears import Linear, linears_of
from orinspect.export.graph.graphs import GraphFiles, graphs_from_checkpoint
from orinspect.export.int8 import ComponentFiles, float16_to_files, int8_to_files
from orinspect.runtime.infer.shape import ModelShape
from orinspect.tests.tiny_checkpoint import TinySizes

STATIC, PER_ROW = "static", "per_row"
SMOOTHED_STATIC, SMOOTHED_PER_ROW, FLOAT = "smoothed static", "smoothed per_row", "float"
MODES = (STATIC, PER_ROW, SMOOTHED_STATIC, SMOOTHED_PER_ROW, FLOAT)
INT8_MODES = MODES[:-1]

TWO_LAYERS_OF_2B = TinySizes(
    hidden=2048,
    layers=2,
    heads=16,
    kv_heads=8,
    head_dim=128,
    intermediate=6144,
    mrope_section=(24, 20, 20),
    rope_theta=5e6,
    vision_hidden=1024,
    vision_depth=2,
    vision_heads=16,
    vision_intermediate=4096,
    position_side=48,
    deepstack=(0,),
)
"""Two decoder layers and two vision blocks of a Qwen3-VL-2B."""


def tensorrt_graphs(
    checkpoint: Path,
    out: Path,
    modes: Sequence[str] = MODES,
    *,
    tile_px: int = 128,
    kept_ids: Sequence[int] | npt.NDArray[np.int64] | None = None,
) -> tuple[ModelShape, dict[str, ComponentFiles]]:
    """Float and INT8 graphs of `checkpoint` below `out`; component -> files."""
    files = graphs_from_checkpoint(checkpoint, out / "float", tile_px=tile_px, kept_ids=kept_ids)
    return files.shape, quantised(files, out / "int8", modes)


def quantised(files: GraphFiles, place: Path, modes: Sequence[str]) -> dict[str, ComponentFiles]:
    """INT8 graphs of all components in `place`, or float16 ones for the modes ("float",).

    The inputs of a component's linears take `modes` in turns. Scales are invented: what a graph computes
    makes no sense, what it is made of does.
    """
    paths = {"vision": files.vision, "decoder": files.decoder, "head_schema": files.head_schema}
    if files.attributes is not None:
        paths["attributes"] = files.attributes
    place.mkdir(parents=True, exist_ok=True)
    written = {}
    for name, path in paths.items():
        if tuple(modes) == (FLOAT,):
            written[name] = float16_to_files(path, place, name)
            continue
        linears = linears_of(onnx.load(str(path), load_external_data=False))
        written[name] = int8_to_files(path, invented_choices(linears, modes), place, name)
    return written


def invented_choices(linears: Sequence[Linear], modes: Sequence[str]) -> list[LinearChoice]:
    """A choice for every linear; those that read one tensor share it, smoothing included."""
    draw = np.random.default_rng(0)
    of_input: dict[str, tuple[str, npt.NDArray[np.float32]]] = {}
    choices = []
    for linear in linears:
        if linear.input not in of_input:
            smoothing = draw.uniform(0.5, 2, linear.in_features).astype(np.float32)
            of_input[linear.input] = modes[len(of_input) % len(modes)], smoothing
        name, smoothing = of_input[linear.input]
        is_smoothed = name.startswith("smoothed")
        mode: Mode = "float" if name == FLOAT else "static" if name.endswith(STATIC) else "per_row"
        choices.append(
            LinearChoice(
                linear.name,
                linear.input,
                mode,
                clip=4.0 if mode == "static" else None,
                clip_from="abs_max" if mode == "static" else None,
                error_static=0.01,
                error_per_row=0.01,
                rows=64,
                in_features=linear.in_features,
                out_features=linear.out_features,
                alpha=0.5 if is_smoothed else None,
                smoothing=smoothing if is_smoothed else None,
            )
        )
    return choices
