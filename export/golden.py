"""Golden frames: what a device's engine must reproduce, and how closely.

The bundle's own graphs run a few calibration tiles; then they run them again, perturbed: inputs through
float16 and with noise of its rounding, every activation scale moved by up to one INT8 step, each row alone,
the decoder in two chunks. An engine that is right differs from ONNX Runtime by no more than such things do,
so the tolerance of an output is three times the largest spread seen over at least twenty runs. Choices whose
margin is below five spreads could fall either way on a healthy engine: they are left out, and a frame that
has no others gates nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ..calibration.int8_graph import ROW_SCALE
from ..calibration.ranges import Progress
from ..calibration.sessions import Feed, MaskedFeed, Session
from ..runtime.errors import EngineError
from ..runtime.infer.golden_frames import COUNTED, EXACT, EXPECTED, INPUT, largest_difference
from ..runtime.infer.guide import Guide
from .calibration_feeds import CalibrationTiles

Floats = npt.NDArray[np.float32]
RunExact = Callable[[str, Mapping[str, Floats]], dict[str, Floats]]  # (component, feeds) -> the float outputs

RUNS = 20
TIMES_SPREAD = 3.0
TIMES_MARGIN = 5.0
_FLOAT16_HALF_STEP = 2.0**-11
_INT8_STEPS = 127.0
_LEAST = 1e-6  # of the largest value: below it, sums added in another order differ


def write_golden(
    folder: Path,
    feeds: Mapping[str, Feed],
    tiles: CalibrationTiles,
    run_exact: RunExact,
    *,
    threads: int = 2,
    progress: Progress,
) -> dict[str, Any]:
    """Frames of every component in `feeds`, and of the head by the choices of `tiles`; for the manifest.

    `feeds` holds the one feed of each component that shows `tiles`.
    """
    head = f"head_schema.{tiles.compiled.recipe.id}"
    total = len(feeds) + 1
    entries: dict[str, Any] = {}
    for index, (component, feed) in enumerate(feeds.items()):
        progress("golden frames", index, total)
        entries[component], runs = write_golden_frame(folder, component, feed, run_exact, threads=threads)
        if component == "decoder":
            columns = runs[0]["hidden"].shape[1]
            choices = [
                choice
                for row, answer in enumerate(tiles.answers)
                for choice in choices_of_answer(
                    tiles.compiled.guide, answer.ids, row, columns - len(answer.ids) + 1
                )
            ]
            if choices:
                entries[head] = write_golden_choices(folder, head, runs, choices, run_exact, threads=threads)
    progress("golden frames", total, total)
    return entries


def write_golden_frame(
    folder: Path,
    component: str,
    feed: Feed,
    run_exact: RunExact,
    *,
    threads: int = 2,
    seed: int = 0,
) -> tuple[dict[str, Any], list[dict[str, Floats]]]:
    """golden/<component>.npz below the bundle `folder`; its manifest entry, and `hidden` of every run.

    The first of them is the unperturbed run's; a component without that output gives empty ones. EngineError
    as the graphs raise it, and for outputs that are not finite.
    """
    inputs, counted = _parts(feed)
    runs = _runs(folder / f"{component}.onnx", inputs, np.random.default_rng(seed), threads)
    expected = next(runs)
    spread = dict.fromkeys(expected, 0.0)
    kept = [_hidden(expected)]
    for run in runs:  # one at a time: keys and values of a 2B model are hundreds of MB a run
        for name, values in expected.items():
            spread[name] = max(spread[name], largest_difference(values, run[name], counted))
        kept.append(_hidden(run))
    broken = [name for name, largest in spread.items() if not np.isfinite(largest)]
    if broken:  # a tolerance without end would let every engine pass
        raise EngineError(
            f"golden frame of {component}: {broken[0]} is not finite in float16-like runs;"
            " export with --precision float32"
        )
    tolerance = {
        name: max(TIMES_SPREAD * spread[name], _LEAST * float(np.abs(values).max(initial=0.0)))
        for name, values in expected.items()
    }
    entry = _stored(folder, component, inputs, expected, run_exact(component, inputs), counted)
    return entry | {"tolerance": tolerance, "runs": len(kept) - 1, "may_gate": True}, kept


def write_golden_choices(
    folder: Path,
    head: str,
    decoder_runs: Sequence[Mapping[str, Floats]],
    choices: Sequence[tuple[int, int, npt.NDArray[np.int64]]],
    run_exact: RunExact,
    *,
    threads: int = 2,
) -> dict[str, Any]:
    """The frame of a schema head, from `write_golden_frame`'s runs of the decoder; its manifest entry.

    `choices` are (row, column, allowed rows of the head) of the decoder's hidden state. Kept are those whose
    margin between the two best allowed logits is five times the spread that the decoder's runs leave there.
    """
    places = [(row, column) for row, column, _ in choices]
    with Session(folder / f"{head}.onnx", threads=threads) as session:
        logits = [session.run({"hidden": _at(run["hidden"], places)})["logits"] for run in decoder_runs]
    kept, margins = [], []
    for index, (_, _, allowed) in enumerate(choices):
        values = [run[index][allowed] for run in logits]
        spread = max(float(np.abs(run - values[0]).max()) for run in values[1:])
        second, best = np.sort(values[0])[-2:]
        if best - second >= TIMES_MARGIN * spread:
            kept.append(index)
            margins.append(float(best - second))
    used = kept or list(range(len(choices)))
    inputs = {"hidden": _at(decoder_runs[0]["hidden"], [places[index] for index in used])}
    expected = {"logits": logits[0][used]}
    spread = max(largest_difference(expected["logits"], run[used]) for run in logits[1:])
    entry = _stored(folder, head, inputs, expected, run_exact(head, inputs), None)
    return entry | {
        "tolerance": {"logits": max(TIMES_SPREAD * spread, _LEAST)},
        "runs": len(decoder_runs) - 1,
        "may_gate": bool(kept),
        "choices": len(choices),
        "choices_kept": len(kept),
        "least_margin": min(margins, default=0.0),
    }


def choices_of_answer(
    guide: Guide, ids: Sequence[int], row: int, first_column: int
) -> list[tuple[int, int, npt.NDArray[np.int64]]]:
    """(row, column, allowed rows of the head) for each choice of an answer fed behind `first_column`.

    The hidden state that decides token i is that of the token before it, at first_column + i - 1.
    """
    found = []
    state = guide.start
    for index, token in enumerate(ids):
        if guide.is_choice(state):
            found.append((row, first_column + index - 1, np.asarray(guide.choice(state).rows, np.int64)))
        state = guide.states[state][token]
    return found


def _runs(
    graph: Path, inputs: Mapping[str, Floats], draw: np.random.Generator, threads: int
) -> Iterator[dict[str, Floats]]:
    """The plain run, then RUNS perturbed ones."""
    changed = [_halved(inputs), *(_with_noise(inputs, draw) for _ in range(RUNS // 2 - 3))]
    with Session(graph, threads=threads) as session:
        yield session.run(inputs)
        for each in changed:
            yield session.run(each)
        yield _rows_alone(session, inputs)
        yield (
            _in_two_chunks(session, inputs) if "past_kv" in inputs else _rows_alone(session, _halved(inputs))
        )
    model = onnx.load(str(graph), load_external_data=False)
    for _ in range(RUNS - len(changed) - 2):
        moved = _scales_moved(model, draw)
        source = graph if moved is None else moved
        with Session(source, folder=graph.parent, threads=threads) as session:
            yield session.run(_with_noise(inputs, draw))


def _hidden(run: Mapping[str, Floats]) -> dict[str, Floats]:
    """The one output that the head's frame needs."""
    return {name: run[name] for name in ("hidden",) if name in run}


