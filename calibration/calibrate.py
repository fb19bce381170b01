"""Ranges and choices for every linear of a component, block by block, in the memory of one block.

`work/<component>.calibration/` holds a record of each finished block and the hidden states behind the last
one. A run that was killed goes on behind its last whole block and ends with the same choices; another graph,
other feeds or other limits start over. Linears that the user keeps float (`keep_float`) are no reason for
that: they change no range, and are applied at the end.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..runtime.errors import CheckpointError, EngineError
from .blocks import Block, blocks_from_model
from .blockwise.block_pass import run_block
from .blockwise.confirm import confirmation_feeds, confirmation_passes, confirmations, suspects_of
from .blockwise.forecast import Forecast, forecast_of_blocks, trial
from .blockwise.records import Records, write_whole
from .choice import Limits, LinearChoice
from .exact_dot import prove_exact_sums
from .linears import linears_of
from .ranges import Progress
from .sessions import Array, Feed, MaskedFeed, inputs_of

_FORM = 1  # of the records: raised when what they hold, or how choices are made, changes
_CONFIRMED = "confirmed.json"


def calibrate(
    path: Path,
    feeds: Sequence[Feed],
    work: Path,
    *,
    limits: Limits | None = None,
    keep_float: Collection[str] = (),
    threads: int = 2,
    progress: Progress | None = None,
) -> tuple[LinearChoice, ...]:
    """A choice for every linear of the float graph at `path`, in graph order.

    `feeds` are read by number, twice a block, and must be the same each time; every fourth is held back for
    choosing. `keep_float` names linears that stay float. `progress` first hears the forecast, then each
    block. CheckpointError: a linear that is not there. EngineError: no feed, values that are not finite, a
    disk without room.
    """
    limits, say = limits or Limits(), progress or _silent
    model = onnx.load(str(path), load_external_data=False)
    blocks = blocks_from_model(model, path.parent)
    _check_names(path, blocks, keep_float)
    prove_exact_sums()
    rows, key = _rows_and_key(model, path.parent, feeds, limits)
    records = Records(work / f"{path.stem}.calibration", blocks, key)
    if records.done < len(blocks):
        plan = records.plan(rows) or _trial_plan(blocks, feeds, rows, work, limits, threads)
        _check_room(work, plan)
        say(f"{path.stem}: {plan}", 1, 1)
    for block in blocks[records.done :]:
        result = run_block(block, feeds, records.hidden, records.folder, limits=limits, threads=threads)
        records.add(block, result)
        say(f"{path.stem}: blocks", records.done, len(blocks))
    order = {linear.name: place for place, linear in enumerate(linears_of(model))}
    choices = sorted(records.choices(), key=lambda choice: order[choice.name])
    choices = [replace(c, mode="float") if c.name in keep_float else c for c in choices]
    needed = _confirmed(records, choices, feeds, keep_float, threads, say)
    return tuple(replace(c, mode="float") if c.name in needed else c for c in choices)


def forecast(
    path: Path, feeds: Sequence[Feed], work: Path, *, limits: Limits | None = None, threads: int = 2
) -> Forecast:
    """What `calibrate` would need from the start, measured on the first block and the first feed."""
    model = onnx.load(str(path), load_external_data=False)
    blocks = blocks_from_model(model, path.parent)
    rows, _ = _rows_and_key(model, path.parent, feeds, limits or Limits())
    return _trial_plan(blocks, feeds, rows, work, limits or Limits(), threads)


def calibration_report(path: Path, work: Path) -> dict[str, Any]:
    """What a finished calibration of `path` found, as plain JSON values.

    blocks: name, the error of the INT8 stream behind it (by value), seconds. confirmed: the suspects and the
    error of the component's outputs with each in INT8 and in float, and which had to stay float.
    """
    folder = work / f"{path.stem}.calibration"
    names = [
        block.name for block in blocks_from_model(onnx.load(str(path), load_external_data=False), folder)
    ]
    documents = [json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    return {
        "blocks": [
            {"name": name, "errors": document["errors"], "seconds": document["seconds"]}
            for name, document in zip(names, documents, strict=True)
        ],
        "confirmed": json.loads((folder / _CONFIRMED).read_text(encoding="utf-8")),
    }


def _trial_plan(
    blocks: Sequence[Block],
    feeds: Sequence[Feed],
    rows: Sequence[int],
    work: Path,
    limits: Limits,
    threads: int,
) -> Forecast:
    """The forecast of the whole, measured on the first block with the first feed."""
    seconds, size = trial(blocks[0], feeds[0], work, limits=limits, threads=threads)
    passes = confirmation_passes(len(rows)) * sum(rows) / len(rows) / rows[0]
    return forecast_of_blocks(blocks, blocks[0], seconds, size, sum(rows) / rows[0], passes)


def _confirmed(
    records: Records,
    choices: Sequence[LinearChoice],
    feeds: Sequence[Feed],
    keep_float: Collection[str],
    threads: int,
    say: Progress,
) -> set[str]:
    """Names of the suspects that have to stay float; read from the record where it is there."""
    path = records.folder / _CONFIRMED
    kept = sorted(keep_float)
    if path.is_file():
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["keep_float"] == kept:
            return set(document["needed"])
    suspects = suspects_of(choices)
    numbers = confirmation_feeds(len(feeds))
    say(f"{records.folder.stem}: worst {len(suspects)} linears on {len(numbers)} feeds", 0, 1)
    error, found = confirmations(
        records.blocks,
        choices,
        {index: feeds[index] for index in numbers},
        {index: records.outputs(index) for index in numbers},
        suspects,
        threads=threads,
    )
    needed = [one.linear for one in found if one.is_needed]
    document = {
        "keep_float": kept,
        "error": error,
        "suspects": [asdict(one) | {"is_needed": one.is_needed} for one in found],
        "needed": needed,
    }
    write_whole(path, json.dumps(document))
    say(f"{records.folder.stem}: worst {len(suspects)} linears on {len(numbers)} feeds", 1, 1)
    return set(needed)


def _rows_and_key(
    model: onnx.ModelProto, folder: Path, feeds: Sequence[Feed], limits: Limits
) -> tuple[list[int], str]:
    """Rows of every feed, and a digest of all that the choices depend on.

    Weights beside the graph count by size and time of their file, for reading them takes longer than a block.
    """
    if not len(feeds):
        raise EngineError(f"{model.graph.name}: no calibration feed; give at least one")
    digest = hashlib.sha256(f"{_FORM} {limits}".encode())
    digest.update(model.SerializeToString(deterministic=True))
    for name in sorted(
        {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    ):
        status = (folder / name).stat()
        digest.update(f"{name} {status.st_size} {status.st_mtime_ns}".encode())
    rows = []
    for number in range(len(feeds)):
        feed = feeds[number]
        inputs = inputs_of(feed)
        counted = {"": feed.counted} if isinstance(feed, MaskedFeed) else {}
        for name, value in sorted((dict(inputs) | counted).items()):
            digest.update(f"{name} {value.dtype} {value.shape}".encode())
            digest.update(np.ascontiguousarray(value).tobytes() if value.size < 64 else _bytes(value))
        first = inputs[model.graph.input[0].name]
        rows.append(int(np.prod(first.shape[:-1])))
    return rows, digest.hexdigest()


def _bytes(value: Array) -> memoryview:
    """The memory of an array, without a copy where it lies in one piece."""
    return np.ascontiguousarray(value).view(np.uint8).reshape(-1).data


def _check_names(path: Path, blocks: Iterable[Block], names: Collection[str]) -> None:
    known = [linear.name for block in blocks for linear in linears_of(block.model)]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise CheckpointError(
                f"{path.name} has no linear {name}, which is to stay float; "
                + (
                    f"did you mean {', '.join(near)}?"
                    if near
                    else f"its linears are {known[0]} to {known[-1]}"
                )
            )


def _check_room(work: Path, plan: Forecast) -> None:
    free = shutil.disk_usage(work).free
    if free < plan.disk_bytes:
        raise EngineError(
            f"calibration needs {plan.disk_bytes / 1e9:.1f} GB for hidden states, {work} has"
            f" {free / 1e9:.1f} GB free: choose another work folder or fewer pictures"
        )


def _silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who gave none."""
