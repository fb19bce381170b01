"""Float and INT8 graphs of one component take turns on the same inputs, each in a process of its own.

A busy machine is then busy for both, so the ratio means more than either time; the processor time of all
threads is given beside it, which waiting for a core does not lengthen. Each process's memory is its own, and
while one runs the other waits (ONNX Runtime is opened without spinning threads).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from ...runtime.infer.engines.past import bucket_of
from ...runtime.infer.sequence import mask_for, mrope_cos_sin
from ...runtime.infer.shape import ModelShape
from .child import Child, Say

Floats = npt.NDArray[np.float32]
_Time = tuple[float, float]  # milliseconds: wall, processor

PREFIX_TOKENS = 64  # stored once a recipe; it is past in every call
TEXT_TOKENS = 32  # behind the picture
SHORT_TOKENS = 16  # a pass of so few is over soon: it runs several times a turn
SHORT_REPEATS = 5
_SEED = 7


def cases_of(component: str, shape: ModelShape) -> dict[str, dict[str, int]]:
    """What is timed: case -> how many new tokens (k) meet how many past ones. Batch 1 everywhere."""
    if component == "vision":
        return {"picture": {"patches": shape.patches}}
    prefill = shape.tokens + TEXT_TOKENS
    behind = PREFIX_TOKENS + prefill
    return {
        "prefill": {"k": prefill, "past": PREFIX_TOKENS},
        "decode": {"k": 1, "past": behind},
        f"decode of {SHORT_TOKENS}": {"k": SHORT_TOKENS, "past": behind},
    }


def take_turns(
    component: str, paths: Mapping[str, Path], shape: ModelShape, *, rounds: int, threads: int, say: Say
) -> dict[str, Any]:
    """Time every case `rounds` times with each graph of `paths` (name -> file) in turns, one more to warm up.

    The first name is what the others are compared with: `ratio` is its time by theirs, round by round.
    """
    cases = cases_of(component, shape)
    times: dict[str, dict[str, list[_Time]]] = {case: {name: [] for name in paths} for case in cases}
    outputs: dict[str, Floats] = {}
    with ExitStack() as stack:
        engines: dict[str, Child] = {}
        loaded: dict[str, Any] = {}
        for name, path in paths.items():
            say(f"{component}: loading {name}")
            engines[name] = stack.enter_context(Child(serve_engine, path, shape, cases, threads, say=say))
            engines[name].result()
            loaded[name] = {"load_s": engines[name].ask("load"), "loaded": engines[name].spent().to_json()}
        for turn in range(rounds + 1):
            for case in cases:
                # who is first changes with every round
                order = list(paths) if turn % 2 else list(reversed(list(paths)))
                for name in order:
                    elapsed, output = engines[name].ask("run", case)
                    outputs[f"{case}/{name}"] = output
                    if turn:
                        times[case][name] += elapsed
            say(f"{component}: round {turn} of {rounds}")
        for name, engine in engines.items():
            loaded[name]["after_runs"] = engine.spent().to_json()
    first = next(iter(paths))
    return {
        "engines": loaded,
        "cases": {
            case: sizes | _compared(first, times[case], {name: outputs[f"{case}/{name}"] for name in paths})
            for case, sizes in cases.items()
        },
    }


def serve_engine(
    say: Say, path: Path, shape: ModelShape, cases: Mapping[str, Mapping[str, int]], threads: int
) -> Callable[..., Any]:
    """The child: opens the graph on "load", then runs a case on "run"."""
    feeds = {case: feed_of(shape, **sizes) for case, sizes in cases.items()}
    opened: list[OnnxruntimeEngine] = []

    def answer(question: str, case: str = "") -> Any:
        if question == "load":
            started = time.perf_counter()
            opened.append(OnnxruntimeEngine(path, threads=threads))
            return time.perf_counter() - started
        elapsed: list[_Time] = []
        for _ in range(SHORT_REPEATS if cases[case].get("k", SHORT_TOKENS + 1) <= SHORT_TOKENS else 1):
            started, cpu = time.perf_counter(), time.process_time()
            result = opened[0].run(feeds[case])
            ended, cpu_ended = time.perf_counter(), time.process_time()
            elapsed.append((1e3 * (ended - started), 1e3 * (cpu_ended - cpu)))
        output = result["hidden" if "hidden" in result else "image_tokens"]
        return elapsed, output[:, -SHORT_TOKENS:].copy()

    return answer


def feed_of(
    shape: ModelShape, *, patches: int = 0, k: int = 0, past: int = 0, batch: int = 1, seed: int = _SEED
) -> dict[str, Floats]:
    """Pictures' patches, or `k` new tokens behind `past` others; random numbers of a real size."""
    draw = np.random.default_rng(seed)

    def numbers(*dimensions: int, spread: float = 1.0) -> Floats:
        return np.float32(spread) * draw.standard_normal((batch, *dimensions), dtype=np.float32)

    if patches:
        return {"patches": np.clip(numbers(patches, shape.patch_features, spread=0.5), -1, 1)}
    deepstack = numbers(len(shape.deepstack), k, shape.hidden, spread=0.3)
    if k <= SHORT_TOKENS:
        deepstack[:] = 0  # text has none
    places = np.tile(np.arange(past, past + k), (batch, 3, 1))
    cos, sin = mrope_cos_sin(places, shape)
    slots = bucket_of(past)
    past_kv = np.zeros(shape.past_kv_shape(batch, slots), np.float32)
    past_kv[:, :, :, :, :past] = numbers(*shape.past_kv_shape(1, past)[1:])
    return {
        "embeds": numbers(k, shape.hidden, spread=0.5),
        "deepstack": deepstack,
        "cos": cos,
        "sin": sin,
        "past_kv": past_kv,
        "mask": mask_for([past] * batch, [k] * batch, slots, k),
    }


def _compared(
    first: str, times: Mapping[str, Sequence[_Time]], outputs: Mapping[str, Floats]
) -> dict[str, Any]:
    """Milliseconds of each graph, the first's by each other's, and how alike their outputs are."""
    row: dict[str, Any] = {}
    for place, suffix in enumerate(("", "_cpu")):
        values = {name: [pair[place] for pair in pairs] for name, pairs in times.items()}
        row[f"ms{suffix}"] = {name: spread_of(each) for name, each in values.items()}
        row[f"ratio{suffix}"] = {
            name: spread_of([left / right for left, right in zip(values[first], each, strict=True)], digits=2)
            for name, each in values.items()
            if name != first
        }
    row["output_rms"] = {name: round(float(np.sqrt((out**2).mean())), 4) for name, out in outputs.items()}
    exact = outputs[first].ravel()
    row["cosine"] = {
        name: round(float(exact @ out.ravel() / (np.linalg.norm(exact) * np.linalg.norm(out))), 5)
        for name, out in outputs.items()
        if name != first
    }
    return row


def spread_of(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    """Median, least and largest."""
    return {
        "median": round(statistics.median(values), digits),
        "least": round(min(values), digits),
        "most": round(max(values), digits),
    }
