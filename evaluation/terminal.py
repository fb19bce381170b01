"""What the commands of this room show on a terminal: a progress line, and their results as tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from .rates.resampling import trusted_unit

Progress = Callable[[int, int, str], None]
# More are not listed in the table; the JSON has them all.
MOST_BOARDS = 20


class ProgressLine:
    """A `progress(done, total, text)` that writes to a stream; a total of 0 means unknown.

    On a terminal one line is rewritten, at most ten times a second; elsewhere a line is written when another
    tenth is done. What remains is estimated from the pace since the text before its first comma changed.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._topic, self._started, self._written, self._tenth = "", 0.0, -1.0, -1

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show that `done` of `total` steps of `text` are done."""
        now = self._clock()
        topic = text.split(",")[0]
        if topic != self._topic:
            self._topic, self._started, self._written, self._tenth = topic, now, -1.0, -1
        is_finished = total > 0 and done >= total
        line = f"{text}: {done}" + (f"/{total}" if total else "") + self._time(done, total, now)
        if self._stream.isatty():
            if is_finished or now - self._written >= 0.1:
                self._write(f"\r\x1b[K{line}" + ("\n" if is_finished else ""))
                self._written = now
        elif total and done * 10 // total != self._tenth:
            self._write(line + "\n")
            self._tenth = done * 10 // total

    def _time(self, done: int, total: int, now: float) -> str:
        """What remains, or what it took."""
        elapsed = now - self._started
        if total and done >= total:
            return f", {_duration(elapsed)}"
        return f", {_duration(elapsed / done * (total - done))} left" if total and done else ""

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def evaluation_text(result: Mapping[str, Any]) -> str:
    """The result of `evaluate_bundle` as lines of text."""
    warp = "" if result["warp_seed"] is None else f", templates warped with seed {result['warp_seed']}"
    bundle = result["bundle"]
    said = f"{result['parts']} parts, bundle {bundle['id']} {bundle['precision']}, IoU > {result['iou_min']}"
    lines = [
        f"{result['dataset']} ({result['split']}{warp}): {said}",
        "",
        *_detectors(result),
        "",
        *_classes(result["per_class"]),
        "",
        *_sizes(result["recall_by_size"]),
    ]
    boards = result["per_board"]
    if 1 < len(boards) <= MOST_BOARDS:
        lines += ["", "board            parts      P      R      F"]
        lines += [f"{name:<16}{row['parts']:>6}{_prf(row)}" for name, row in boards.items()]
    lines += ["", *_verdicts(result), *_confidences(result), *_measured(result)]
    if result["against"]:
        lines += ["", *_against(result["against"])]
    return "\n".join([*lines, "", *_cost(result)])


def bench_text(result: Mapping[str, Any]) -> str:
    """The result of `bench_bundles` as a table: a row a stage, a column a bundle; medians in ms a part."""
    rows = result["bundles"]
    pictures, rounds, threads = len(result["pictures"]), result["rounds"], result["threads"]
    names = [f"{row['name'][:18]} {row['precision']}" for row in rows]
    lines = [f"{pictures} pictures x {rounds} rounds in turns, {threads} threads; median ms a part",
             "stage".ljust(28) + "".join(f"{name:>28}" for name in names)]
    table = {stage: [row["median_ms"][stage] for row in rows] for stage in rows[0]["median_ms"]}
    for key in ("engine_calls_per_part", "row_passes_per_defect", "canonical_tokens_per_part"):
        table[key.replace("_per_", " a ").replace("_", " ")] = [row["passes"][key] for row in rows]
    table["peak memory MiB"] = [row["peak_rss_mib"] for row in rows]
    table["ms a decoded tile"] = [row["ms_per_decoded_tile"] for row in rows]
    for label, values in table.items():
        shown = ["-" if value is None else f"{value:.1f}" for value in values]
        lines.append(label.ljust(28) + "".join(f"{value:>28}" for value in shown))
    peer = result["peer"]
    if "reason" in peer:
        lines.append(f"peer: {peer['reason']}")
    else:
        lines.append(f"peer: transformers generate, float32, {peer['tiles']} tiles in one batch: "
                     f"{peer['ms_per_tile']:.1f} ms a tile, {peer['new_tokens_per_tile']} tokens each")
    return "\n".join(lines)


def _detectors(result: Mapping[str, Any]) -> list[str]:
    """A row a detector and a floor."""
    lines = ["detector              P      R      F    mAP   F without class"]
    for name, scores in result["per_detector"].items():
        lines.append(f"{name:<16}{_prf(scores)}{scores['map']:7.3f}{scores['agnostic']['f']:18.3f}")
    floors = result["baseline"]
    if floors and "reason" in floors:
        lines.append(f"floors: {floors['reason']}")
    elif floors:
        xor, cnn = floors["xor"], floors["cnn"]
        lines.append(f"{'floor: XOR':<16}{'-':>7}{'-':>7}{'-':>7}{'-':>7}{xor['f']:18.3f}")
        lines.append(f"{'floor: CNN':<16}{_prf(cnn)}{cnn['map']:7.3f}{cnn['agnostic']['f']:18.3f}")
        lines.append(f"floor: CNN has {cnn['parameters']} parameters, trained for "
                     f"{cnn['training_minutes']:.1f} min on {cnn['training_parts']} other parts")
    return lines


def _verdicts(result: Mapping[str, Any]) -> list[str]:
    """What became of the parts, and how sure F and mAP are."""
    lines = []
    meant = {"escape": "defective parts passed", "false_alarm": "good parts have a reported defect",
             "review": "parts go to review"}
    for name, of in meant.items():
        row = result[name]
        if row["parts"]:
            lines.append(f"{row['count']} of {row['parts']} {of}: {_percent(row['rate'])}, 95 % "
                         f"{_percent(row['low'])} to {_percent(row['high'])}")
    reasons = result["review"]["reasons"]
    if reasons:
        lines.append("reviewed because: " + ", ".join(f"{name} {count}" for name, count in reasons.items()))
    bootstrap = result["bootstrap"]
    unit = trusted_unit(bootstrap)
    intervals = bootstrap[unit] or bootstrap["group"]
    shown = ", ".join(f"{label} {intervals[name][0]:.3f} to {intervals[name][1]:.3f}"
                      for name, label in (("f", "F"), ("map", "mAP")) if intervals[name][0] is not None)
    lines.append(f"95 % over {unit}s: {shown}" + (f" ({bootstrap['note']})" if bootstrap["note"] else ""))
    accuracy = result["class_accuracy"]
    if accuracy:
        lines.append(f"class of the picture right: {accuracy['right']} of {accuracy['pictures']}, "
                     f"{_percent(accuracy['accuracy'])} ({_percent(accuracy['low'])} to "
                     f"{_percent(accuracy['high'])})")
    curve = result["alarm_curve"]
    if curve:
        lines += ["", "false alarms  escapes    95 %"]
        lines += [f"<= {_percent(row['limit']):<10}{_percent(row['escape']):<10} "
                  f"{_percent(row['escape_low'])} to {_percent(row['escape_high'])}" for row in curve["at"]]
    return lines


def _confidences(result: Mapping[str, Any]) -> list[str]:
    """Calibration errors, raw and calibrated."""
    lines = []
    for name in ("raw", "calibrated"):
        figures = result["ece"][name]
        if figures and figures["n"]:
            lines.append(f"confidence {name}: ECE {figures['equal_width']:.4f} (bins of equal width), "
                         f"{figures['equal_mass']:.4f} (equal mass), {figures['n']} defects")
    return lines


def _measured(result: Mapping[str, Any]) -> list[str]:
    """Size errors, where the truth is known."""
    lines = []
    for name, row in (result["size_error_mm"] or {}).items():
        if not row["n"]:
            lines.append(f"{name}: none of {row['unmeasured']} measured")
            continue
        inside = f", {_percent(row['inside']['rate'])} inside its uncertainty" if row["inside"] else ""
        lines.append(f"{name} error: median {row['median']:.4f}, 95th percentile {row['p95']:.4f}, bias "
                     f"{row['bias']:+.4f} {row['unit']}{inside} ({row['n']}, {row['unmeasured']} unmeasured)")
    return lines


def _against(other: Mapping[str, Any]) -> list[str]:
    """The other bundle on the same rows."""
    unit = trusted_unit(other)
    bundle = other["bundle"]
    lines = [f"against {bundle['name']} ({bundle['id']} {bundle['precision']}), differences over {unit}s",
             "                   this   other    this - other, 95 %"]
    for name, row in other["difference"].items():
        low, high = row.get(unit, row.get("group", (None, None)))
        if row["difference"] is not None and low is not None:
            lines.append(f"{name:<16}{row['first']:7.4f} {row['second']:7.4f} {row['difference']:+9.4f}  "
                         f"{low:+.4f} to {high:+.4f}")
    for name, row in other["mcnemar"].items():
        lines.append(f"{name} right: only this {row['only_first']}, only the other {row['only_second']}, "
                     f"both {row['both']}, neither {row['neither']}; McNemar p = {row['p']:.3f}")
    return lines


def _classes(per_class: Mapping[str, Any]) -> list[str]:
    """A row a defect type, for both detectors together."""
    lines = ["type             truth      P      R      F     AP"]
    for name, row in per_class.items():
        area = "      -" if row["ap"] is None else f"{row['ap']:7.3f}"
        lines.append(f"{name:<16}{row['truth']:>6}{_prf(row)}{area}")
    return lines


def _sizes(table: Mapping[str, Any]) -> list[str]:
    """Recall by the longest side of the true box."""
    lines = ["longest side px  truth      R"]
    for name, row in table.items():
        recall = "      -" if row["recall"] is None else f"{row['recall']:7.3f}"
        lines.append(f"{name:<16}{row['truth']:>6}{recall}")
    return lines


def _cost(result: Mapping[str, Any]) -> list[str]:
    """Time and decoder passes."""
    stages = ", ".join(f"{name} {value:.0f}" for name, value in result["ms_per_part"].items())
    passes = result["passes"]
    budget = passes["budget"]
    per_defect, per_tile = _number(passes["row_passes_per_defect"]), _number(passes["row_passes_per_tile"])
    calls, tokens = _number(passes["engine_calls_per_part"]), _number(passes["canonical_tokens_per_part"])
    lines = [
        f"ms a part: {stages}",
        f"row-passes: {budget['used']} of {budget['allowed']} allowed (15 a reported defect + 2 a tile)",
        f"row-passes: {per_defect} a defect, {per_tile} a decoded tile, {passes['row_passes_forced']} forced",
        f"a part: {calls} engine calls, {tokens} canonical tokens",
    ]
    if budget["parts_over"]:
        lines.append(f"{budget['parts_over']} parts took more row-passes than allowed")
    failed = result["failed_parts"]
    if failed:
        lines.append(f"{len(failed)} parts failed (disposition review), first: "
                     f"{failed[0]['image']}: {failed[0]['reason']}")
    return lines


def _prf(row: Mapping[str, Any]) -> str:
    """Precision, recall and F, 21 characters."""
    return f"{row['precision']:7.3f}{row['recall']:7.3f}{row['f']:7.3f}"


def _percent(share: float) -> str:
    """`1.3 %`; two digits more under 1 %."""
    return f"{100.0 * share:.1f} %" if share >= 0.01 or share == 0 else f"{100.0 * share:.3f} %"


def _number(value: float | None) -> str:
    """One digit behind the point, `-` for None."""
    return "-" if value is None else f"{value:.1f}"


def _duration(seconds: float) -> str:
    """`1:05` for 65 seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
