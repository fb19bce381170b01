"""The figures of `measure.py` as lines of text, beside the bounds that the project set itself."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

BOUNDS: Mapping[str, Mapping[str, float]] = {
    "2b": {"graphs_rss_gib": 6, "graphs_minutes": 15, "int8_body_gb": 1.5},
    "8b": {"graphs_rss_gib": 8},
}
"""Whole models only: peak memory and time of writing the float graphs, size of the INT8 decoder."""


def real_size_text(result: Mapping[str, Any]) -> str:
    """Everything that was measured, a line each; what was left out is not mentioned."""
    model, machine, stages = result["model"], result["machine"], result["stages"]
    bounds = BOUNDS.get(model["name"], {}) if model["is_whole"] else {}
    lines = [
        f"{model['name']}: {model['parameters'] / 1e9:.2f} billion random parameters",
        f"layers {model['layers']}, vision blocks {model['vision_depth']}, pictures {result['tile_px']} px",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, ONNX Runtime "
        + machine["onnxruntime"],
        f"{'has' if machine['has_vnni'] else 'no'} VNNI; load average {machine['load_average']} at the start",
        "",
        f"{'stage':<28}{'time s':>9}{'CPU s':>9}{'peak MiB':>10}{'anonymous':>11}",
    ]
    for name in ("checkpoint", "graphs", "int8", "calibration", "answers"):
        if name in stages:
            lines.append(_stage(name, stages[name]))
    if "graphs" in stages:
        lines += ["", *_sizes(stages, bounds)]
    for component, figures in stages.get("turns", {}).items():
        lines += ["", *_turns(component, figures)]
    for name in ("calibration", "answers"):
        if name in stages:
            lines += ["", *_extrapolated(name, stages[name])]
    return "\n".join(lines)


def _stage(name: str, figures: Mapping[str, Any]) -> str:
    seen = (figures["cpu_s"], figures["peak_rss_mib"], figures["peak_anonymous_mib"])
    cells = "".join(
        ("-" if value is None else f"{value:.0f}").rjust(width)
        for value, width in zip(seen, (9, 10, 11), strict=True)
    )
    return f"{name:<28}{figures['wall_s']:>9.1f}{cells}"


def _sizes(stages: Mapping[str, Any], bounds: Mapping[str, float]) -> list[str]:
    """Bytes a component, float and INT8, and the bounds."""
    exact, int8 = stages["graphs"]["bytes"], stages.get("int8", {}).get("bytes", {})
    lines = [f"{'component':<28}{'float MB':>9}{'INT8 MB':>10}"]
    for name, size in exact.items():
        small = f"{int8[name] / 1e6:.0f}" if name in int8 else "-"
        lines.append(f"{name:<28}{size / 1e6:>9.0f}{small:>10}")
    graphs = stages["graphs"]
    held = {
        "graphs_rss_gib": ("memory of writing the graphs", (graphs["peak_rss_mib"] or 0) / 1024, "GiB"),
        "graphs_minutes": ("time of writing the graphs", graphs["wall_s"] / 60, "min"),
        "int8_body_gb": ("INT8 decoder", int8.get("decoder", 0) / 1e9, "GB"),
    }
    for name, most in bounds.items():
        what, value, unit = held[name]
        if value:
            lines.append(_bound(what, value, most, unit))
    return lines


def _bound(what: str, value: float, most: float, unit: str) -> str:
    return f"{what}: {value:.2f} {unit} of {most:g} allowed{'' if value <= most else ': TOO MUCH'}"


def _turns(component: str, figures: Mapping[str, Any]) -> list[str]:
    """Load time and memory of each engine, then a line a case."""
    lines = []
    for name, engine in figures["engines"].items():
        memory = engine["after_runs"]
        peak = "-" if memory["peak_rss_mib"] is None else f"{memory['peak_rss_mib']:.0f}"
        lines.append(f"{component}, {name}: loads in {engine['load_s']:.1f} s, peak {peak} MiB")
    for case, row in figures["cases"].items():
        times = ", ".join(f"{name} {_spread(values)} ms" for name, values in row["ms"].items())
        lines.append(f"  {case} {_sized(row)}: {times}")
        for what, key in (("time", "ratio"), ("processor time", "ratio_cpu")):
            ratios = ", ".join(f"float / {name} {_spread(values)}" for name, values in row[key].items())
            lines.append(f"    {what} {ratios}")
    return lines


def _sized(row: Mapping[str, Any]) -> str:
    if "patches" in row:
        return f"({row['patches']} patches)"
    return f"({row['k']} tokens behind {row['past']})"


def _spread(values: Mapping[str, float]) -> str:
    return f"{values['median']:g} ({values['least']:g} to {values['most']:g})"


def _extrapolated(name: str, figures: Mapping[str, Any]) -> list[str]:
    """What was measured on the slice, and what the whole would take by it: a line each, then its parts."""
    lines = []
    for which in ("measured", "extrapolated"):
        parts = {what: value for what, value in figures[which].items() if isinstance(value, dict)}
        lines.append(f"{name}, {which}: {_listed(figures[which], parts)}")
        lines += [f"  {what}: {_listed(values, ())}" for what, values in parts.items()]
    return lines


def _listed(values: Mapping[str, Any], without: Container[str]) -> str:
    return ", ".join(
        f"{what.replace('_', ' ')} {value}" for what, value in values.items() if what not in without
    )
