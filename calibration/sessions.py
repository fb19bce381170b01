"""ONNX Runtime for calibration and the accuracy gate: the owner file of onnxruntime in this room.

On a CPU that adds two products of u8 x s8 in 16 bits and saturates (without VNNI) every session asks for
exact sums, as the device's engine does: its INT8 results would differ from every other machine's.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..runtime.errors import EngineError
from ..runtime.infer.engines.onnxruntime_engine import EXACT_ENTRY, sums_are_exact

Array: TypeAlias = npt.NDArray[Any]
Floats: TypeAlias = npt.NDArray[np.float32]

HELD_EVERY = 4


@dataclass(frozen=True)
class MaskedFeed:
    """One run's inputs, and which rows count: bool, shaped as the linears' inputs without their last axis."""

    inputs: Mapping[str, Array]
    counted: npt.NDArray[np.bool_]


Feed: TypeAlias = Mapping[str, Array] | MaskedFeed


def is_held(index: int) -> bool:
    """Whether feed `index` is held back: the second, the sixth, ... (a lone feed is measured)."""
    return index % HELD_EVERY == 1


def inputs_of(feed: Feed) -> Mapping[str, Array]:
    """The run's inputs by name."""
    return feed.inputs if isinstance(feed, MaskedFeed) else feed


def counted_rows(feed: Feed, values: Array, tensor: str) -> Floats:
    """`values` [..., features] as rows [n, features] float32, without those that the feed's mask excludes."""
    rows = np.asarray(values, dtype=np.float32).reshape(-1, values.shape[-1])
    if not isinstance(feed, MaskedFeed):
        return rows
    counted = np.asarray(feed.counted, dtype=bool).reshape(-1)
    if len(counted) != len(rows):
        raise EngineError(
            f"{tensor}: the feed's mask has shape {feed.counted.shape} but the tensor has {values.shape};"
            " give one bool for each row"
        )
    used: Floats = rows[counted]
    return used


class Session:
    """An ONNX Runtime CPU session over a graph: a file, or bytes whose external data lies in `folder`.

    Without `prepack` weights are used as they lie in their file: opened sooner, less memory, slower to run.
    """

    def __init__(
        self,
        model: Path | bytes,
        *,
        folder: Path | None = None,
        threads: int = 2,
        prepack: bool = True,
        optimised_to: Path | None = None,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if not sums_are_exact():
            options.add_session_config_entry(*EXACT_ENTRY)
        if not prepack:
            options.add_session_config_entry("session.disable_prepacking", "1")
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder.resolve())
            )
        if optimised_to is not None:
            options.optimized_model_filepath = str(optimised_to)
        source = model if isinstance(model, bytes) else str(model)
        try:
            self._session: Any = onnxruntime.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes have no common root
            name = "a graph in memory" if isinstance(model, bytes) else model.name
            raise EngineError(f"ONNX Runtime refuses {name}: {error}") from error
        self.inputs: tuple[str, ...] = tuple(value.name for value in self._session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] | None = None) -> dict[str, Array]:
        """Run once; `outputs` limits what is returned. Missing or surplus inputs are named in the error."""
        missing = sorted(set(self.inputs) - set(inputs))
        surplus = sorted(set(inputs) - set(self.inputs))
        if missing or surplus:
            raise EngineError(
                f"feed does not fit the graph: missing {missing or 'none'}, unknown {surplus or 'none'}"
                f"; the graph's inputs are {list(self.inputs)}"
            )
        names = list(self.outputs if outputs is None else outputs)
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def kernel_counts(model: Path | bytes) -> dict[str, int]:
    """Operator -> how often the CPU provider really runs it, after ONNX Runtime's own fusions.

    A linear with Q/DQ around it should appear as MatMulIntegerToFloat: an integer kernel.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        optimised = Path(folder) / "optimised.onnx"
        Session(model, threads=1, optimised_to=optimised).close()
        graph = onnx.load(str(optimised), load_external_data=False).graph
    return dict(Counter(node.op_type for node in graph.node))
