"""What a person sees of an export: bars that end full, and every figure of the report in the table."""

from __future__ import annotations

import io

import pytest

pytest.importorskip("rich")
pytest.importorskip("onnx")

from rich.console import Console

from orinspect.export.screen import ExportScreen, linears_table

REPORT = {
    "linears": {"vision": {"static": 29, "per_row": 2, "smoothed": 3, "float": 7}},
}


def test_every_step_has_a_bar_that_ends_full() -> None:
    text = io.StringIO()
    with ExportScreen(Console(file=text, width=100, force_terminal=True)) as screen:
        for done in range(4):
            screen.step("vision: ranges", done, 3)
        screen.step("bundle", 0, 1)
        screen.step("bundle", 1, 1)
    assert "vision: ranges" in text.getvalue()
    assert "3/3" in text.getvalue()
    assert "1/1" in text.getvalue()


def test_the_table_holds_the_figures_of_the_report() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(linears_table(REPORT))
    row = next(line for line in text.getvalue().splitlines() if "vision" in line)
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["vision", "29", "2", "3", "7"]


def test_a_log_file_gets_lines_while_the_work_goes_on() -> None:
    text, now = io.StringIO(), [0.0]
    with ExportScreen(Console(file=text, width=40), clock=lambda: now[0]) as screen:
        for done in range(61):
            screen.step("decoder: blocks", done, 60)
            now[0] += 1.0
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    assert lines == [f"decoder: blocks: {done}/60" for done in (0, 30, 60)]
