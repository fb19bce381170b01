"""The sums of docs/boards.md: what a build takes at its peak, what a model takes, what a board has."""

from __future__ import annotations

from pathlib import Path

TABLE = Path(__file__).with_name("boards.json")

WORKSPACE_BYTES = 256 << 20
"""Scratch that a kernel may ask for while TensorRT chooses; what it takes at run time is among it."""
LIBRARY_BYTES = 900 << 20
"""A process with a CUDA context and TensorRT's builder in it, before any weight. Not measured on an Orin."""
WEIGHT_COPIES = 4.25
"""Copies of a component's weights that a build holds at once. 3.25 on the host, measured with tensorrt_rtx
1.7.1.116 (peak resident 540 MB for 96 MB, 1177 MB for 298 MB, 826 MB for 193 MB of float16, 43 MB before),
and one on the device, which is the same memory on a Jetson and was not measured."""
PLAN_OVERHEAD = 1.05
"""A plan over its weights: 1.005 to 1.02 in the same builds."""


def build_peak_bytes(weight_bytes: int) -> int:
    """Predicted peak memory of building one plan from a graph with this many bytes of weights."""
    return LIBRARY_BYTES + WORKSPACE_BYTES + int(WEIGHT_COPIES * weight_bytes)


def plan_bytes(weight_bytes: int) -> int:
    """Predicted size of a plan on disk, with what the timing cache takes."""
    return int(PLAN_OVERHEAD * weight_bytes) + (8 << 20)
