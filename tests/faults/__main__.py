"""Run fault campaigns for a number of minutes and write down what they found.

    python -m orinspect.tests.faults --budget 30
    python -m orinspect.tests.faults --budget 5 --only kill9
    python -m orinspect.tests.faults --only fuzz --seed 17       one seed again; nothing is written down

Every run goes on behind the seeds of the last one. Exit code 1 when a point failed.
"""

from __future__ import annotations

import argparse
import logging
import platform
import subprocess
import sys
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from orinspect.tests.faults import (
    access,
    broker_away,
    clock,
    disk,
    fuzz,
    fuzz_commands,
    kill9,
    power_cut,
    service_kill9,
    soak,
    tcp_proxy,
)
from orinspect.tests.faults.means.campaign import Campaign, Tally, folder_in_memory
from orinspect.tests.faults.means.ledger import (
    Run,
    append_run,
    next_seed,
    read_runs,
    table_from_runs,
    write_table,
)
from orinspect.tests.programs import lack_of

ROOT = Path(__file__).resolve().parents[2]
CAMPAIGNS = (
    kill9.CAMPAIGN,
    service_kill9.CAMPAIGN,
    power_cut.CAMPAIGN,
    broker_away.CAMPAIGN,
    tcp_proxy.CAMPAIGN,
    disk.CAMPAIGN,
    clock.CAMPAIGN,
    access.CAMPAIGN,
    fuzz.CAMPAIGN,
    fuzz_commands.CAMPAIGN,
    soak.CAMPAIGN,
)


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--budget", type=float, default=10.0, metavar="MINUTES", help="for all (%(default)s)")
    parser.add_argument("--only", action="append", metavar="NAME", help="this campaign; repeats")
    parser.add_argument("--seed", type=int, help="run this seed once and write nothing down")
    parser.add_argument("--ledger", type=Path, default=ROOT / "docs" / "faults.jsonl", help="%(default)s")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "faults.md", help="%(default)s")
    arguments = parser.parse_args()
    logging.disable()  # what the product says about thousands of faults
    names = [campaign.name for campaign in CAMPAIGNS]
    unknown = set(arguments.only or ()) - set(names)
    if unknown:
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [campaign for campaign in CAMPAIGNS if not arguments.only or campaign.name in arguments.only]
    if arguments.seed is not None:
        return int(sum(_again(campaign, arguments.seed) for campaign in chosen) > 0)
    failures = 0
    seconds = arguments.budget * 60 / len(chosen)
    for campaign in chosen:
        lacks = [lack for name in campaign.needs if (lack := lack_of(name))]
        if lacks:
            print(f"{campaign.name}: NOT RUN, {'; '.join(lacks)}", flush=True)
            continue
        failures += _campaign(campaign, seconds, arguments.ledger)
    write_table(arguments.page, table_from_runs(read_runs(arguments.ledger), CAMPAIGNS))
    return int(bool(failures))


def _campaign(campaign: Campaign, seconds: float, ledger: Path) -> int:
    """Seeds one after the other until the time is over or the target is reached; the number of failures."""
    runs = read_runs(ledger)
    done = sum(run.points for run in runs if run.campaign == campaign.name and run.superseded is None)
    first = seed = next_seed(runs, campaign.name)
    started, tally = time.monotonic(), Tally(0)
    while seed == first or time.monotonic() - started < seconds:
        tally += _one_seed(campaign, seed, seconds)
        seed += 1
        if campaign.takes_all_its_time:
            break
    figures = {**tally.figures, **({"seams": float(len(tally.seams))} if tally.seams else {})}
    run = Run(
        campaign.name, first, seed - 1, tally.points, len(tally.failures),
        round(time.monotonic() - started, 1), _commit(), datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        f"{platform.machine()}, {platform.system()} {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}",
        {name: float(f"{value:.6g}") for name, value in figures.items()}, list(tally.failures[:20]),
    )  # fmt: skip
    append_run(ledger, run)
    print(
        f"{campaign.name}: {run.points:,} {campaign.point} in {run.duration_s:g} s, {run.failures} failures"
        f" (together {done + run.points:,} of {campaign.target:,})", flush=True,
    )  # fmt: skip
    for sentence in run.what_failed:
        print(f"  {sentence}", flush=True)
    return run.failures


def _one_seed(campaign: Campaign, seed: int, seconds: float) -> Tally:
    with folder_in_memory() as folder:
        try:
            tally = campaign.run(seed, folder, *([seconds] if campaign.takes_all_its_time else []))
        except Exception as error:  # the harness broke, or the product did what nobody thought of
            tally = Tally(1, (f"the round broke: {error!r}",))
    return replace(tally, failures=tuple(f"seed {seed}: {text}" for text in tally.failures))


def _again(campaign: Campaign, seed: int) -> int:
    with folder_in_memory() as folder:
        tally = campaign.run(seed, folder)
    print(f"{campaign.name}, seed {seed}: {tally.points} {campaign.point}, {dict(tally.figures)}")
    for sentence in tally.failures:
        print(f"  {sentence}")
    return len(tally.failures)


def _commit() -> str:
    """The checkout's commit; `+` when tracked files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/faults.*")
    return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
