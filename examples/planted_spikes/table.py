"""The table remedy x plant: what each way to INT8 leaves of a checkpoint with planted spikes.

    python -m orinspect.examples.planted_spikes.table

Every planted checkpoint answers in float as the reference does. For each, the float graphs are calibrated on
CALIBRATION, rewritten by each remedy, and judged by the gate on BOARDS, which nothing has seen. Writes
`table.json` beside this file and the table into docs/int8.md; takes about a quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from orinspect.calibration.choice import LinearChoice
from orinspect.calibration.int8_graph import int8_from_float, linear_bytes
from orinspect.calibration.linears import Weights
from orinspect.calibration.ranges import InputStatistics, ranges_from_runs
from orinspect.calibration.sessions import Feed, MaskedFeed
from orinspect.evaluation.gate.gate import GateReport, gate
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.examples.planted_spikes.plant import PLANTS, plant
from orinspect.examples.planted_spikes.remedies import REMEDIES
from orinspect.examples.planted_spikes.tokens import Tokens, recorded_feeds, tokens_of
from orinspect.export.bundle import write_manifest
from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.runtime.infer.bundle import MANIFEST, Bundle

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHECKPOINT, RECIPE = ROOT / "examples/reference/reference", ROOT / "examples/reference/pcb-compare.toml"
PAGE, RESULT = ROOT / "docs" / "int8.md", HERE / "table.json"
CALIBRATION = "scenes:pcb?seed=62000&parts=12"
BOARDS = "scenes:pcb?seed=63000&parts=24"
COMPONENTS = ("vision", "attributes", "decoder")
BEGIN, END = "<!-- planted spikes: begin -->", "<!-- planted spikes: end -->"


@dataclass(frozen=True)
class Planted:
    """A planted checkpoint's float bundle, and what calibration measured on it."""

    name: str
    bundle: Path
    statistics: dict[str, list[InputStatistics]]


def planted(
    name: str, tokens: Tokens, work: Path, calibration: str = CALIBRATION, checkpoint: Path = CHECKPOINT
) -> Planted:
    """Plant, export in float32 and calibrate, all in the folder `work`."""
    plant(checkpoint, work / name, name, tokens)
    bundle = work / f"{name}-float"
    export_checkpoint(work / name, [RECIPE], calibration, bundle, precision="float32", threads=1)
    feeds = recorded_feeds(Bundle.open(bundle), calibration)
    statistics = {
        component: list(
            ranges_from_runs(bundle / f"{component}.onnx", _masked(feeds[component]), threads=1).values()
        )
        for component in COMPONENTS
    }
    return Planted(name, bundle, statistics)


def remedied(one: Planted, remedy: str, out: Path) -> tuple[dict[str, tuple[LinearChoice, ...]], float]:
    """Write the INT8 bundle of one remedy; returns the choices, and the linears' bytes against float32."""
    shutil.copytree(one.bundle, out)
    choices, stored, float32 = {}, 0, 0
    for component, statistics in one.statistics.items():
        model = onnx.load(str(one.bundle / f"{component}.onnx"))
        choices[component] = REMEDIES[remedy](statistics, Weights(model))
        int8 = int8_from_float(model, choices[component])
        onnx.save(int8, str(out / f"{component}.onnx"))
        size = linear_bytes(int8)
        stored, float32 = stored + size.stored, float32 + size.float32
    entries = json.loads((out / MANIFEST).read_text(encoding="utf-8")) | {"precision": "int8"}
    del entries["files"], entries["manifest_sha256"]
    (out / MANIFEST).unlink()
    write_manifest(out, entries)
    return choices, stored / float32


def judged(
    one: Planted, remedy: str, work: Path, boards: str = BOARDS
) -> tuple[GateReport, dict[str, tuple[LinearChoice, ...]], float]:
    """The gate's report on one remedy, its choices and its size."""
    out = work / f"{one.name}-{remedy.replace(' ', '-')}"
    choices, ratio = remedied(one, remedy, out)
    rows = rows_from_source(boards)
    report = gate(one.bundle, out, "pcb-compare", {"validation": rows}, choices, threads=1)
    shutil.rmtree(out)
    return report, choices, ratio


