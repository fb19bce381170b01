"""Which linears of a plan run in INT8, counted in TensorRT's own description of its layers.

The engine inspector gives JSON, `{"Layers": [{"Name", "LayerType", "Inputs", ..., "Metadata"}]}`, where a
tensor's type is `"Format/Datatype": "Row major Int8 format"` in TensorRT 10 and `"Datatype": "Int8"` later; a
builder of tensorrt_rtx says the same as text. ONNX nodes stand in `Metadata` as `[ONNX Layer: name]`. Layers
of profile n > 0 carry the mark `[profile n]`, or belong to a piece `_myl<p>_<i>` whose other layers do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import EngineError

_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_PIECE = re.compile(r"_myl(\d+)_\d+$")
_LINE = re.compile(r"^Name: (.*?), LayerType: (\w+), Inputs: \[(.*?)\], (?:Constants|Outputs): (.*)$")
_DECODER_LAYER = re.compile(r"^layers\.(\d+)\.")
_MULTIPLIES = ("gemm", "matmul", "matrixmultiply", "matrix_multiply", "conv", "fullyconnected")


@dataclass(frozen=True)
class PlanLayer:
    """One layer of a plan: its name and kind, whether an input is INT8, and all that is said of it."""

    name: str
    kind: str
    is_int8: bool
    nodes: tuple[str, ...]
    marks: tuple[int, ...]

    @property
    def is_int8_gemm(self) -> bool:
        """Whether it multiplies INT8 matrices."""
        return self.is_int8 and any(word in self.kind.lower() for word in _MULTIPLIES)


@dataclass(frozen=True)
class Int8Count:
    """One profile of one plan: how many of its intended linears run in INT8, and which do not."""

    profile: str
    intended: int
    in_float: tuple[str, ...]

    @property
    def int8(self) -> int:
        """Linears that run as Int8 GEMMs."""
        return self.intended - len(self.in_float)


def layers_from_json(text: str) -> tuple[PlanLayer, ...]:
    """The layers of `EngineInspector.get_engine_information`; EngineError when there are none in it."""
    try:
        entries = json.loads(text)["Layers"]
        return tuple(_layer_from_entry(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EngineError(
            f"the engine inspector's answer is not understood ({error!r}); were the engines built by another "
            "program? run: orinspect engines build BUNDLE"
        ) from error


def layers_from_text(text: str) -> tuple[PlanLayer, ...]:
    """The layers of the last `Layers:` message of a tensorrt_rtx builder."""
    message = text[text.rfind("Layers:") :]
    found = []
    for match in filter(None, map(_LINE.match, message.splitlines())):
        name, kind, inputs, rest = match.groups()
        found.append(_layer(name, kind, re.findall(r"Datatype: (\w+)", inputs), f"{name} {inputs} {rest}"))
    return tuple(found)


def int8_counts(
    layers: Sequence[PlanLayer], profiles: Sequence[str], intended: Collection[str]
) -> tuple[Int8Count, ...]:
    """For every profile, by name in the plan's order, the intended linears that are Int8 GEMMs in it."""
    of_profile = _profiles(layers)
    counts = []
    for index, name in enumerate(profiles):
        here = [layer for layer, profile in zip(layers, of_profile, strict=True) if profile == index]
        in_int8 = {node for layer in here if layer.is_int8_gemm for node in layer.nodes}
        lost = tuple(linear for linear in intended if linear not in in_int8)
        counts.append(Int8Count(name, len(intended), lost))
    return tuple(counts)


def linears_of_part(linears: Iterable[str], layers: Sequence[int], part: int) -> tuple[str, ...]:
    """The linears of part `part` of a decoder whose parts hold `layers` layers each; all, when not cut."""
    first = sum(layers[:part])
    own = range(first, first + layers[part]) if layers else None
    found = []
    for linear in linears:
        layer = _DECODER_LAYER.match(linear)
        if own is None or layer is None or int(layer[1]) in own:
            found.append(linear)
    return tuple(found)


def _profiles(layers: Sequence[PlanLayer]) -> list[int]:
    """The profile of each layer: its own mark, else that of its piece, else the first."""
    of_piece: dict[str, int] = {}
    for layer in layers:
        piece = _PIECE.search(layer.name)
        if piece and layer.marks:
            of_piece[piece[1]] = layer.marks[0]
    found = []
    for layer in layers:
        named, piece = _PROFILE.search(layer.name), _PIECE.search(layer.name)
        found.append(int(named[1]) if named else of_piece.get(piece[1], 0) if piece else 0)
    return found


def _layer_from_entry(entry: dict[str, Any]) -> PlanLayer:
    keys = ("Datatype", "Format/Datatype")
    types = [str(tensor.get(key, "")) for tensor in entry.get("Inputs", []) for key in keys]
    return _layer(str(entry["Name"]), str(entry["LayerType"]), types, json.dumps(entry, ensure_ascii=False))


def _layer(name: str, kind: str, types: Iterable[str], whole: str) -> PlanLayer:
    is_int8 = any("int8" in text.lower() for text in types)
    marks = tuple(map(int, _PROFILE.findall(whole)))
    # TensorRT names a layer that it did not fuse after its node; Metadata lists the nodes of a fused one.
    plain = re.sub(r"( \[profile \d+\])?(_myl\d+_\d+)?$", "", name)
    return PlanLayer(name, kind, is_int8, (*_NODE.findall(whole), plain), marks)
