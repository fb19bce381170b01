"""A component's graph cut at its residual stream, so that one decoder layer or encoder block fits in memory.

The naming rule of `export/graph` says where: nodes of decoder layer i are called `layers.<i>.…`, of encoder
block i `blocks.<i>.…`. Every other node that depends on a layer (final norm, mergers) goes with the last
layer that it needs; what depends on none (mask, rope, split past) is repeated wherever it is read. A graph
without such names is one block. INT8 and TensorRT flavours keep the names, so they are cut the same way.

Models are handled without their external data: a block's initialisers still point into `folder`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..runtime.errors import CheckpointError
from ..runtime.infer.shape import ModelShape
from .sessions import Array

STREAM_IN, STREAM_OUT = "embeds", "hidden"
"""The residual stream at both ends of a decoder part: named as the ends of the whole decoder."""

_PAST, NEW_ROWS = "past_kv", "new_kv"
_LAYER = re.compile(r"(layers|blocks)\.(\d+)\.")
_SHARED = -1  # place of what depends on no layer
_SMALL_BYTES = 4096  # constants up to here may hold a shape


@dataclass(frozen=True)
class Block:
    """One layer's graph. `inputs` and `outputs` are those of the component that it has; the residual stream
    comes in as `stream_in` (None: the first block makes it) and leaves as `stream_out` (None: the last).

    `carried_in` are other values that it reads from earlier blocks, `carried_out` those that later blocks
    still need when it is done, its own or not (DeepStack features on their way to the joined output).
    `layers` (first, last) is set in a decoder: this past_kv and new_kv hold layers first..last-1 alone.
    """

    name: str
    model: onnx.ModelProto
    folder: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stream_in: str | None
    stream_out: str | None
    carried_in: tuple[str, ...] = ()
    carried_out: tuple[str, ...] = ()
    layers: tuple[int, int] | None = None

    def feed(self, inputs: Mapping[str, Array], passed: Mapping[str, Array]) -> dict[str, Array]:
        """This block's own inputs, from the component's and from what the block before passed on."""
        own = {name: inputs[name] for name in self.inputs}
        if self.layers is not None:
            own[_PAST] = np.ascontiguousarray(inputs[_PAST][:, slice(*self.layers)])
        if self.stream_in is not None:
            own[self.stream_in] = passed[STREAM_OUT if self.layers is not None else self.stream_in]
        return own | {name: passed[name] for name in self.carried_in}

    def passed_on(self, results: Mapping[str, Array], passed: Mapping[str, Array]) -> dict[str, Array]:
        """What the next block may read: this block's stream and every value that is still needed."""
        stream = [] if self.stream_out is None else [self.stream_out]
        return {
            name: results[name] if name in results else passed[name] for name in (*stream, *self.carried_out)
        }


def blocks_from_graph(path: Path) -> tuple[Block, ...]:
    """The blocks of the graph at `path`, in order; CheckpointError where two layers are joined by more than
    one value, for then there is no residual stream.
    """
    return blocks_from_model(onnx.load(str(path), load_external_data=False), path.parent)


def blocks_from_model(model: onnx.ModelProto, folder: Path) -> tuple[Block, ...]:
    """`blocks_from_graph` of a model in memory whose external data, if any, lies in `folder`."""
    cut = _Cut(model)
    if cut.count < 2:
        inputs, outputs = (tuple(v.name for v in side) for side in (model.graph.input, model.graph.output))
        return (Block(model.graph.name, model, folder, inputs, outputs, None, None),)
    cut_out = _decoder_block if _is_decoder(model) else _plain_block
    return tuple(cut_out(cut, folder, index) for index in range(cut.count))


def decoder_part(model: onnx.ModelProto, shape: ModelShape, first: int, last: int) -> onnx.ModelProto:
    """Decoder layers first..last-1 as a graph of their own, for a decoder of any flavour.

    In: embeds [B, K, H] (the stream), deepstack [B, D, K, H] only where a layer of the part takes it, cos and
    sin [B, K, hd], past_kv [B, last - first, 2, Hkv, P, hd], mask [B, K, P + K]. Out: hidden [B, K, H] (after
    the final norm in the last part alone), new_kv [B, last - first, 2, Hkv, K, hd]. External data stays where
    it is, in the folder of the whole graph.
    """
    if not _is_decoder(model):
        raise CheckpointError(f"graph {model.graph.name} has no input {_PAST}: it is no decoder")
    if not 0 <= first < last <= shape.layers:
        raise CheckpointError(f"a decoder part holds layers within 0..{shape.layers}; got {first}..{last}")
    cut = _Cut(model)
    if cut.count != shape.layers:
        raise CheckpointError(
            f"graph {model.graph.name} has {cut.count} layers, the model's shape says {shape.layers}"
        )
    return _decoder_layers(cut, first, last)


