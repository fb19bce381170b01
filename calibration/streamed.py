"""A component whose float weights do not fit in memory, run block by block from its one file.

A block's session is opened without packed copies of its weights, which then stay pages of the mapped file:
opening costs milliseconds and memory that the system may take back. Slow for single tokens, right for large
batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import onnx

from ..runtime.errors import EngineError
from ..runtime.infer.engines.engine import Dimensions, FloatArray
from .blocks import Block, blocks_from_model
from .sessions import Array, Session


class StreamedEngine:
    """Fills the runtime's Engine Protocol for the float or INT8 graph at `path`; one block in memory."""

    def __init__(self, path: Path, *, threads: int = 2) -> None:
        """Read the graph without its weights; EngineError when it is missing."""
        if not path.is_file():
            raise EngineError(f"{path} does not exist; export the bundle again")
        model = onnx.load(str(path), load_external_data=False)
        self._name, self._threads = path.name, threads
        self._blocks: tuple[Block, ...] = blocks_from_model(model, path.parent)
        self._inputs = {value.name: _dimensions(value) for value in model.graph.input}
        self._outputs = {value.name: _dimensions(value) for value in model.graph.output}

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every input."""
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        """Name -> dimensions of every output."""
        return self._outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """All outputs for these inputs; EngineError names a feed that is missing or unknown."""
        if not self._blocks:
            raise EngineError(f"{self._name} was closed; open it again")
        if set(feeds) != set(self._inputs):
            raise EngineError(f"{self._name} takes {sorted(self._inputs)}, got {sorted(feeds)}")
        passed: dict[str, Array] = {}
        found: dict[str, list[Array]] = {}
        for block in self._blocks:
            with session_of(block, threads=self._threads, prepack=False) as session:
                results = session.run(block.feed(feeds, passed))
            passed = block.passed_on(results, passed)
            for name in block.outputs:
                found.setdefault(name, []).append(results[name])
        # every output comes from one block but a decoder's new rows, of which each layer makes its own
        return {name: np.concatenate(found[name], axis=1) for name in self._outputs}

    def close(self) -> None:
        """Forget the graph."""
        self._blocks = ()

    def __enter__(self) -> StreamedEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def session_of(block: Block, *, threads: int, prepack: bool = True) -> Session:
    """A session over one block; its external data is read where it lies."""
    return Session(block.model.SerializeToString(), folder=block.folder, threads=threads, prepack=prepack)


def _dimensions(value: onnx.ValueInfoProto) -> Dimensions:
    sizes = value.type.tensor_type.shape.dim
    return tuple(size.dim_value if size.HasField("dim_value") else size.dim_param for size in sizes)
