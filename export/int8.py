"""One component measured, chosen, rewritten to INT8, checked and written: what `export` asks of calibration.

The rewrite itself is `calibration/int8_graph.py`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sized
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from ..calibration.choice import Limits, LinearChoice, choose
from ..calibration.closeness import OutputError, output_errors
from ..calibration.exact_dot import prove_exact_sums
from ..calibration.int8_graph import (
    ZERO_POINT,
    Flavour,
    LinearBytes,
    flavour_from_int8,
    int8_from_float,
    linear_bytes,
    linear_bytes_of_file,
    stored_bytes,
)
from ..calibration.linears import Weights
from ..calibration.ranges import Progress, ranges_from_runs
from ..calibration.sessions import Feed, is_held

__all__ = [
    "ZERO_POINT",
    "Flavour",
    "Int8Result",
    "LinearBytes",
    "flavour_from_int8",
    "int8_component",
    "int8_from_float",
    "linear_bytes",
    "linear_bytes_of_file",
    "save_graph",
]

_LARGEST_FILE = 1 << 30  # larger graphs keep their weights in a file beside them (protobuf ends at 2 GiB)
_GATE_FEEDS = 8


@dataclass(frozen=True)
class Int8Result:
    """What became of one component; `cosine` and `max_abs_error` are those of the worst output."""

    flavour: Flavour
    choices: tuple[LinearChoice, ...]
    linears_float: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    cosine: float
    max_abs_error: float
    outputs: dict[str, OutputError]

    @property
    def bytes_ratio(self) -> float:
        """Linears' bytes, stored / float32."""
        return self.bytes_after / self.bytes_before if self.bytes_before else 1.0

    def to_json(self) -> dict[str, Any]:
        """Plain values for the bundle's manifest."""
        return asdict(self) | {"bytes_ratio": self.bytes_ratio}


def save_graph(model: onnx.ModelProto, path: Path) -> None:
    """Write `model` whole or not at all; above 1 GiB its weights go into `<name>.data` beside it."""
    temporary = path.with_name(path.name + ".partial")
    size = sum(stored_bytes(tensor) for tensor in model.graph.initializer)
    data = path.with_name(path.name + ".data")
    try:
        if size > _LARGEST_FILE:
            data.unlink(missing_ok=True)
            onnx.save(model, str(temporary), save_as_external_data=True, location=data.name)
        else:
            onnx.save(model, str(temporary))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        if size > _LARGEST_FILE:
            data.unlink(missing_ok=True)
        raise


def int8_component(
    float_model_path: Path | str,
    feeds: Iterable[Feed],
    out_path: Path | str,
    *,
    flavour: Flavour = "u8",
    limits: Limits | None = None,
    keep_float: Collection[str] = (),
    threads: int = 2,
    progress: Progress | None = None,
) -> Int8Result:
    """Measure, choose, rewrite and check one component; the INT8 graph is written to `out_path`.

    `feeds` is consumed once: every fourth feed (from the second) is held back for the choice and for the
    accuracy in the result. `progress(what, done, total)` is called along the way. Raises EngineError,
    CheckpointError.
    """
    source, target = Path(float_model_path), Path(out_path)
    prove_exact_sums()
    held = _HeldFeeds(feeds)
    statistics = ranges_from_runs(source, held, threads=threads, progress=progress)
    model = onnx.load(str(source))
    choices = choose(statistics.values(), Weights(model), limits=limits, keep_float=keep_float)
    int8 = int8_from_float(model, choices, flavour)
    size = linear_bytes(int8)
    save_graph(int8, target)
    del model, int8
    outputs = output_errors(source, target, held.kept or held.first, threads=threads, progress=progress)
    return Int8Result(
        flavour,
        choices,
        tuple(choice.name for choice in choices if choice.mode == "float"),
        size.float32,
        size.stored,
        min(error.cosine for error in outputs.values()),
        max(error.max_abs_error for error in outputs.values()),
        outputs,
    )


class _HeldFeeds:
    """Passes feeds through and keeps the first few held ones (and the very first, in case it stays alone)."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = feeds
        self.first: list[Feed] = []
        self.kept: list[Feed] = []

    def __iter__(self) -> Iterator[Feed]:
        for index, feed in enumerate(self._feeds):
            if index == 0:
                self.first = [feed]
            if is_held(index) and len(self.kept) < _GATE_FEEDS:
                self.kept.append(feed)
            yield feed

    def __len__(self) -> int:
        return len(self._feeds) if isinstance(self._feeds, Sized) else 0
