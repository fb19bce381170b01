"""Builds a graph with tensorrt-rtx on a machine without a GPU and reads what each linear became.

tensorrt-rtx compiles ahead of time for a GPU that is not there, and its logger lists the layers of the
finished engine. An INT8 linear is right when its MatMul stands in a `gemm` layer whose input is Int8, in
every profile. What this proves and what not: the parser reads the graph, all shapes build, and NVIDIA's
compiler finds the INT8 pattern. TensorRT 10.3 and 10.16 are other compilers: `engines verify` counts again on
the device.

The build runs in a child process (`python -m orinspect.export.tensorrt.trial`): native code may crash, and
the log of a large graph is many MB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .profiles import LAYERS, Profile

LIBRARY = "tensorrt_rtx"
COMPUTE_CAPABILITIES = ("SM80", "SM86")
"""What tensorrt-rtx builds for that comes nearest to an Orin's 8.7, which it does not know."""

_LIST = re.compile(r"^Layers:", re.MULTILINE)
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<kind>\w+), (?P<rest>.*)$", re.MULTILINE)
_INPUTS = re.compile(r"Inputs: \[(.*?)\], (?:Constants|Outputs): ", re.DOTALL)
_TYPE = re.compile(r"Datatype: (\w+)")
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
_PROFILE = re.compile(r"\[profile (\d+)\]")
_PIECE = re.compile(r"_myl(\d+)_\d+$")


@dataclass(frozen=True)
class Layer:
    """One layer of a built engine; `nodes` are the ONNX nodes that went into it."""

    profile: int
    name: str
    kind: str
    input_types: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """What became of one graph; `errors` is empty when it was built. Bytes and seconds of the child."""

    errors: tuple[str, ...]
    layers: tuple[Layer, ...] = ()
    plan_bytes: int = 0
    peak_bytes: int = 0
    parse_s: float = 0.0
    build_s: float = 0.0

    def int8_linears(self, profile: int) -> set[str]:
        """ONNX nodes that one profile runs inside an Int8 GEMM, the linears among them."""
        return {
            node
            for layer in self.layers
            if layer.profile == profile and layer.kind == "gemm" and "Int8" in layer.input_types
            for node in layer.nodes
        }

    def lost(self, intended: Iterable[str], profiles: Sequence[Profile]) -> list[str]:
        """`<profile>: <linear>` for each linear that is no Int8 GEMM in a profile; all, if none was built."""
        return [
            f"{profile['name']}: {linear}"
            for index, profile in enumerate(profiles)
            for linear in intended
            if linear not in self.int8_linears(index)
        ]


def trial(
    graph: Path,
    profiles: Sequence[Profile],
    *,
    compute_capability: str,
    layers: int = 0,
    library: str = LIBRARY,
) -> Trial:
    """Build `graph` for one compute capability in a child process; `layers` stands for the axis of that name.

    Never raises for a graph that does not build: that is a Trial with errors.
    """
    with tempfile.TemporaryDirectory() as folder:
        order, answer = Path(folder) / "order.json", Path(folder) / "answer.json"
        order.write_text(json.dumps(fixed_profiles(profiles, layers)), encoding="utf-8")
        words = [str(graph), str(order), str(answer), "--for", compute_capability, "--library", library]
        command = [sys.executable, "-m", __spec__.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not answer.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Trial((f"{library} ended with exit status {done.returncode}: {last}",))
        found = json.loads(answer.read_text(encoding="utf-8"))
    found["errors"] = tuple(found["errors"])
    found["layers"] = tuple(
        Layer(**entry | {key: tuple(entry[key]) for key in ("input_types", "nodes")})
        for entry in found["layers"]
    )
    return Trial(**found)


def fixed_profiles(profiles: Sequence[Profile], layers: int) -> list[Profile]:
    """The profiles of one part: its number of layers in place of the word."""
    return [
        profile
        | {
            "inputs": {
                name: {
                    key: [layers if size == LAYERS else size for size in sizes]
                    for key, sizes in bounds.items()
                }
                for name, bounds in profile["inputs"].items()
            }
        }
        for profile in profiles
    ]


def layers_from_log(log: str) -> tuple[Layer, ...]:
    """The layers of the last `Layers:` message of a builder's log at DETAILED verbosity.

    The first profile's layers carry no mark; those of profile n do, or a sibling of the same piece does.
    """
    starts = list(_LIST.finditer(log))
    if not starts:
        return ()
    found = list(_LAYER.finditer(log, starts[-1].end()))
    profile_of: dict[str, int] = {}
    for entry in found:
        piece, mark = _PIECE.search(entry["name"]), _PROFILE.search(entry[0])
        if piece and mark:
            profile_of[piece[1]] = int(mark[1])
    layers = []
    for entry in found:
        piece, mark = _PIECE.search(entry["name"]), _PROFILE.search(entry["name"])
        profile = int(mark[1]) if mark else profile_of.get(piece[1], 0) if piece else 0
        inputs = _INPUTS.search(entry["rest"])
        types = tuple(_TYPE.findall(inputs[1])) if inputs else ()
        layers.append(
            Layer(profile, entry["name"], entry["kind"], types, tuple(_ONNX.findall(entry["rest"])))
        )
    return tuple(layers)


def build(graph: Path, profiles: Sequence[Mapping[str, Any]], compute_capability: str, library: str) -> Trial:
    """Parse and build in this process; see `trial`."""
    trt = importlib.import_module(library)
    log: list[str] = []
    logger = _logger(trt, log)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    started = time.monotonic()
    if not parser.parse_from_file(str(graph)):
        return Trial(tuple(str(parser.get_error(index)) for index in range(parser.num_errors)))
    parsed = time.monotonic()
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
    given = {network.get_input(index).name for index in range(network.num_inputs)}
    for profile in profiles:
        shapes = builder.create_optimization_profile()
        for name, bounds in profile["inputs"].items():
            if name in given:
                shapes.set_shape(name, bounds["min"], bounds["opt"], bounds["max"])
        if config.add_optimization_profile(shapes) < 0:
            return Trial((f"profile {profile['name']} does not fit the graph's inputs", *log[-3:]))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return Trial(tuple(line for line in log if line.startswith("ERROR")) or ("no engine, no message",))
    text = "\n".join(line.partition(" ")[2] for line in log)
    return Trial(
        (), layers_from_log(text), plan.nbytes, peak_bytes(), parsed - started, time.monotonic() - parsed
    )


def peak_bytes() -> int:
    """Most memory that this process has held. Not ru_maxrss, which a child takes over from its parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _logger(trt: Any, log: list[str]) -> Any:
    class Recorder(trt.ILogger):  # type: ignore[misc]  # the base is only known while running
        """Keeps every message, its severity in front."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            log.append(f"{severity.name} {message}")

    return Recorder()


def main(words: Sequence[str] | None = None) -> int:
    """The child: graph, profiles file, answer file."""
    parser = argparse.ArgumentParser(prog="trial", description="Build one graph, write what became of it.")
    parser.add_argument("graph", type=Path)
    parser.add_argument("profiles", type=Path, help="JSON list of profiles, every axis a number")
    parser.add_argument("answer", type=Path)
    parser.add_argument("--for", dest="compute_capability", default=COMPUTE_CAPABILITIES[-1])
    parser.add_argument("--library", default=LIBRARY)
    given = parser.parse_args(words)
    profiles = json.loads(given.profiles.read_text(encoding="utf-8"))
    found = build(given.graph, profiles, given.compute_capability, given.library)
    given.answer.write_text(json.dumps(asdict(found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