def measured(
    work: Path, plants: Sequence[str], remedies: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    """The cells of these plants and remedies as JSON values."""
    tokens = tokens_of(CHECKPOINT, RECIPE, work)
    cells: dict[str, dict[str, Any]] = {}
    for name in plants:
        one = planted(name, tokens, work)
        cells[name] = {}
        for remedy in remedies:
            report, choices, ratio = judged(one, remedy, work)
            cells[name][remedy] = cell(report, choices, ratio)
            say(f"{name}, {remedy}: {cells[name][remedy]}")
    return {"calibration": CALIBRATION, "boards": BOARDS, "plants": cells}


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """What a run over some plants and remedies measured replaces those cells, if the boards are the same."""
    if {**before, "plants": None} != {**now, "plants": None}:
        return dict(now)
    cells = {name: before["plants"].get(name, {}) | now["plants"].get(name, {}) for name in PLANTS}
    return {**now, "plants": {name: of_plant for name, of_plant in cells.items() if of_plant}}


def cell(
    report: GateReport, choices: Mapping[str, Sequence[LinearChoice]], ratio: float
) -> dict[str, Any]:
    """One cell of the table."""
    seen = report.pictures["validation"]
    assert seen.f is not None
    worst = max(seen.components, key=lambda name: seen.components[name].relative_error)
    return {
        "passed": report.passed,
        "f_float": round(seen.f.f_float, 4),
        "f_int8": round(seen.f.f_int8, 4),
        "interval": [round(end, 4) for end in seen.f.interval],
        "defects": seen.f.defects,
        "tokens": round(seen.tokens.share, 4),
        "worst_component": worst,
        "worst_error": round(seen.components[worst].relative_error, 4),
        "linear_bytes": round(ratio, 3),
        "modes": _modes([choice for of_component in choices.values() for choice in of_component]),
    }


def _modes(choices: Sequence[LinearChoice]) -> dict[str, int]:
    names = [choice.mode if choice.alpha is None else f"{choice.mode} smoothed" for choice in choices]
    return {name: names.count(name) for name in sorted(set(names))}


def markdown(result: Mapping[str, Any]) -> str:
    """The table, a row a remedy, a column a plant."""
    plants = result["plants"]
    first = next(iter(plants.values()))["ours"]
    caption = (
        "F in INT8 / largest relative error of a component's output / tokens as float. In float every one has"
        f" F {first['f_float']:.3f} ({first['defects']} defects on `{result['boards']}`, calibrated on"
        f" `{result['calibration']}`). **Bold**: the gate lets it pass."
    )
    lines = [
        caption,
        "",
        "| | " + " | ".join(plants) + " |",
        "|---" * (len(plants) + 1) + "|",
    ]
    for remedy in next(iter(plants.values())):
        cells = [_shown(of_plant[remedy]) for of_plant in plants.values()]
        lines.append(f"| {remedy} | " + " | ".join(cells) + " |")
    intervals = [
        f"{name} {low:+.3f} to {high:+.3f}"
        for name, of_plant in plants.items()
        for low, high in [of_plant["ours"]["interval"]]
    ]
    kept = [
        f"{name} {of_plant['ours']['linear_bytes']:.0%} ({_counts(of_plant['ours']['modes'])})"
        for name, of_plant in plants.items()
    ]
    lines += [
        "",
        f"Change of F with ours, 95 % of paired resamples of the boards: {', '.join(intervals)}.",
        "",
        f"Linears with ours, bytes against float32 and how they run: {'; '.join(kept)}.",
    ]
    return "\n".join(lines)


def _shown(one: Mapping[str, Any]) -> str:
    text = f"{one['f_int8']:.3f} / {one['worst_error']:.3f} / {one['tokens']:.1%}"
    return f"**{text}**" if one["passed"] else text


def _counts(modes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {mode.replace('_', ' ')}" for mode, count in modes.items())


def page_with(page: str, table: str) -> str:
    """`page` with what stands between the two marks replaced."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n{table}\n{END}{tail}"


def _masked(feeds: Sequence[Mapping[str, Any]]) -> list[Feed]:
    """Padded tokens of the decoder's batches do not count."""
    return [
        MaskedFeed(feed, np.asarray(feed["embeds"].any(axis=-1), np.bool_)) if "embeds" in feed else feed
        for feed in feeds
    ]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the table remedy x plant; see the module.")
    parser.add_argument("--plants", nargs="+", choices=tuple(PLANTS), default=list(PLANTS))
    parser.add_argument("--remedies", nargs="+", choices=tuple(REMEDIES), default=list(REMEDIES))
    parser.add_argument("--print", action="store_true", help="print, and leave the page and JSON alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        result = measured(
            Path(work), arguments.plants, arguments.remedies, lambda line: print(line, flush=True)
        )
    if arguments.print:
        print(markdown(result))
        return
    if RESULT.exists():
        result = merged(json.loads(RESULT.read_text(encoding="utf-8")), result)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page_with(page, markdown(result)), encoding="utf-8")


if __name__ == "__main__":
    main()