class _Cut:
    """Where each node of a model belongs, and which value joins each two layers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.given = {value.name: value for value in model.graph.input}
        self.wanted = {value.name: value for value in model.graph.output}
        self.kind = ""  # layers or blocks
        self._producer = {name: at for at, node in enumerate(self.nodes) for name in node.output if name}
        self._place_of: dict[str, int] = {}  # value -> layer that makes it
        self._places: list[int] = []
        self._is_named: list[bool] = []
        self._shapes: dict[str, onnx.ValueInfoProto] | None = None
        for node in self.nodes:
            self._add(node)
        self.count = max(self._places, default=_SHARED) + 1
        self.streams = [self._stream(index) for index in range(self.count - 1)]

    def _add(self, node: onnx.NodeProto) -> None:
        inherited = max((self.place(name) for name in node.input), default=_SHARED)
        match = _LAYER.match(node.name)
        place = int(match[2]) if match else inherited
        if place < inherited:
            raise CheckpointError(
                f"{node.name} reads a value of layer {inherited}: layers must follow in order"
            )
        self.kind = match[1] if match else self.kind
        self._places.append(place)
        self._is_named.append(match is not None)
        self._place_of |= dict.fromkeys(node.output, place)

    def place(self, value: str) -> int:
        """The layer that makes `value`; _SHARED for inputs, initialisers and what depends on no layer."""
        return self._place_of.get(value, _SHARED)

    def read_after(self, index: int) -> list[str]:
        """Values of layers up to `index` that nodes of later layers read, in the order they are made."""
        later = {
            name
            for node, place in zip(self.nodes, self._places, strict=True)
            if place > index
            for name in node.input
            if _SHARED < self.place(name) <= index
        }
        return sorted(later, key=self._producer.__getitem__)

    def shapes(self) -> dict[str, onnx.ValueInfoProto]:
        """Value -> type and shape, inferred once."""
        if self._shapes is None:
            self._shapes = _inferred_shapes(self.model)
        return self._shapes

    def _stream(self, index: int) -> str:
        """The one value that layer index + 1 itself takes from the layers before it."""
        joining: set[str] = {
            name
            for node, place, is_named in zip(self.nodes, self._places, self._is_named, strict=True)
            if is_named and place == index + 1
            for name in node.input
            if _SHARED < self.place(name) <= index
        }
        if len(joining) != 1:
            found = ", ".join(sorted(joining)[:4]) or "none"
            raise CheckpointError(
                f"graph {self.model.graph.name}: layer {index + 1} must take one value from the layers before"
                f" it, the residual stream; found {len(joining)} ({found})"
            )
        return joining.pop()

    def layer_nodes(self, first: int, last: int) -> list[onnx.NodeProto]:
        """Copies of the nodes of layers first..last-1 and of the shared nodes that they read, in order."""
        chosen = {at for at, place in enumerate(self._places) if first <= place < last}
        waiting = [name for at in chosen for name in self.nodes[at].input]
        while waiting:
            at = self._producer.get(waiting.pop(), -1)
            if at >= 0 and at not in chosen and self._places[at] == _SHARED:
                chosen.add(at)
                waiting += self.nodes[at].input
        copies = []
        for at in sorted(chosen):
            copy = onnx.NodeProto()
            copy.CopyFrom(self.nodes[at])
            copies.append(copy)
        return copies


def _plain_block(cut: _Cut, folder: Path, index: int) -> Block:
    """A block whose stream keeps its name."""
    nodes = cut.layer_nodes(index, index + 1)
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input} - made
    stream_in = cut.streams[index - 1] if index else None
    stream_out = cut.streams[index] if index + 1 < cut.count else None
    carried_out = tuple(name for name in cut.read_after(index) if name != stream_out)
    carried_in = tuple(name for name in cut.read_after(index - 1) if name in read and name != stream_in)
    inputs = tuple(name for name in cut.given if name in read)
    outputs = tuple(name for name in cut.wanted if name in made)
    shapes = cut.shapes()
    ins = [cut.given[name] for name in inputs]
    ins += [shapes[name] for name in (stream_in, *carried_in) if name is not None]
    outs = [cut.wanted[name] for name in outputs]
    outs += [shapes[name] for name in (stream_out, *carried_out) if name is not None and name in made]
    name = f"{cut.kind}.{index}"
    model = _extracted(cut.model, name, nodes, ins, outs)
    return Block(name, model, folder, inputs, outputs, stream_in, stream_out, carried_in, carried_out)


def _decoder_block(cut: _Cut, folder: Path, index: int) -> Block:
    model = _decoder_layers(cut, index, index + 1)
    is_first, is_last = index == 0, index + 1 == cut.count
    inputs = tuple(value.name for value in model.graph.input if is_first or value.name != STREAM_IN)
    outputs = tuple(value.name for value in model.graph.output if is_last or value.name != STREAM_OUT)
    return Block(
        f"{cut.kind}.{index}",
        model,
        folder,
        inputs,
        outputs,
        None if is_first else STREAM_IN,
        None if is_last else STREAM_OUT,
        layers=(index, index + 1),
    )


def _is_decoder(model: onnx.ModelProto) -> bool:
    return any(value.name == _PAST for value in model.graph.input)


def _decoder_layers(cut: _Cut, first: int, last: int) -> onnx.ModelProto:
    """Layers first..last-1: the stream renamed at both ends, past and new rows of these layers alone."""
    tail = _new_rows_tail(cut)
    names = {node.name for node in tail}
    nodes = [node for node in cut.layer_nodes(first, last) if node.name not in names]
    if first > 0:
        for node in nodes:
            node.input[:] = [STREAM_IN if name == cut.streams[first - 1] else name for name in node.input]
    if last < cut.count:
        nodes.append(
            helper.make_node("Identity", [cut.streams[last - 1]], [STREAM_OUT], name=f"output.{STREAM_OUT}")
        )
    nodes += tail
    for node in nodes:
        if node.name == "past.parts":
            node.output[:] = node.output[2 * first : 2 * last]
        elif node.name == f"{NEW_ROWS}.joined":
            node.input[:] = node.input[2 * first : 2 * last]
    read = {name for node in nodes for name in node.input}
    ends = {name: _with_layers(value, last - first) for name, value in (cut.given | cut.wanted).items()}
    stream = onnx.ValueInfoProto()
    stream.CopyFrom(cut.given[STREAM_IN])
    stream.name = STREAM_OUT
    ends[STREAM_OUT] = cut.wanted[STREAM_OUT] if last == cut.count else stream
    inputs = [ends[name] for name in cut.given if name in read]
    name = cut.model.graph.name if last - first == cut.count else f"{cut.model.graph.name}.{first}to{last}"
    model = _extracted(cut.model, name, nodes, inputs, [ends[name] for name in cut.wanted])
    _narrow(model, "past.flat", cut.count, last - first)
    _narrow(model, f"{NEW_ROWS}.rows", cut.count, last - first)
    return model


def _new_rows_tail(cut: _Cut) -> list[onnx.NodeProto]:
    """Copies of the nodes from the Concat of all layers' new keys and values to the output new_kv."""
    tail: list[onnx.NodeProto] = []
    made: set[str] = set()
    for node in cut.nodes:
        if node.name == f"{NEW_ROWS}.joined" or made.intersection(node.input):
            tail.append(onnx.NodeProto())
            tail[-1].CopyFrom(node)
            made.update(node.output)
    if NEW_ROWS not in made or len(tail[0].input) != 2 * cut.count:
        raise CheckpointError(
            f"graph {cut.model.graph.name}: {NEW_ROWS} must come from one Concat {NEW_ROWS}.joined of"
            f" {2 * cut.count} values, a key and a value of each layer; found"
            f" {len(tail[0].input) if tail else 'none'}"
        )
    return tail


