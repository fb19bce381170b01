"""docs/faults.jsonl grows by lines; the table is made from those that count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orinspect.tests.faults.__main__ import CAMPAIGNS, ROOT
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.ledger import (
    BEGIN,
    END,
    Run,
    append_run,
    next_seed,
    read_runs,
    table_from_runs,
    write_table,
)

CAMPAIGN = Campaign("kill9", "nothing is lost", "kills", 10_000, lambda seed, folder: Tally(0))
RUN = Run("kill9", 0, 9, 1000, 0, 60.0, "abc", "2026-01-01", figures={"rate_least": 5.0, "ms": 2.0})


def test_runs_come_back_and_go_on_behind_the_last_seed(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    assert (read_runs(path), next_seed([], "kill9")) == ([], 0)
    append_run(path, RUN)
    append_run(path, replace(RUN, first_seed=10, last_seed=14))
    assert read_runs(path) == [RUN, replace(RUN, first_seed=10, last_seed=14)]
    assert (next_seed(read_runs(path), "kill9"), next_seed(read_runs(path), "fuzz")) == (15, 0)


def test_a_line_that_is_no_run_is_named(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text("{}\n")
    with pytest.raises(ValueError, match=r"faults.jsonl:1: not a run"):
        read_runs(path)


def test_no_failure_in_n_is_a_bound_of_three_over_n() -> None:
    other = replace(RUN, first_seed=10, last_seed=29, points=2000, figures={"rate_least": 4.0, "ms": 9.0})
    line = table_from_runs([RUN, other], [CAMPAIGN]).splitlines()[-1]
    assert "| 3,000 kills | 10,000 | 0 | 0.001 | ms 9, rate_least 4 |" in line


def test_a_repaired_run_is_listed_and_no_longer_counts() -> None:
    bad = replace(RUN, failures=7, superseded="the row was marked too early")
    table = table_from_runs([bad, RUN], [CAMPAIGN])
    assert "| 1,000 kills | 10,000 | 0 |" in table
    assert "- kill9, 7 of 1,000 at abc: the row was marked too early" in table


def test_the_table_stands_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "faults.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_table(page, "new\n")
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"


def test_the_page_in_the_repository_is_the_one_that_the_ledger_gives() -> None:
    runs = read_runs(ROOT / "docs" / "faults.jsonl")
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    assert table_from_runs(runs, CAMPAIGNS) in page