def _halved(inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """Through float16, as the TensorRT flavour takes it: clipped, never infinite."""
    most = np.finfo(np.float16).max
    return {
        name: np.clip(values, -most, most).astype(np.float16).astype(np.float32)
        for name, values in inputs.items()
    }


def _with_noise(inputs: Mapping[str, Floats], draw: np.random.Generator) -> dict[str, Floats]:
    """Each value moved within its float16 rounding; the mask stays, its values are exact there."""
    noisy = {}
    for name, values in inputs.items():
        noise = draw.uniform(-_FLOAT16_HALF_STEP, _FLOAT16_HALF_STEP, values.shape)
        noisy[name] = values if name == "mask" else (values * (1 + noise)).astype(np.float32)
    return noisy


def _rows_alone(session: Session, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    rows = len(next(iter(inputs.values())))
    runs = [
        session.run({name: values[row : row + 1] for name, values in inputs.items()}) for row in range(rows)
    ]
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}


def _in_two_chunks(session: Session, inputs: Mapping[str, Floats]) -> dict[str, Floats]:
    """The decoder over the first half of the columns, then over the second behind the first's keys."""
    columns, slots = inputs["embeds"].shape[1], inputs["past_kv"].shape[4]
    half = columns // 2
    by_column = {"embeds": 1, "cos": 1, "sin": 1, "deepstack": 2}

    def chunk(start: int, stop: int, past: Floats) -> dict[str, Floats]:
        feeds = {name: np.take(inputs[name], range(start, stop), axis) for name, axis in by_column.items()}
        mask = inputs["mask"][:, start:stop, : slots + stop]
        return session.run(feeds | {"past_kv": past, "mask": np.ascontiguousarray(mask)})

    first = chunk(0, half, inputs["past_kv"])
    behind = np.concatenate([inputs["past_kv"], first["new_kv"]], axis=4)
    second = chunk(half, columns, behind)
    return {
        "hidden": np.concatenate([first["hidden"], second["hidden"]], axis=1),
        "new_kv": np.concatenate([first["new_kv"], second["new_kv"]], axis=4),
    }


def _scales_moved(model: onnx.ModelProto, draw: np.random.Generator) -> bytes | None:
    """The graph with every activation scale moved by up to one step of 127; None where it has none."""
    quantisers = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    if not quantisers:
        return None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in quantisers:
            # a per-row scale only ever grows: its largest value is 127 already and would be clipped
            low = 0.0 if tensor.name == ROW_SCALE else -1 / _INT8_STEPS
            moved = numpy_helper.to_array(tensor) * (1 + draw.uniform(low, 1 / _INT8_STEPS))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return bytes(copy.SerializeToString())


def _parts(feed: Feed) -> tuple[dict[str, Floats], npt.NDArray[np.bool_] | None]:
    if isinstance(feed, MaskedFeed):
        return {name: np.asarray(values) for name, values in feed.inputs.items()}, np.asarray(feed.counted)
    return {name: np.asarray(values) for name, values in feed.items()}, None


def _at(hidden: Floats, places: Sequence[tuple[int, int]]) -> Floats:
    """hidden [B, K, H] at (row, column) places -> [places, H]."""
    return np.stack([hidden[row, column] for row, column in places])


def _stored(
    folder: Path,
    component: str,
    inputs: Mapping[str, Floats],
    expected: Mapping[str, Floats],
    exact: Mapping[str, Floats],
    counted: npt.NDArray[np.bool_] | None,
) -> dict[str, Any]:
    """Write the frame's file; the beginning of its manifest entry.

    Float keys and values are left out: nothing is held against them, and at 2B they are 70 MB a tile.
    """
    exact = {name: values for name, values in exact.items() if name != "new_kv"}
    path = folder / "golden" / f"{component}.npz"
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {} if counted is None else {f"{COUNTED}/": counted}
    for kind, values in ((INPUT, inputs), (EXPECTED, expected), (EXACT, exact)):
        arrays |= {f"{kind}/{name}": array for name, array in values.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)
    return {"file": path.relative_to(folder).as_posix()}
