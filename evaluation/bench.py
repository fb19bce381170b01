"""Times of one or two bundles, stage by stage, interleaved on the same pictures, and of a peer beside them.

Two bundles (say INT8 and float) take turns picture by picture, so that a busy machine is busy for both. The
peer is transformers' own `generate` on the checkpoint and the same tiles, where torch is installed.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.capture.frame import Frame, read_picture
from ..runtime.errors import DataSetError
from ..runtime.infer.bundle import Bundle, CompiledRecipe
from ..runtime.infer.inspector import Inspection, Inspector
from ..runtime.infer.pictures.views import grey, patches_from_view, view_from_frame
from ..runtime.infer.shape import ModelShape
from .evaluate import rounded
from .rates.cost import passes_summary
from .sets.example import Example
from .sets.source import rows_from_source
from .terminal import Progress

DEFAULT_SCENES = "scenes:pcb?seed=9001&parts=4"
PEER_TILES = 8


@dataclass
class _Timed:
    """One bundle's measurements: milliseconds by stage, one entry an inspection, and its inspections."""

    stages: dict[str, list[float]] = field(default_factory=dict)
    inspections: list[Inspection] = field(default_factory=list)

    def add(self, inspection: Inspection, total_ms: float) -> None:
        """Note one inspection."""
        self.inspections.append(inspection)
        for name, value in {**inspection.timings_ms, "total": total_ms}.items():
            self.stages.setdefault(name, []).append(value)


def bench_bundles(
    bundles: Sequence[Path], images: Sequence[Path] = (), *, template: Path | None = None, threads: int = 2,
    rounds: int = 3, peer_checkpoint: Path | None = None, progress: Progress | None = None,
) -> dict[str, Any]:
    """Inspect every picture `rounds` times with each bundle, in turns; one JSON-ready object.

    Pictures: `images` with their templates (`ID_test.jpg` beside `ID_temp.jpg`, or one `template` for all),
    else four scenes. The first pass over the pictures warms up and is not counted.
    """
    examples = examples_from_images(images, template)
    opened = [Bundle.open(path) for path in bundles]
    timed = [_Timed() for _ in opened]
    with ExitStack() as stack:
        inspectors = [stack.enter_context(Inspector(bundle, None, threads)) for bundle in opened]
        for turn in range(rounds + 1):
            for number, example in enumerate(examples):
                frame = example.frame(number)
                for inspector, notes in zip(inspectors, timed, strict=True):
                    started = time.perf_counter()
                    inspection = inspector.inspect(frame)
                    if turn:
                        notes.add(inspection, 1000.0 * (time.perf_counter() - started))
                if progress:
                    progress(turn * len(examples) + number + 1, (rounds + 1) * len(examples), "bench")
    first = examples[0]
    result = {
        "pictures": [example.name for example in examples], "rounds": rounds, "threads": threads,
        "bundles": [_bundle_row(path, bundle, notes, first, threads)
                    for path, bundle, notes in zip(bundles, opened, timed, strict=True)],
        "peer": peer_times(peer_checkpoint, opened[0], first, threads),
    }
    return dict(rounded(result))


def examples_from_images(images: Sequence[Path], template: Path | None) -> list[Example]:
    """Pictures with their templates; without pictures four scenes of a fixed seed."""
    if not images:
        return [row.read() for row in rows_from_source(DEFAULT_SCENES)]
    examples = []
    for image in images:
        beside = image.with_name(image.name.replace("_test.", "_temp."))
        golden = template if template is not None else beside
        if golden == image or not golden.is_file():
            raise DataSetError(f"{image} has no template beside it; name it ID_test.jpg with ID_temp.jpg, "
                               "or give --template")
        part, other = grey(read_picture(image)), grey(read_picture(golden))
        examples.append(Example(image.name, "images", part, other, ()))
    return examples


