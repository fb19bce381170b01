"""Power cuts: the outbox's file writes are recorded once and cut off at thousands of moments.

Each point is one moment between two system calls and one draw of what the disk kept (see `file_trace`). Then
the outbox is opened as the service opens it, and held against what the program had been promised by then.
Points of one recording share its writes: they are not independent of each other as throws of a die are.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.errors import OrinspectError
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.file_trace import Event, events_before, recorded_events
from orinspect.tests.faults.means.outbox_writer import KEEP

NAME = "outbox.sqlite"
PARTS = 80
POINTS = 300
STATES = ("accepted", "committed", "published", "acknowledged")


@dataclass
class Promised:
    """What the program was told up to a moment: the least and the most that a row may be."""

    least: dict[str, str] = field(default_factory=dict)  # id -> state whose call had returned
    most: dict[str, str] = field(default_factory=dict)  # id -> state whose call had begun
    payloads: dict[str, str] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def take(self, line: bytes) -> None:
        """One line of outbox_writer."""
        word, result_id, *rest = json.loads(line)
        if word in STATES:
            self.least[result_id] = word
            if word == "committed":
                self.payloads[result_id] = rest[0]
            return
        state = {"accepting": 0, "committing": 1, "publishing": 2, "acknowledging": 3}[word]
        self.most[result_id] = STATES[state]
        if state == 0:
            self.order.append(result_id)


def run_power_cut(seed: int, folder: Path, points: int = POINTS, parts: int = PARTS) -> Tally:
    """Record one program, cut its power `points` times."""
    events = recorded_outbox(seed, folder, parts)
    failures = faults_of_cuts(events, Random(f"power cut {seed}"), folder, points)
    syncs = sum(event.kind == "sync" for event in events)
    return Tally(points, tuple(failures), {"syncs_recorded_least": float(syncs)})


def recorded_outbox(seed: int, folder: Path, parts: int) -> list[Event]:
    """What an outbox does to its files while `parts` parts go through it."""
    recorded = folder / "recorded"
    recorded.mkdir()
    return recorded_events(
        recorded, "orinspect.tests.faults.means.outbox_writer", NAME, str(seed), str(parts)
    )


def faults_of_cuts(events: Sequence[Event], random: Random, folder: Path, points: int) -> list[str]:
    """Cut these events at `points` moments; what does not hold afterwards."""
    promised, told, failures = Promised(), 0, []
    for cut, disk in events_before(events, drawn_cuts(events, points, random)):
        for event in events[told:cut]:
            if event.kind == "say":
                promised.take(event.data)
        told = cut
        place = folder / f"after-{cut}"
        place.mkdir(exist_ok=True)
        for name, content in disk.after_a_cut(random).items():
            if not name.endswith(("-shm", ".lock")):  # rebuilt at every start
                (place / name).write_bytes(content)
        failures += [f"cut {cut} of {len(events)}: {fault}" for fault in _faults(place, promised)]
        for path in place.iterdir():
            path.unlink()
    return failures


def drawn_cuts(events: Sequence[Event], points: int, random: Random) -> list[int]:
    """Rising moments: half of them right before a sync returns or after a promise, where it is tightest."""
    tight = [
        number + (event.kind == "say")
        for number, event in enumerate(events)
        if event.kind in ("sync", "say", "unlink", "truncate")
    ]
    return sorted(
        random.choice(tight) if random.random() < 0.5 else random.randint(0, len(events))
        for _ in range(points)
    )


def _faults(place: Path, promised: Promised) -> list[str]:
    """What does not hold of the outbox that is found in `place`."""
    try:
        with Outbox(place / NAME, keep=KEEP) as outbox:
            waiting = {row.result_id: row.payload for row in outbox.waiting(1_000_000)}
            rows, damage = _rows(place / NAME)
            faults = [f"SQLite says {damage}"] if damage != "ok" else []
            faults += _wrong_rows(rows, promised)
            faults += [
                f"result {result_id} waits with another content"
                for result_id, payload in waiting.items()
                if promised.payloads.get(result_id, payload) != payload
            ]
            outbox.accept("next", "boot", "cam", 1 << 40, "{}")
            outbox.commit("next", "{}")
    except OrinspectError as error:
        return [f"it does not open or does not go on: {error}"]
    return faults


def _rows(path: Path) -> tuple[dict[str, tuple[Any, ...]], str]:
    """id -> (state, payload, sequence), and the word of `PRAGMA integrity_check`."""
    connection = sqlite3.connect(path)
    try:
        rows = {
            str(row[0]): tuple(row[1:])
            for row in connection.execute("SELECT result_id, state, payload, sequence FROM result")
        }
        (word,) = connection.execute("PRAGMA integrity_check").fetchone()
    finally:
        connection.close()
    return rows, str(word)


def _wrong_rows(rows: dict[str, tuple[Any, ...]], promised: Promised) -> list[str]:
    faults = []
    for result_id, state in promised.least.items():
        if result_id not in rows:
            # confirmed rows beyond `keep` may go; the number of younger ones says which
            younger = len(promised.order) - 1 - promised.order.index(result_id)
            if STATES.index(promised.most[result_id]) < 2 or younger < KEEP:
                faults.append(f"{state} result {result_id} is lost")
        elif STATES.index(rows[result_id][0]) < STATES.index(state):
            faults.append(f"{state} result {result_id} fell back to {rows[result_id][0]}")
    for result_id, (state, payload, _) in rows.items():
        if result_id not in promised.most:
            faults.append(f"result {result_id} was never accepted")
        elif STATES.index(state) > STATES.index(promised.most[result_id]):
            faults.append(f"result {result_id} is {state} and nobody said so")
        elif payload is not None and promised.payloads.get(result_id, payload) != payload:
            faults.append(f"result {result_id} has another content")
    return faults


CAMPAIGN = Campaign(
    name="power_cut",
    promise="outbox after a power cut: it opens and holds every row in the state that was promised",
    point="cuts",
    target=15_000,
    run=run_power_cut,
    needs=("strace",),
)
