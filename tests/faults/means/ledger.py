"""docs/faults.jsonl and the table of docs/faults.md that is made from it.

One line a campaign run. Lines are only ever added; a run whose failures were understood and repaired gets the
entry `superseded`, a sentence that says what was repaired: it stays in the file and no longer counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orinspect.evaluation.rates.binomial import upper_bound
from orinspect.tests.faults.means.campaign import Campaign, worst_of

BEGIN, END = "<!-- made by `make faults`: begin -->", "<!-- made by `make faults`: end -->"


@dataclass(frozen=True)
class Run:
    """One run of a campaign over the seeds `first_seed` to `last_seed`."""

    campaign: str
    first_seed: int
    last_seed: int
    points: int
    failures: int
    duration_s: float
    commit: str
    date: str
    machine: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    what_failed: list[str] = field(default_factory=list)
    superseded: str | None = None


def read_runs(path: Path) -> list[Run]:
    """Every run of the file, none when it does not exist yet; ValueError names a line that is none."""
    if not path.exists():
        return []
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            runs.append(Run(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}:{number}: not a run of `make faults` ({error}); mend it") from error
    return runs


def append_run(path: Path, run: Run) -> None:
    """Add one line."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(asdict(run)) + "\n")


def next_seed(runs: Iterable[Run], campaign: str) -> int:
    """The first seed that no run of this campaign has used."""
    return max((run.last_seed + 1 for run in runs if run.campaign == campaign), default=0)


def table_from_runs(runs: Sequence[Run], campaigns: Iterable[Campaign]) -> str:
    """The Markdown table: a line a campaign, zero failures as a bound that holds with 95 % confidence."""
    lines = [
        "| campaign | what must hold | points | asked for | failures | at most, 95 % | figures (worst run) |",
        "|---|---|---:|---:|---:|---:|---|",
    ]
    for campaign in campaigns:
        counted = [run for run in runs if run.campaign == campaign.name and run.superseded is None]
        points, failures = sum(run.points for run in counted), sum(run.failures for run in counted)
        figures: dict[str, float] = {}
        for run in counted:
            figures = worst_of(figures, run.figures)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items())) or "-"
        bound = f"{upper_bound(failures, points):.2g}" if points else "-"
        lines.append(
            f"| {campaign.name} | {campaign.promise} | {points:,} {campaign.point} | {campaign.target:,} |"
            f" {failures} | {bound} | {shown} |"
        )
    repaired = [run for run in runs if run.superseded is not None]
    if repaired:
        lines += ["", "Found and repaired on the way (these runs no longer count):", ""]
        lines += [
            f"- {run.campaign}, {run.failures} of {run.points:,} at {run.commit}: {run.superseded}"
            for run in repaired
        ]
    return "\n".join(lines) + "\n"


def write_table(page: Path, table: str) -> None:
    """Put the table between the marks of docs/faults.md; ValueError when the page has no marks."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page} has no lines {BEGIN!r} and {END!r}; put them where the table shall stand")
    page.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")
