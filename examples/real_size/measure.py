"""Measures an export at real size with random weights: time, peak memory, bytes, and INT8 against float.

python -m orinspect.examples.real_size.measure                       # 2B, as `make bench` runs it
python -m orinspect.examples.real_size.measure --size 8b --stages graphs
python -m orinspect.examples.real_size.measure --layers 2 --vision-depth 2 --vocab 8192 --json out.json

Every stage is a process of its own, so its peak is its own. Times are of this machine and whatever else runs
on it; the ratio of INT8 to float comes from turns on the same inputs in one run. INT8 is per_row for every
linear, which needs no calibration; accuracy means nothing, for the weights are random.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime

from ...runtime.infer.shape import ModelShape
from ...tests.tiny_checkpoint import TinySizes
from .child import ChildError, Say, measured, memory_mib
from .make_checkpoint import SIZES, parameters, sliced
from .stages import answers_stage, calibration_stage, checkpoint_stage, graphs_stage, int8_stage
from .table import real_size_text
from .turns import take_turns

STAGES = ("graphs", "int8", "turns", "calibration", "answers")
SCHEMA = "orinspect.real-size/1.0"
SPARE_BYTES = 2 * 10**9
"""Bytes that must stay free on the disk."""
HEAD_TOKENS = 1000
"""Rows of the word head: what a recipe's schema keeps is of this order."""
SLICE_LAYERS = 4
SLICE_PICTURES = 4
TARGET_PICTURES = 64


@dataclass(frozen=True)
class Options:
    """One measurement; `sizes` is the model, whole or a slice."""

    name: str
    sizes: TinySizes
    stages: tuple[str, ...] = STAGES
    tile_px: int = 448
    rounds: int = 3
    threads: int = 2
    head_tokens: int | None = HEAD_TOKENS  # None: all
    slice_layers: int = SLICE_LAYERS
    slice_vocab: int = 8192
    seed: int = 0


def measure(options: Options, work: Path, say: Say, *, keep: bool = False) -> dict[str, Any]:
    """Run the stages in the folder `work`; figures as plain JSON values. `work` is emptied unless `keep`.

    OSError when the disk is too small, ChildError when a stage fails.
    """
    work.mkdir(parents=True, exist_ok=True)
    _check_disk(options, work, keep)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "model": _model(options),
        "machine": machine(work),
        "tile_px": options.tile_px,
        "threads": options.threads,
        "stages": {},
    }
    stages: dict[str, Any] = result["stages"]
    with _emptied(work / "whole", keep) as folder:
        graphs: dict[str, Any] = {}
        if {"graphs", "int8", "turns"} & set(options.stages):
            stages["checkpoint"] = _staged(
                checkpoint_stage, folder / "checkpoint", options.sizes, options.seed, say=say
            )
            graphs = stages["graphs"] = _staged(
                graphs_stage,
                folder / "checkpoint",
                folder / "float",
                options.tile_px,
                options.head_tokens,
                say=say,
            )
        if {"int8", "turns"} & set(options.stages):
            if not keep:
                shutil.rmtree(folder / "checkpoint")
            stages["int8"] = _staged(int8_stage, folder / "float", folder / "int8", say=say)
        if "turns" in options.stages:
            shape = ModelShape.from_json(graphs["shape"])
            stages["turns"] = {
                component: take_turns(
                    component,
                    {one: folder / one / f"{component}.onnx" for one in ("float", "int8")},
                    shape,
                    rounds=options.rounds,
                    threads=options.threads,
                    say=say,
                )
                for component in ("vision", "decoder")
            }
    if {"calibration", "answers"} & set(options.stages):
        with _emptied(work / "slice", keep) as folder:
            stages |= _on_a_slice(options, folder, say)
    return result


def _on_a_slice(options: Options, folder: Path, say: Say) -> dict[str, Any]:
    """Calibration of a few layers, and the greedy answers that it needs, extrapolated to the whole model."""
    few = options.slice_layers
    cut = sliced(
        options.sizes,
        layers=min(few, options.sizes.layers),
        vision_depth=min(few, options.sizes.vision_depth),
        vocab=min(options.slice_vocab, options.sizes.vocab),
    )
    _staged(checkpoint_stage, folder / "checkpoint", cut, options.seed, say=say)
    kept = min(HEAD_TOKENS, cut.vocab)
    graphs = _staged(graphs_stage, folder / "checkpoint", folder / "float", options.tile_px, kept, say=say)
    shape = ModelShape.from_json(graphs["shape"])
    whole = replace(shape, layers=options.sizes.layers, vision_depth=options.sizes.vision_depth)
    stages = {}
    if "calibration" in options.stages:
        stages["calibration"] = _staged(
            calibration_stage, folder, shape, whole, SLICE_PICTURES, TARGET_PICTURES, options.threads, say=say
        )
    if "answers" in options.stages:
        stages["answers"] = _staged(
            answers_stage, folder / "float", shape, whole, TARGET_PICTURES, options.threads, say=say
        )
    return stages


