"""The whole service at full rate as long as the budget lasts: memory, descriptors, threads must be flat.

Scenes come as fast as they are inspected by the engines of a small random bundle; a consumer acknowledges
each result. The station and its capture process are sampled once a second from outside.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.kill9 import ROOT, Told
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Forked
from orinspect.tests.faults.means.measured import descriptors, resident_kb, slope_of, threads
from orinspect.tests.faults.service_kill9 import service_body, write_service_config
from orinspect.tests.small_bundle import write_small_bundle

LENGTH_S = 3600.0
WARM_UP_S = 300.0  # caches fill, and engines meet their largest batches: some 1,500 parts
SHORTEST_S = 600.0  # a slope of less would be that of the warm-up
SAMPLE_S = 1.0
START_S = 120.0
FLAT_KB_PER_HOUR = 2048.0
MOST_SHORT = 3  # descriptors or threads more at the end than after the warm-up: one connection, one file


def run_soak(seed: int, folder: Path, length_s: float = LENGTH_S) -> Tally:
    """Points are seconds, an hour at most; slopes are given with their standard error, per hour."""
    length_s = min(length_s, LENGTH_S)
    write_small_bundle(folder)
    told = Told()
    samples: list[tuple[float, dict[str, float]]] = []
    with (
        mosquitto(folder, "allow_anonymous true", "max_queued_messages 0") as port,
        Consumer(port, ROOT, acknowledges=lambda _: True) as consumer,
    ):
        config = write_service_config(folder, port, f"scenes:pcb?seed={seed}&size_px=128")
        with Forked(service_body(config), folder, consumer) as station:
            is_up = station.listen_until(consumer, lambda: len(consumer.contents) > 0, START_S)
            started, next_s = time.monotonic(), 0.0
            while is_up and (now := time.monotonic() - started) < length_s:
                if now >= next_s:
                    next_s += SAMPLE_S
                    samples.append((now, _sample(station.pid)))
                if not station.listen(consumer, 0.1):
                    break
            parts = len(consumer.contents)
            station.terminate()
            code = station.wait(consumer)
            told.take(station.said)
            consumer.pump_while_it_comes(lambda: told.accepted <= consumer.contents.keys())
            failures = [] if code == 0 else [f"the service ended with {code}: {station.last_words()}"]
        lost = told.committed.keys() - consumer.contents.keys()
    if lost:
        failures.append(f"{len(lost)} of {len(told.committed)} results are lost")
    figures, grown = _slopes(samples, length_s)
    seconds = samples[-1][0] if samples else 0.0
    figures |= {"parts_per_s_least": parts / max(seconds, 1e-9), "longest_s": seconds}
    return Tally(int(seconds), (*failures, *grown), figures)


def _sample(pid: int) -> dict[str, float]:
    """What the service takes, and what its capture process does."""
    found = {"kb": resident_kb(pid), "descriptors": descriptors(pid), "threads": threads(pid)}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                found |= {"capture_kb": resident_kb(child), "capture_descriptors": descriptors(child)}
    return found


def _slopes(
    samples: list[tuple[float, dict[str, float]]], length_s: float
) -> tuple[dict[str, float], list[str]]:
    """Slopes per hour with their errors, and what grows beyond doubt."""
    figures: dict[str, float] = {}
    grown = []
    settled = [(at, found) for at, found in samples if at >= min(WARM_UP_S, length_s / 2)]
    for name in ("kb", "descriptors", "threads", "capture_kb", "capture_descriptors"):
        pairs = [(at, found[name]) for at, found in settled if name in found]
        if len(pairs) < 3:
            continue
        if name.endswith("kb") and length_s < SHORTEST_S:
            continue
        slope, error = (3600 * value for value in slope_of([at for at, _ in pairs], [y for _, y in pairs]))
        figures[f"{name}_per_hour"], figures[f"{name}_per_hour_se"] = slope, error
        if name.endswith("kb"):
            if slope - 2 * error > FLAT_KB_PER_HOUR:
                grown.append(f"{name} grows by {slope:.0f} (standard error {error:.0f}) an hour")
        elif pairs[-1][1] - pairs[0][1] > MOST_SHORT:
            grown.append(f"{name} went from {pairs[0][1]:.0f} to {pairs[-1][1]:.0f}")
    return figures, grown


CAMPAIGN = Campaign(
    name="soak",
    promise="service with engines at full rate: memory, descriptors, threads flat, nothing lost",
    point="seconds",
    target=3_600,
    run=run_soak,
    needs=("mosquitto",),
    takes_all_its_time=True,
)
