"""As much of the tensorrt module as the engine uses, with ONNX Runtime under it.

A "plan" is the path of an ONNX graph and its profiles. A context reads its inputs at the device addresses
that it was given and writes its outputs there, so the numbers that come out went through every copy, type and
shape of TensorrtEngine. It refuses what TensorRT refuses: a shape outside the profile, a missing address,
scratch memory that is too small. That the names are TensorRT's is for test_bindings.py to say.
"""

from __future__ import annotations

import ctypes
import enum
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from orinspect.runtime.infer.engines.profile_choice import Profile

__version__ = "10.3.0"
SCRATCH_BYTES = 4096


class DataType(enum.Enum):
    """Types of tensors."""

    FLOAT = 0
    HALF = 1
    INT32 = 2


class TensorIOMode(enum.Enum):
    """Which way a tensor goes."""

    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(enum.Enum):
    """Who brings the scratch memory."""

    STATIC = 0
    USER_MANAGED = 2


class LayerInformationFormat(enum.Enum):
    """How the inspector answers."""

    ONELINE = 0
    JSON = 1


class ILogger:
    """Base of a logger."""

    class Severity(enum.Enum):
        """How bad it is."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3


def plan_bytes(graph: Path, profiles: Sequence[Profile]) -> bytes:
    """What `Runtime.deserialize_cuda_engine` reads."""
    ranges = [
        {name: [list(known.least), list(known.most)] for name, known in profile.inputs.items()}
        for profile in profiles
    ]
    return json.dumps({"graph": str(graph), "profiles": ranges}).encode()


class Runtime:
    """Loads plans."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, pages: Any) -> Engine | None:
        """The engine, or None and a word to the logger."""
        try:
            return Engine(json.loads(bytes(pages)))
        except ValueError:
            self._logger.log(ILogger.Severity.ERROR, "Serialization assertion magicTag failed\nand more")
            return None


class Engine:
    """An ONNX Runtime session that looks like an ICudaEngine."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.graph = plan["graph"]
        self.session = onnxruntime.InferenceSession(self.graph, providers=["CPUExecutionProvider"])
        self.profiles = plan["profiles"]
        self.is_input = {entry.name: True for entry in self.session.get_inputs()}
        self.is_input |= {entry.name: False for entry in self.session.get_outputs()}
        self.entries = {
            entry.name: entry for entry in (*self.session.get_inputs(), *self.session.get_outputs())
        }
        self.num_io_tensors = len(self.entries)
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        """Of all inputs and outputs."""
        return str(list(self.entries)[index])

    def get_tensor_dtype(self, name: str) -> DataType:
        """As the graph has it."""
        known = {"tensor(float)": DataType.FLOAT, "tensor(float16)": DataType.HALF}
        return known.get(self.entries[name].type, DataType.INT32)

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Input or output."""
        return TensorIOMode.INPUT if self.is_input[name] else TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """-1 where it is open."""
        return tuple(size if isinstance(size, int) else -1 for size in self.entries[name].shape)

    def get_device_memory_size_for_profile_v2(self, index: int) -> int:
        """More for every further profile."""
        return SCRATCH_BYTES * (index + 1)

    def create_engine_inspector(self) -> Inspector:
        """Says what runs in INT8."""
        return Inspector(self)

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> Context:
        """A context without memory of its own."""
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        return Context(self)


class Inspector:
    """Describes every MatMul of the graph in every profile, in the words of TensorRT 10.

    INT8 where its weight comes through a DequantizeLinear; FLOAT_LINEARS run in float in spite of it.
    """

    FLOAT_LINEARS: tuple[str, ...] = ()

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get_engine_information(self, kind: LayerInformationFormat) -> str:
        """The layers as JSON."""
        assert kind is LayerInformationFormat.JSON
        model = onnx.load(self._engine.graph, load_external_data=False)
        quantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        layers = []
        for index in range(len(self._engine.profiles)):
            mark = f" [profile {index}]" if index else ""
            for number, node in enumerate(node for node in model.graph.node if node.op_type == "MatMul"):
                is_int8 = node.input[1] in quantised and node.name not in self.FLOAT_LINEARS
                words = "Row major Int8 format" if is_int8 else "Row major linear FP16 format"
                layers.append(
                    {
                        "Name": f"{node.name}{mark}_myl{index}_{number}",
                        "LayerType": "gemm",
                        "Inputs": [{"Name": node.input[0], "Format/Datatype": words}],
                        "Metadata": f"[ONNX Layer: {node.name}]",
                    }
                )
        return json.dumps({"Layers": layers})


class Context:
    """What TensorRT asks of a caller before it runs, asked here as well."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._profile = -1
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        """Choose the shapes that are taken."""
        self._profile = index
        return stream != 0 and index < len(self._engine.profiles)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """False outside the profile."""
        least, most = self._engine.profiles[self._profile][name]
        self._shapes[name] = tuple(shape)
        return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        """Where a tensor lies."""
        self._addresses[name] = pointer
        return pointer % 256 == 0 and pointer != 0

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Of an output, from the shapes of the inputs."""
        sizes: dict[str, int] = {}
        for entry in self._engine.session.get_inputs():
            for size, value in zip(entry.shape, self._shapes[entry.name], strict=True):
                assert sizes.setdefault(str(size), value) == value, (entry.name, size)
        return tuple(sizes.get(str(size), size) for size in self._engine.entries[name].shape)

    def set_device_memory(self, pointer: int, size: int) -> None:
        """Scratch for the call."""
        self._scratch = size if pointer else 0

    def execute_async_v3(self, stream: int) -> bool:
        """Run, at once."""
        engine = self._engine
        assert set(self._addresses) == set(engine.entries), "a tensor has no address"
        if self._scratch < engine.get_device_memory_size_for_profile_v2(self._profile) or not stream:
            return False
        feeds = {
            entry.name: self._at(entry.name, self._shapes[entry.name])
            for entry in engine.session.get_inputs()
        }
        names = [entry.name for entry in engine.session.get_outputs()]
        for name, array in zip(names, engine.session.run(names, feeds), strict=True):
            self._at(name, array.shape)[...] = array
        return True

    def _at(self, name: str, shape: tuple[int, ...]) -> Any:
        kind = np.dtype(np.float16 if self._engine.get_tensor_dtype(name) is DataType.HALF else np.float32)
        size = int(np.prod(shape)) * kind.itemsize
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self._addresses[name]))
        return memory.view(kind).reshape(shape)
