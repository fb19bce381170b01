"""The sums of docs/boards.md: what a build takes at its peak, what a model takes, what a board has."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("boards.json")
MIB = 1 << 20

WORKSPACE_BYTES = 256 * MIB
"""Scratch that a kernel may ask for while TensorRT chooses; what it takes at run time is among it."""
LIBRARY_BYTES = 900 * MIB
"""A process with a CUDA context and TensorRT in it, before any weight. Not measured on an Orin."""
WEIGHT_COPIES = 4.25
"""Copies of a component's weights that a build holds at once. 3.25 on the host, measured with tensorrt_rtx
1.7.1.116 (peak resident 540 MB for 96 MB, 1177 MB for 298 MB, 826 MB for 193 MB of float16, 43 MB before),
and one on the device, which is the same memory on a Jetson and was not measured."""
PLAN_OVERHEAD = 1.05
"""A plan over its weights: 1.005 to 1.02 in the same builds."""
SPARE_BYTES = 256 * MIB
"""What must be left for pictures, evidence and the broker before a model counts as fitting."""
PARTS = (1, 2, 4)
"""The ways in which an export cuts the decoder."""
ROWS, SLOTS, FIRST = 4, 640, 320
"""Of the sums: tiles in a decoder call, the longest past, and the tokens of a first pass (a 448 px tile has
196, the rest is text)."""


@dataclass(frozen=True)
class ModelSizes:
    """Sizes of a dense Qwen3-VL; `taps`: vision blocks whose features are tapped."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    vision_hidden: int
    vision_depth: int
    vision_intermediate: int
    taps: int

    @property
    def decoder_weights(self) -> int:
        """Numbers in the decoder's linears; a byte each in INT8."""
        attention = 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def vision_weights(self) -> int:
        """Numbers in the vision encoder's linears, its mergers included."""
        block = 4 * self.vision_hidden**2 + 2 * self.vision_hidden * self.vision_intermediate
        merged = 4 * self.vision_hidden
        return self.vision_depth * block + (1 + self.taps) * merged * (merged + self.hidden)


@dataclass(frozen=True)
class Board:
    """`visible_mib`: memory that Linux and CUDA see; `bandwidth_gb_s` in its highest power mode."""

    name: str
    visible_mib: int
    visible_source: str
    bandwidth_gb_s: float


@dataclass(frozen=True)
class RunningSum:
    """Bytes of a model that runs on TensorRT. Embeddings are mapped from disk and count nothing."""

    weights: int
    keys_values: int
    scratch: int
    process: int

    @property
    def total(self) -> int:
        """All of it, the operating system apart."""
        return self.weights + self.keys_values + self.scratch + self.process


def build_peak_bytes(weight_bytes: int) -> int:
    """Predicted peak memory of building one plan from a graph with this many bytes of weights."""
    return LIBRARY_BYTES + WORKSPACE_BYTES + int(WEIGHT_COPIES * weight_bytes)


def plan_bytes(weight_bytes: int) -> int:
    """Predicted size of a plan on disk, with what the timing cache takes."""
    return int(PLAN_OVERHEAD * weight_bytes) + 8 * MIB


def running_sum(model: ModelSizes, weight_size: int = 1) -> RunningSum:
    """What a model takes that runs, with linears of `weight_size` bytes a number (1: INT8, 2: float16).

    Keys and values in float16: the past, one row to move, and what a first pass writes. Scratch: the widest
    layer of a first pass in float32 (three streams, three of the MLP) and its attention scores in float32
    and float16; TensorRT may do better or worse.
    """
    column = model.layers * 2 * model.kv_heads * model.head_dim * 2
    keys_values = column * ((ROWS + 1) * SLOTS + ROWS * FIRST)
    wide = ROWS * FIRST * 4 * 3 * (model.hidden + model.intermediate)
    scores = ROWS * model.heads * FIRST * (SLOTS + FIRST) * (4 + 2)
    weights = int(PLAN_OVERHEAD * weight_size * (model.decoder_weights + model.vision_weights))
    return RunningSum(weights, keys_values, wide + scores, LIBRARY_BYTES)


def parts_to_build(model: ModelSizes, free: int, weight_size: int = 1) -> int | None:
    """The fewest decoder parts with which every build stays within `free` bytes; None: none of PARTS does."""
    if build_peak_bytes(weight_size * model.vision_weights) > free:
        return None
    for parts in PARTS:
        largest = -(-model.layers // parts) * model.decoder_weights // model.layers
        if build_peak_bytes(weight_size * largest) <= free:
            return parts
    return None


def known_boards(path: Path = TABLE) -> tuple[tuple[Board, ...], dict[str, ModelSizes], int]:
    """Boards, models, and the bytes of the operating system without a desktop."""
    table = json.loads(path.read_text(encoding="utf-8"))
    boards = tuple(Board(**entry) for entry in table["boards"])
    models = {name: ModelSizes(**sizes) for name, sizes in table["models"].items()}
    return boards, models, table["os_mib"] * MIB


def sums_markdown() -> str:
    """What each model takes, as the first table of docs/boards.md."""
    _, models, system = known_boards()
    lines = [
        "| model | linears | weights | keys, values | scratch | process | together | build, whole decoder |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, model in models.items():
        for word, size in (("INT8", 1), ("float16", 2)):
            found = running_sum(model, size)
            cells = (found.weights, found.keys_values, found.scratch, found.process, found.total)
            peak = build_peak_bytes(size * model.decoder_weights)
            row = " | ".join(f"{cell // MIB}" for cell in (*cells, peak))
            lines.append(f"| {name} | {word} | {row} |")
    return "\n".join(lines) + f"\n\nMiB; the operating system takes another {system // MIB} MiB."


def boards_markdown() -> str:
    """Which model fits which board in INT8, as the second table of docs/boards.md."""
    boards, models, system = known_boards()
    lines = [
        f"| board | memory seen | {' | '.join(models)} |",
        f"| --- | ---: | {' | '.join('---' for _ in models)} |",
    ]
    for board in boards:
        cells = []
        for model in models.values():
            left = board.visible_mib * MIB - system - running_sum(model).total
            parts = parts_to_build(model, board.visible_mib * MIB - system)
            floor_ms = model.decoder_weights / board.bandwidth_gb_s / 1e6
            if left < SPARE_BYTES:
                cells.append(f"no, {-(left - SPARE_BYTES) // MIB} MiB short")
            elif parts is None:
                cells.append("runs, but cannot be built there")
            else:
                how = "whole" if parts == 1 else f"`--parts {parts}`"
                cells.append(f"yes, {left // MIB} MiB left; build {how}; {floor_ms:.0f} ms a pass")
        lines.append(f"| {board.name} | {board.visible_mib} MiB | {' | '.join(cells)} |")
    return "\n".join(lines)
