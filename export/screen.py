"""The export as a person sees it: a progress bar a step, then the accuracy table. The owner file of rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..evaluation.gate.table import gate_tables
from ..runtime.recipe import Recipe
from .checkpoint_export import export_checkpoint
from .work_folder import work_path


def export_on_screen(
    checkpoint: str | Path,
    recipes: Sequence[str | Path | Recipe],
    calibration: str | Mapping[str, str],
    out: str | Path,
    *,
    precision: str = "int8",
    validation: str | Mapping[str, str] | None = None,
    keep_float: Sequence[str] = (),
    threads: int = 2,
) -> dict[str, Any]:
    """`export_checkpoint` with its progress and its accuracy tables on standard error.

    Where long work is kept after an error or Ctrl-C, a sentence says so.
    """
    console = Console(stderr=True)
    try:
        with ExportScreen(console) as screen:
            report = export_checkpoint(
                checkpoint,
                recipes,
                calibration,
                out,
                precision=precision,
                validation=validation,
                keep_float=keep_float,
                threads=threads,
                progress=screen.step,
            )
    except BaseException:
        kept = work_path(Path(out))
        if kept.exists():
            console.print(f"What is done so far is kept in {kept}: the same command goes on there.")
        raise
    for tables in report.get("gate", {}).values():
        for table in gate_tables(tables):
            console.print(table)
    if report.get("linears"):
        console.print(linears_table(report))
    console.print(_summary(report), highlight=False)
    return report


LINE_EVERY_S = 30.0


class ExportScreen:
    """Progress bars, one for each step; a context manager that leaves the finished ones standing.

    Where nobody can watch bars (a log file), a line when a step begins and ends, and every 30 s of it.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._said_at: dict[str, float] = {}
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
        if not self._console.is_terminal:
            self._line(what, done, total)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total or None)
        self._bars.update(self._tasks[what], completed=done, total=total or None)

    def _line(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        is_end = bool(total) and done == total
        if what in self._said_at and not is_end and now - self._said_at[what] < LINE_EVERY_S:
            return
        self._said_at[what] = now
        self._console.print(f"{what}: {done}/{total}" if total else what, highlight=False, soft_wrap=True)

    def __enter__(self) -> ExportScreen:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def linears_table(report: dict[str, Any]) -> Table:
    """How the linears of each component run."""
    table = Table(title="How the linears run")
    table.add_column("component")
    for name in ("static", "per row", "smoothed", "kept float"):
        table.add_column(name, justify="right")
    for name, modes in report["linears"].items():
        table.add_row(name, *(str(modes[mode]) for mode in ("static", "per_row", "smoothed", "float")))
    return table


def _summary(report: dict[str, Any]) -> str:
    if report["precision"] == "float32":
        return f"{report['bundle']}: float32, written in {report['seconds']} s"
    return (
        f"{report['bundle']}: {report['precision']}, linears at {report['linear_bytes']['ratio']:.1%} of"
        f" float32, written in {report['seconds']} s"
    )
