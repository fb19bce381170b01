"""The export as a person sees it: a progress bar a step, then the accuracy table. The owner file of rich."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..runtime.recipe import Recipe
from .checkpoint_export import export_checkpoint


def export_on_screen(
    checkpoint: str | Path,
    recipes: Sequence[str | Path | Recipe],
    calibration: str,
    out: str | Path,
    *,
    precision: str = "int8",
    threads: int = 2,
) -> dict[str, Any]:
    """`export_checkpoint` with its progress and its accuracy table on standard error."""
    console = Console(stderr=True)
    with ExportScreen(console) as screen:
        report = export_checkpoint(
            checkpoint, recipes, calibration, out, precision=precision, threads=threads, progress=screen.step
        )
    if precision == "int8":
        console.print(accuracy_table(report))
    console.print(_summary(report), highlight=False)
    return report


class ExportScreen:
    """Progress bars, one for each step; a context manager that leaves the finished ones standing."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def step(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` parts of the step `what` are finished; total 0: not known."""
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[what], completed=done, total=total or None)

    def __enter__(self) -> ExportScreen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def accuracy_table(report: dict[str, Any]) -> Table:
    """Each component: its outputs against float, and how its linears run."""
    table = Table(title="INT8 against float32 on held calibration tiles")
    table.add_column("component")
    for name in ("cosine", "max abs error", "static", "per row", "kept float"):
        table.add_column(name, justify="right")
    for name, accuracy in report.get("accuracy", {}).items():
        modes = report["linears"][name]
        counts = (str(modes[mode]) for mode in ("static", "per_row", "float"))
        table.add_row(name, f"{accuracy['cosine']:.5f}", f"{accuracy['max_abs_error']:.4f}", *counts)
    return table


def _summary(report: dict[str, Any]) -> str:
    if report["precision"] != "int8":
        return f"{report['bundle']}: float32, written in {report['seconds']} s"
    return (
        f"{report['bundle']}: linears at {report['linear_bytes']['ratio']:.1%} of float32,"
        f" {report['answers_equal']} of {report['answers_compared']} whole answers equal,"
        f" written in {report['seconds']} s"
    )
