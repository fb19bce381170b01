"""One ONNX file to one TensorRT plan, in whichever process it is called; the library comes as an argument.

Strongly typed, with the types that the graph states; weights are read from their own file by the parser;
every layer is described in the plan, so that `verify` can count. With `tensorrt_rtx`, which needs no GPU to
build, the same code runs on a workstation.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import EngineError
from .profile_choice import Profile, Range
from .tensorrt_engine import tensorrt_library, tensorrt_logger

Say = Callable[[str, int, int], None]
"""(phase, steps done, steps of it): called while TensorRT works."""


@dataclass(frozen=True)
class PlanOrder:
    """What is to be built. `profiles`: of the component, in their order; `workspace_bytes`: scratch that a
    kernel may ask for; `compute_capability`: as SM86, for `tensorrt_rtx` on a machine without that GPU.
    """

    library: str
    graph: Path
    plan: Path
    profiles: tuple[Profile, ...]
    timing_cache: Path | None
    workspace_bytes: int
    compute_capability: str | None = None


@dataclass(frozen=True)
class BuiltPlan:
    """What came out: the plan's size, and TensorRT's own description of the layers as it was said meanwhile
    (`tensorrt_rtx` says it; empty otherwise, then the engine inspector has it).
    """

    bytes: int
    layers: str


def plan_from_order(order: PlanOrder, say: Say) -> BuiltPlan:
    """Build and write one plan, whole or not at all. EngineError says which node or which step failed."""
    trt = tensorrt_library(order.library)
    said: list[str] = []
    layers: list[str] = []

    def listen(message: str) -> None:
        if message.startswith("Layers:"):
            layers.append(message)

    logger = tensorrt_logger(trt, said, listen)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(order.graph)):
        raise EngineError(_parse_errors(parser, order.graph))
    config = _config(trt, builder, order)
    monitor = _progress_monitor(trt, say)  # held here: the config keeps no reference
    config.progress_monitor = monitor
    _add_profiles(builder, network, config, order)
    cache = _timing_cache(config, order.timing_cache)
    said.clear()  # a timing cache of before an update is refused aloud, and is not why a build fails
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"TensorRT cannot build {order.graph.name}: {_first_line(said)}; with 'out of memory' stop other "
            "programs or use --parts N, otherwise please report it"
        )
    size = write_whole(order.plan, memoryview(plan))
    if cache is not None and order.timing_cache is not None:
        write_whole(order.timing_cache, memoryview(config.get_timing_cache().serialize()))
    return BuiltPlan(size, "\n".join(layers))


def write_whole(path: Path, content: memoryview | bytes) -> int:
    """Write a file so that a power cut leaves the old one or the new one; its size in bytes."""
    beside = path.with_name(f"{path.name}.writing")
    with beside.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(beside, path)
    sync_folder(path.parent)
    return path.stat().st_size


def sync_folder(folder: Path) -> None:
    """Make the names in a folder as lasting as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _config(trt: Any, builder: Any, order: PlanOrder) -> Any:
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, order.workspace_bytes)
    if order.compute_capability is not None:  # tensorrt_rtx alone has these names
        config.num_compute_capabilities = 1
        chosen = getattr(trt.ComputeCapability, order.compute_capability)
        config.set_compute_capability(chosen, 0)
    return config


def _add_profiles(builder: Any, network: Any, config: Any, order: PlanOrder) -> None:
    """Every profile over the inputs that this graph has; sizes that the graph fixes are taken from it."""
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    for profile in order.profiles:
        made = builder.create_optimization_profile()
        for tensor in inputs:
            if tensor.name not in profile.inputs:
                raise EngineError(
                    f"profile {profile.name} says nothing of input {tensor.name} of {order.graph.name}; "
                    "export the bundle again"
                )
            known = profile.inputs[tensor.name]
            _check_fixed(tuple(tensor.shape), known, f"{profile.name}: {tensor.name} of {order.graph.name}")
            made.set_shape(tensor.name, known.least, known.best, known.most)
        if config.add_optimization_profile(made) < 0:
            raise EngineError(
                f"TensorRT refuses profile {profile.name} of {order.graph.name}; export the bundle again"
            )


def _check_fixed(shape: tuple[int, ...], known: Range, what: str) -> None:
    """A size that the graph fixes and the profile contradicts would only be said deep inside TensorRT."""
    for dims in (known.least, known.best, known.most):
        if len(dims) != len(shape) or any(
            size >= 0 and size != asked for size, asked in zip(shape, dims, strict=True)
        ):
            raise EngineError(f"profile {what} asks {list(dims)} of {list(shape)}; export the bundle again")


def _timing_cache(config: Any, path: Path | None) -> Any:
    """The cache of earlier builds, or an empty one where it is of another device or TensorRT."""
    if path is None:
        return None
    known = path.read_bytes() if path.is_file() else b""
    for content in (known, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _progress_monitor(trt: Any, say: Say) -> Any:
    class _Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            say(phase_name, 0, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            say(phase_name, step + 1, self._steps.get(phase_name, 0))
            return True  # False would cancel the build

        def phase_finish(self, phase_name: str) -> None:
            steps = self._steps.pop(phase_name, 0)
            say(phase_name, steps, steps)

    return _Monitor()


def _parse_errors(parser: Any, graph: Path) -> str:
    """All that the parser says, node by node."""
    if not graph.is_file():
        return f"{graph} does not exist; copy the bundle again"
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    said = "; ".join(
        f"node {error.node_name() or '?'} ({error.node_operator()}): {error.desc()}" for error in errors
    )
    return f"TensorRT cannot read {graph.name}: {said or 'no reason given'}; export the bundle again"


def _first_line(said: list[str]) -> str:
    return said[0].strip().splitlines()[0] if said else "it gave no reason"
