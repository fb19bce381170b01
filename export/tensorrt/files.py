"""The TensorRT side of a bundle: every graph held against the rules, the decoder cut for small boards,
`tensorrt.json` with profiles and linears.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import onnx

from ...calibration.blocks import decoder_part
from ...runtime.errors import CheckpointError
from ...runtime.infer.bundle import CompiledRecipe
from ...runtime.infer.shape import ModelShape
from .lint import lint
from .profiles import FILE_NAME, part_files, part_layers, profiles_for

DECODER = "decoder"
PARTS = (1, 2, 4)
"""The ways in which a board may build the decoder: whole, or as groups of layers."""


def write_tensorrt_files(
    folder: Path, shape: ModelShape, recipes: Sequence[CompiledRecipe], components: Sequence[str]
) -> None:
    """Check `<component>.tensorrt.onnx` of each component in `folder`, and write what belongs to them.

    A decoder part is a graph of a few MB over the same file of weights. CheckpointError when TensorRT would
    refuse a graph or run it otherwise than meant: then the writer is at fault, and the node is named.
    """
    graphs = {
        name: onnx.load(str(folder / part_files(name, 1)[0]), load_external_data=False) for name in components
    }
    for name, graph in graphs.items():
        _check(graph, part_files(name, 1)[0], folder)
    ways = [count for count in PARTS if count <= shape.layers]
    for count in ways:
        if count > 1:
            _write_parts(folder, graphs[DECODER], shape, count)
    table = profiles_for(shape, recipes, graphs, parts=ways)
    (folder / FILE_NAME).write_text(json.dumps(table), encoding="utf-8")


def _write_parts(folder: Path, decoder: onnx.ModelProto, shape: ModelShape, count: int) -> None:
    first = 0
    for file, layers in zip(part_files(DECODER, count), part_layers(shape.layers, count), strict=True):
        part = decoder_part(decoder, shape, first, first + layers)
        _check(part, file, folder)
        (folder / file).write_bytes(part.SerializeToString())
        first += layers


def _check(graph: onnx.ModelProto, file: str, folder: Path) -> None:
    findings = lint(graph, folder=folder)
    if findings:
        raise CheckpointError(
            f"{file} breaks {len(findings)} rules of TensorRT, the first at {findings[0]};"
            " this is a fault of orinspect, please report it"
        )
