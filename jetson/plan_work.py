"""Which plans a bundle needs, and whether this board can build them: asked before anything starts."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import EngineError
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.engines.profile_choice import ComponentPlan, component_plans
from .board import BoardMemory
from .fit import build_peak_bytes, plan_bytes
from .layers import linears_of_part


@dataclass(frozen=True)
class PlanWork:
    """One plan to build. `layers`: of the decoder in this part, None elsewhere; `weight_bytes`: of its graph;
    `int8_linears`: those that must become Int8 GEMMs.
    """

    component: ComponentPlan
    graph: str
    layers: int | None
    weight_bytes: int
    int8_linears: tuple[str, ...]

    @property
    def plan(self) -> str:
        """Name of the plan's file, `decoder.1of2.plan`."""
        return self.graph.replace(".tensorrt", "").replace(".onnx", ".plan")


def plan_works(bundle: Bundle, parts: int) -> tuple[PlanWork, ...]:
    """All plans of a bundle, small ones first: what fails early has cost little. The decoder comes last, its
    parts in the order in which they run.

    BundleError when the bundle's decoder is not cut into that many parts.
    """
    files = bundle.manifest["files"]
    works = []
    for name, component in component_plans(bundle.path).items():
        layers = component.layers.get(parts, ())
        weights = files.get(f"{name}.weights", {"bytes": 0})["bytes"]
        for part, graph in enumerate(component.files(parts)):
            share = weights * layers[part] // sum(layers) if layers else weights
            linears = linears_of_part(component.int8_linears, layers, part)
            own = layers[part] if layers else None
            works.append(PlanWork(component, graph, own, share + files[graph]["bytes"], linears))
    # the sort is stable: parts of one component stay in their order
    return tuple(sorted(works, key=lambda work: work.weight_bytes if work.layers is None else sys.maxsize))


def check_memory(works: Sequence[PlanWork], memory: BoardMemory) -> None:
    """EngineError when the predicted peak of a build exceeds the memory that is free; it names `--parts N`
    where that helps.
    """
    for work in works:
        peak = build_peak_bytes(work.weight_bytes)
        if peak > memory.available:
            parts = parts_that_fit(work, memory.available)
            raise EngineError(
                f"building {work.plan} takes about {_mib(peak)} MiB at its peak, {_mib(memory.available)} of "
                f"{_mib(memory.total)} MiB are free: "
                + (f"build the decoder with --parts {parts}, or " if parts else "")
                + "stop the desktop and other programs, or use a board with more memory (docs/boards.md)"
            )


def parts_that_fit(work: PlanWork, available: int) -> int | None:
    """The fewest parts in which this component can be built with `available` bytes; None when none does."""
    layers = work.component.layers
    if work.layers is None:
        return None
    for parts in sorted(layers):
        if build_peak_bytes(work.weight_bytes * max(layers[parts]) // work.layers) <= available:
            return parts
    return None


def check_disk(works: Sequence[PlanWork], folder: Path) -> None:
    """EngineError when the plans will not fit on the disk of `folder`; the old set stays until the end."""
    needed, free = sum(plan_bytes(work.weight_bytes) for work in works), shutil.disk_usage(folder).free
    if needed > free:
        raise EngineError(
            f"the engines take about {_mib(needed)} MiB on disk, {_mib(free)} MiB are free in {folder}; make "
            "room, or choose another folder with --engines"
        )


def _mib(size: int) -> int:
    return size >> 20
