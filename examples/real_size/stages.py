"""The stages of an export at real size, each run in a process of its own by `measure.py`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from ...calibration.calibrate import calibrate, calibration_report
from ...calibration.choice import LinearChoice
from ...calibration.linears import linears_of
from ...calibration.streamed import StreamedEngine
from ...export.graph.graphs import graphs_from_checkpoint
from ...export.int8 import float16_to_files, int8_to_files
from ...runtime.infer.engines.engine import Engine
from ...runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from ...runtime.infer.engines.past import bucket_of
from ...runtime.infer.shape import ModelShape
from ...tests.tiny_checkpoint import TinySizes
from .child import Say
from .make_checkpoint import write_checkpoint
from .turns import PREFIX_TOKENS, TEXT_TOKENS, feed_of

ANSWER_PASSES = 30
"""Decoder passes of one answer in the extrapolation: choices of about two defects of the shipped recipe."""
ANSWER_BATCH = 16
ANSWER_TOKENS = 60
"""Tokens of an answer that calibration feeds behind the picture."""


def checkpoint_stage(say: Say, folder: Path, sizes: TinySizes, seed: int) -> dict[str, Any]:
    """The random checkpoint."""
    write_checkpoint(folder, sizes, seed=seed, progress=_percent(say, "checkpoint"))
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def graphs_stage(say: Say, checkpoint: Path, out: Path, tile_px: int, kept: int | None) -> dict[str, Any]:
    """The float graphs and the embeddings, with a word head of the first `kept` tokens (None: all)."""
    files = graphs_from_checkpoint(
        checkpoint,
        out,
        tile_px=tile_px,
        kept_ids=None if kept is None else range(kept),
        embeddings_type="float16",
        progress=lambda component: say(f"float graphs: {component}"),
    )
    return {"bytes": component_bytes(out), "shape": files.shape.to_json()}


def int8_stage(say: Say, exact: Path, out: Path) -> dict[str, Any]:
    """The INT8 graphs of both flavours over shared weights: per_row everywhere, the word head in float16."""
    out.mkdir(parents=True, exist_ok=True)

    def progress(what: str, done: int, total: int) -> None:
        if total and (done == total or done % 50 == 0):
            say(f"{what}: {done} of {total}")

    seconds = {}
    for component in ("vision", "decoder"):
        started = time.perf_counter()
        path = exact / f"{component}.onnx"
        int8_to_files(path, per_row_choices(path), out, component, progress=progress)
        seconds[component] = round(time.perf_counter() - started, 1)
    float16_to_files(exact / "head_schema.onnx", out, "head_schema")
    return {"bytes": component_bytes(out), "seconds": seconds}


def answers_stage(
    say: Say, graphs: Path, shape: ModelShape, whole: ModelShape, pictures: int, threads: int
) -> dict[str, Any]:
    """The greedy answers that calibration feeds, block by block and with the whole decoder in memory.

    One prefill and one pass of ANSWER_BATCH pictures are timed on the slice `shape`; multiplied by the layers
    of `whole`, by the batches of `pictures`, and by ANSWER_PASSES passes an answer.
    """
    prefill = shape.tokens + TEXT_TOKENS
    behind = PREFIX_TOKENS + prefill
    feeds = {
        "prefill": feed_of(shape, k=prefill, past=PREFIX_TOKENS, batch=ANSWER_BATCH),
        "pass": feed_of(shape, k=1, past=behind, batch=ANSWER_BATCH),
    }
    times: dict[str, float] = {"layers": shape.layers, "pictures": ANSWER_BATCH}
    minutes: dict[str, float] = {"layers": whole.layers, "pictures": pictures, "passes": ANSWER_PASSES}
    scale = -(-pictures // ANSWER_BATCH) * whole.layers / shape.layers / 60
    openers: dict[str, Callable[[], Engine]] = {
        "streamed": lambda: StreamedEngine(graphs / "decoder.onnx", threads=threads),
        "in_memory": lambda: OnnxruntimeEngine(graphs / "decoder.onnx", threads=threads),
    }
    for kind, opened in openers.items():
        engine = opened()
        found = {name: _least(partial(engine.run, feed), threads) for name, feed in feeds.items()}
        engine.close()
        say(f"answers, {kind}: " + ", ".join(f"{name} {found[name].wall_s:.2f} s" for name in found))
        for what in ("wall_s", "idle_s"):
            each = {name: getattr(took, what) for name, took in found.items()}
            times |= {f"{kind}_{name}_{what}": round(value, 2) for name, value in each.items()}
            total = scale * (each["prefill"] + ANSWER_PASSES * each["pass"])
            minutes[f"{kind}_{what.replace('_s', '_minutes')}"] = round(total, 1)
    past = whole.past_kv_shape(ANSWER_BATCH, bucket_of(behind + ANSWER_TOKENS))
    minutes["past_gb"] = round(4 * math.prod(past) / 1e9, 2)
    return {"measured": times, "extrapolated": minutes}


@dataclass(frozen=True)
class _Took:
    """Seconds of one piece of work: by the clock, and by its processor time spread over the threads."""

    wall_s: float
    idle_s: float


def _least(work: Callable[[], Any], threads: int, times: int = 2) -> _Took:
    """The least of a few runs."""
    runs = []
    for _ in range(times):
        started, cpu = time.perf_counter(), time.process_time()
        work()
        wall_s = time.perf_counter() - started
        runs.append((wall_s, (time.process_time() - cpu) / threads))
    return _Took(*(min(run[place] for run in runs) for place in (0, 1)))


def calibration_stage(
    say: Say, folder: Path, shape: ModelShape, whole: ModelShape, pictures: int, target: int, threads: int
) -> dict[str, Any]:
    """Calibrate vision and decoder of the slice `shape` on `pictures` random pictures, block by block.

    Extrapolated by the weights of `whole`: what a block takes once, what it takes a picture (times `target`),
    and the confirmation of the worst linears, whose pictures do not grow in number. "idle" minutes leave out
    the time that was spent waiting for a core.
    """
    tokens = (
        {"patches": shape.patches},
        {"k": shape.tokens + TEXT_TOKENS + ANSWER_TOKENS, "past": PREFIX_TOKENS},
    )
    measured: dict[str, Any] = {
        "layers": shape.layers,
        "vision_blocks": shape.vision_depth,
        "pictures": pictures,
    }
    minutes: dict[str, float] = {}
    for component, sizes in zip(("vision", "decoder"), tokens, strict=True):
        path = folder / "float" / f"{component}.onnx"
        feeds = [feed_of(shape, **sizes, seed=number) for number in range(pictures)]
        started, cpu = time.perf_counter(), time.process_time()
        choices = calibrate(
            path, feeds, folder, threads=threads, progress=lambda what, done, total: say(what)
        )
        wall = time.perf_counter() - started
        idle_share = min(1.0, (time.process_time() - cpu) / threads / wall)
        blocks = [block["seconds"] for block in calibration_report(path, folder)["blocks"]]
        once = sum(block["once"] for block in blocks)
        each = sum(block["float_feed"] + block["int8_feed"] for block in blocks)
        rest = max(0.0, wall - once - pictures * each)
        measured[component] = {
            "wall_s": round(wall, 1),
            "blocks_once_s": round(once, 3),
            "blocks_a_picture_s": round(each, 2),
            "confirmation_s": round(rest, 1),
            **Counter(choice.mode for choice in choices),
        }
        share = linear_weights(component, whole) / linear_weights(component, shape)
        total = share * (once + target * each + rest) / 60
        minutes |= {f"{component}_minutes": total, f"{component}_idle_minutes": idle_share * total}
    return {
        "measured": measured,
        "extrapolated": {
            "layers": whole.layers,
            "vision_blocks": whole.vision_depth,
            "pictures": target,
            **{name: round(value, 1) for name, value in minutes.items()},
        },
    }


def linear_weights(component: str, shape: ModelShape) -> int:
    """Numbers in the weights of the linears of `vision` or `decoder`."""
    if component == "decoder":
        heads = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
        return shape.layers * shape.hidden * (heads + 3 * shape.intermediate)
    width, merged = shape.vision_hidden, shape.vision_hidden * shape.merge**2
    mergers = (1 + len(shape.deepstack)) * merged * (merged + shape.hidden)
    block = width * (4 * width + 2 * shape.vision_intermediate)
    return shape.patch_features * width + shape.vision_depth * block + mergers


def per_row_choices(graph: Path) -> tuple[LinearChoice, ...]:
    """Every linear of a float graph in per_row INT8, the mode that needs no measured range."""
    model = onnx.load(str(graph), load_external_data=False)
    return tuple(
        LinearChoice(
            linear.name,
            linear.input,
            "per_row",
            clip=None,
            clip_from=None,
            error_static=None,
            error_per_row=None,
            rows=0,
            in_features=linear.in_features,
            out_features=linear.out_features,
        )
        for linear in linears_of(model)
    )


def component_bytes(folder: Path) -> dict[str, int]:
    """Component -> bytes of its files, external weights included."""
    sizes: dict[str, int] = {}
    for path in folder.iterdir():
        name = path.name.partition(".")[0]
        sizes[name] = sizes.get(name, 0) + path.stat().st_size
    return dict(sorted(sizes.items()))


def _percent(say: Say, what: str) -> Callable[[str, int, int], None]:
    """Progress in steps of ten percent."""
    said = [-1]

    def progress(file: str, done: int, total: int) -> None:
        step = 10 * done // total
        if step > said[0]:
            said[0] = step
            say(f"{what}: {10 * step} % ({file})")

    return progress