def _bundle_row(path: Path, bundle: Bundle, notes: _Timed, example: Example, threads: int) -> dict[str, Any]:
    """One bundle's line of the result."""
    decoding = sum(sum(notes.stages[stage]) for stage in ("vision", "prefill", "decode"))
    decoded = sum(one.passes.tiles_decoded for one in notes.inspections)
    return {
        "name": path.name, "id": bundle.id, "precision": bundle.precision,
        "median_ms": {stage: statistics.median(values) for stage, values in notes.stages.items()},
        "passes": passes_summary([(one.passes, len(one.defects)) for one in notes.inspections]),
        "ms_per_decoded_tile": decoding / decoded if decoded else None,
        "peak_rss_mib": peak_rss_mib(path, example.frame(0), threads),
    }


def peak_rss_mib(bundle: Path, frame: Frame, threads: int) -> float:
    """Peak resident memory, MiB, of a fresh process that opens `bundle` and inspects one frame."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_inspect_once, args=(bundle, frame, threads, sender))
    child.start()
    sender.close()
    try:
        return float(receiver.recv())
    except EOFError:
        return float("nan")
    finally:
        child.join()


def _inspect_once(bundle: Path, frame: Frame, threads: int, sender: Any) -> None:
    """The child of `peak_rss_mib`."""
    with Inspector(Bundle.open(bundle, verify=False), None, threads) as inspector:
        inspector.inspect(frame)
    sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0)


def peer_times(checkpoint: Path | None, bundle: Bundle, example: Example, threads: int) -> dict[str, Any]:
    """transformers' greedy `generate` on up to eight tiles of one part in one batch, or a `reason` why not.

    The peer sees the same registered tiles and the same prompt; nothing guides its answer.
    """
    if checkpoint is None:
        return {"reason": "not run: no checkpoint was given (--peers CHECKPOINT)"}
    try:
        import torch
        import transformers
    except ImportError as error:
        return {"reason": f"not run: {error.name or 'torch'} is not installed"}
    torch.set_num_threads(threads)
    compiled = bundle.recipe(None)
    patches = _peer_patches(compiled, example, bundle.shape)
    if len(patches) == 0:
        return {"reason": f"not run: no tile of {example.name} differs from its template"}
    model: Any = transformers.Qwen3VLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.float32)
    arguments = _peer_arguments(torch, bundle.shape, compiled, patches)
    times: list[float] = []
    new_tokens = 0
    for _ in range(3):
        model.model.rope_deltas = None
        started = time.perf_counter()
        with torch.no_grad():
            answer = model.eval().generate(**arguments, max_new_tokens=compiled.recipe.token_budget,
                                           do_sample=False)
        times.append(1000.0 * (time.perf_counter() - started))
        new_tokens = int(answer.shape[1] - arguments["input_ids"].shape[1])
    return {"library": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "tiles": len(patches), "ms_per_tile": statistics.median(times[1:]) / len(patches),
            "new_tokens_per_tile": new_tokens}


def _peer_patches(compiled: CompiledRecipe, example: Example, shape: ModelShape) -> npt.NDArray[np.float32]:
    """[tiles, pictures * N, 1536] of the first tiles that pass the gate, as our own pipeline cuts them."""
    view = view_from_frame(compiled.recipe, example.frame(0))
    return patches_from_view(view.cut(range(len(view.tiles))[:PEER_TILES]), shape.patch_px, shape.merge)


def _peer_arguments(
    torch: Any, shape: ModelShape, compiled: CompiledRecipe, patches: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Keyword arguments of transformers' `generate` for a batch of tiles with the recipe's prompt."""
    ids = list(compiled.prefix_ids)
    for text in (*compiled.between_ids, compiled.suffix_ids):
        ids += [*[shape.image_token_id] * shape.tokens, *text]
    tokens = torch.tensor([ids] * len(patches))
    return {
        "input_ids": tokens, "attention_mask": torch.ones_like(tokens),
        "mm_token_type_ids": (tokens == shape.image_token_id).int(),
        "pixel_values": torch.from_numpy(patches.reshape(-1, patches.shape[-1])),
        "image_grid_thw": torch.tensor([[1, *shape.grid_hw]] * len(patches) * compiled.recipe.pictures),
    }