def _staged(work: Any, *arguments: Any, say: Say) -> dict[str, Any]:
    figures, spent = measured(work, *arguments, say=say)
    return dict(figures) | spent.to_json()


def _model(options: Options) -> dict[str, Any]:
    sizes, full = options.sizes, SIZES[options.name]
    return {
        "name": options.name,
        "is_whole": sizes == full,
        "parameters": parameters(sizes),
        "hidden": sizes.hidden,
        "layers": sizes.layers,
        "vision_depth": sizes.vision_depth,
        "vocab": sizes.vocab,
        "weights": "random",
        "int8": "per_row for every linear (needs no calibration)",
    }


def machine(folder: Path) -> dict[str, Any]:
    """What the figures belong to."""
    names = [
        line.partition(":")[2].strip()
        for line in _lines(Path("/proc/cpuinfo"))
        if line.startswith("model name")
    ]
    flags = next((line for line in _lines(Path("/proc/cpuinfo")) if line.startswith("flags")), "")
    memory = [line.split()[1] for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "has_vnni": "vnni" in flags,
        "memory_gib": round(int(memory[0]) / 1024**2, 1) if memory else None,
        "load_average": round(os.getloadavg()[0], 1),
        "disk_free_gb": round(shutil.disk_usage(folder).free / 1e9, 1),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "own_rss_mib": round(memory_mib(os.getpid()).get("VmRSS", 0.0), 1),
    }


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def needed_bytes(options: Options, keep: bool = False) -> int:
    """Most bytes that the stages have on the disk at once; the checkpoint leaves before INT8 is written."""
    count = parameters(options.sizes)
    table = options.sizes.vocab * options.sizes.hidden
    body = count - table * (1 if options.sizes.is_head_tied else 2)
    head = 4 * (options.head_tokens or options.sizes.vocab) * options.sizes.hidden
    checkpoint, graphs = 2 * count, 4 * body + 2 * table + head
    int8 = body if {"int8", "turns"} & set(options.stages) else 0
    return graphs + (checkpoint + int8 if keep else max(checkpoint, int8))


def _check_disk(options: Options, work: Path, keep: bool) -> None:
    free, needed = shutil.disk_usage(work).free, needed_bytes(options, keep) + SPARE_BYTES
    if free < needed:
        raise OSError(
            f"{work} has {free / 1e9:.1f} GB free and {options.name} needs {needed / 1e9:.1f} GB; "
            "give another folder with --work, or fewer layers with --layers"
        )


@contextmanager
def _emptied(folder: Path, keep: bool) -> Iterator[Path]:
    """A fresh folder, removed afterwards unless `keep`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: progress on stderr, the table on stdout, the figures in --json."""
    parser = argparse.ArgumentParser(description="Measure an export at real size, with random weights.")
    parser.add_argument("--size", choices=sorted(SIZES), default="2b", help="(%(default)s)")
    parser.add_argument("--stages", default=",".join(STAGES), help="of %(default)s")
    parser.add_argument("--layers", type=int, help="decoder layers (all)")
    parser.add_argument("--vision-depth", type=int, help="vision blocks (all)")
    parser.add_argument("--vocab", type=int, help="tokens (all)")
    parser.add_argument("--tile", type=int, default=448, help="side of the picture in pixels (%(default)s)")
    parser.add_argument("--head-tokens", type=int, default=HEAD_TOKENS, help="(%(default)s; 0: all)")
    parser.add_argument("--rounds", type=int, default=3, help="turns, one more warms up (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--work", type=Path, default=Path("runs/real-size"), help="(%(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave checkpoint and graphs in --work")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    given = parser.parse_args(argv)
    stages = tuple(given.stages.split(","))
    if unknown := sorted(set(stages) - set(STAGES)):
        parser.error(f"--stages: {unknown[0]!r} is none of {', '.join(STAGES)}")
    try:
        sizes = sliced(
            SIZES[given.size], layers=given.layers, vision_depth=given.vision_depth, vocab=given.vocab
        )
    except ValueError as problem:
        parser.error(str(problem))
    options = Options(
        given.size, sizes, stages, given.tile, given.rounds, given.threads, given.head_tokens or None
    )
    try:
        result = measure(options, given.work, lambda line: print(line, file=sys.stderr), keep=given.keep)
    except (ChildError, OSError) as problem:
        print(f"measure: {problem}", file=sys.stderr)
        return 1
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(real_size_text(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
