"""The gate's report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def gate_tables(report: Mapping[str, Any]) -> list[Table]:
    """Components and tokens, then F per class; from `GateReport.to_json()` or the manifest's copy of it."""
    verdict = "passed" if report["passed"] else "FAILED"
    pictures = report["pictures"]
    measures = Table(title=f"{report['precision']} against float32, recipe {report['recipe']}: {verdict}")
    measures.add_column("")
    for name, one in pictures.items():
        measures.add_column(f"{name} ({one['parts']})", justify="right")
    for component in dict.fromkeys(key for one in pictures.values() for key in one["components"]):
        errors = [one["components"].get(component) for one in pictures.values()]
        measures.add_row(f"{component}: cosine", *(_cell(error, "cosine", ".5f") for error in errors))
        measures.add_row("  relative error", *(_cell(error, "relative_error", ".4f") for error in errors))
        measures.add_row("  largest error", *(_cell(error, "max_abs_error", ".4f") for error in errors))
        measures.add_row("  of a scale of", *(_cell(error, "scale", ".4f") for error in errors))
    tokens = [one["tokens"] for one in pictures.values()]
    measures.add_row("tokens as float", *(f"{one['agreed']}/{one['decisions']}" for one in tokens))
    measures.add_row("  share", *(f"{one['share']:.2%}" for one in tokens))
    measures.add_row("  of the clear ones", *(f"{one['clear_agreed']}/{one['clear']}" for one in tokens))
    measures.add_row("answers as float", *(f"{one['answers_equal']}/{one['answers']}" for one in tokens))
    return [measures, *_f_tables(pictures)]


def _f_tables(pictures: Mapping[str, Any]) -> list[Table]:
    labelled = {name: one["f"] for name, one in pictures.items() if one["f"] is not None}
    if not labelled:
        return []
    ends = {name: one["interval"] for name, one in labelled.items()}
    intervals = [f"{name} {low:+.3f} to {high:+.3f}" for name, (low, high) in ends.items()]
    table = Table(title="F by type of defect", caption=f"95 % of the change: {', '.join(intervals)}")
    table.add_column("type")
    for name in labelled:
        for column in ("float", "INT8", "change"):
            table.add_column(f"{name}\n{column}" if column == "float" else f"\n{column}", justify="right")
    types = dict.fromkeys(key for change in labelled.values() for key in change["per_class"])
    for kind in types:
        table.add_row(kind, *(cell for one in labelled.values() for cell in _row(one["per_class"][kind])))
    table.add_row("all", *(cell for one in labelled.values() for cell in _row(one)), style="bold")
    return [table]


def _row(entry: Mapping[str, Any]) -> tuple[str, str, str]:
    return _cell(entry, "f_float", ".3f"), _cell(entry, "f_int8", ".3f"), _cell(entry, "change", "+.3f")


def _cell(entry: Mapping[str, Any] | None, key: str, form: str) -> str:
    value = None if entry is None else entry[key]
    return "-" if value is None else format(value, form)