def _narrow(model: onnx.ModelProto, name: str, layers: int, kept: int) -> None:
    """Give the Reshape `name` the shape for `kept` of `layers` layers; they are counted on axis 1."""
    node = next((node for node in model.graph.node if node.name == name and node.op_type == "Reshape"), None)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    if node is None or node.input[1] not in tensors:
        raise CheckpointError(f"graph {model.graph.name} has no Reshape {name} with a constant shape")
    shape = numpy_helper.to_array(tensors[node.input[1]]).copy()
    shape[1] = shape[1] // layers * kept
    constant = f"{name}.shape"
    node.input[1] = constant
    model.graph.initializer.append(numpy_helper.from_array(shape, constant))


def _with_layers(value: onnx.ValueInfoProto, layers: int) -> onnx.ValueInfoProto:
    """A graph input or output; of past and new rows a copy with `layers` on axis 1."""
    if value.name not in (_PAST, NEW_ROWS):
        return value
    copy = onnx.ValueInfoProto()
    copy.CopyFrom(value)
    copy.type.tensor_type.shape.dim[1].dim_value = layers
    return copy


def _extracted(
    model: onnx.ModelProto,
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
) -> onnx.ModelProto:
    """A model of `nodes` with the initialisers that they read."""
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    graph = helper.make_graph(nodes, name, list(inputs), list(outputs), tensors)
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
    )


def _inferred_shapes(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Value -> its inferred type and shape. Weights are left out: only their dimensions matter."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    inferred = onnx.shape_inference.infer_shapes(light).graph
    return {value.name: value for value in (*inferred.value_info, *inferred.output)}
