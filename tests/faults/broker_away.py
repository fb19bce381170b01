"""The broker is away for 72 hours of a line with two parts a second, then it comes back.

The hours are not waited for: the parts come as fast as the outbox takes them, while the publisher tries in
vain to connect. Then a broker listens on the port, the backlog drains, and the line goes on in real time:
each live result must reach the consumer within two seconds. Resident memory is sampled all the while.
"""

from __future__ import annotations

import json
import select
import socket
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID
from zlib import crc32

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.kill9 import NAME, ROOT
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Forked, Tell
from orinspect.tests.faults.means.measured import resident_kb, slope_of
from orinspect.tests.report_cases import GOLDEN

LINE_RATE = 2.0  # parts a second
HOURS = 72.0
ROWS = int(HOURS * 3600 * LINE_RATE)
SAMPLES = 400  # of memory, over the time
LEAST_SPEEDUP, MOST_BEHIND_S = 50.0, 2.0
FLAT_KB_PER_HOUR = 200.0  # of the line: 14 MB over the 72 hours
LONGEST_S = 3 * 3600.0
_TABLE = json.loads((GOLDEN / "report-1.0-pass.json").read_text(encoding="utf-8"))


class Counting(Consumer):
    """Counts results by their number and remembers a checksum of each, in a few bytes a row."""

    def __init__(self, port: int, root: str, rows: int) -> None:
        self.sums, self.seen = array("L", bytes(8 * rows)), 0
        self.live: dict[int, float] = {}  # number of a result made after the return -> when it came
        self.contradictions = 0
        self.first_s = self.last_s = 0.0
        super().__init__(port, root)

    def _store(self, result_id: str, payload: bytes) -> None:
        number, now = UUID(result_id).int, time.monotonic()
        if number >= len(self.sums):
            self.live.setdefault(number, now)
            return
        content = crc32(payload) + 1
        if not self.sums[number]:
            self.seen += 1
            self.sums[number] = content
            self.first_s, self.last_s = self.first_s or now, now
        elif self.sums[number] != content:
            self.contradictions += 1


def run_broker_away(
    seed: int, folder: Path, length_s: float = LONGEST_S, most_rows: int = ROWS, *, is_short: bool = False
) -> Tally:
    """Fill for `length_s` / 3 or 72 hours of the line, return, drain; with `is_short` only what does not
    depend on the machine's speed is judged."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    fill_s = length_s / 3
    with Forked(
        lambda tell, orders: _station(folder, port, most_rows, fill_s, tell, orders), folder
    ) as station:
        if not station.listen_until(
            None, lambda: station.said[-1:] != [] and station.said[-1][0] == "filled", LONGEST_S
        ):
            return Tally(1, (f"it ended while the broker was away: {station.last_words()}",))
        rows = int(station.said[-1][1])
        with mosquitto_at(port, folder), Counting(port, ROOT, rows) as consumer:
            station.listen_until(consumer, lambda: consumer.seen >= rows, LONGEST_S)
            station.stop()
            code = station.wait(consumer, LONGEST_S)
            consumer.pump_while_it_comes(lambda: consumer.seen >= rows)
        return _judged(station, consumer, rows, code, is_short)


@contextmanager
def mosquitto_at(port: int, folder: Path) -> Iterator[None]:
    """A broker with a second listener on this port."""
    with mosquitto(folder, "allow_anonymous true", f"listener {port} 127.0.0.1", "max_queued_messages 0"):
        yield


def _judged(station: Forked, consumer: Counting, rows: int, code: int, is_short: bool) -> Tally:
    lost = rows - consumer.seen
    failures = [f"{lost} of {rows} results are lost"] if lost else []
    if consumer.contradictions:
        failures.append(f"{consumer.contradictions} results came with two contents")
    if code != 0:
        failures.append(f"the station ended with {code}: {station.last_words()}")
    figures = {}
    for phase in ("away", "draining"):
        samples = [(float(at), float(kb)) for word, at, kb in _of(station, "memory") if word == phase]
        samples = samples[len(samples) // 10 :]  # the first of them fill caches
        slope, error = slope_of([at for at, _ in samples], [kb for _, kb in samples])
        per_hour = 3600 * LINE_RATE
        figures[f"{phase}_kb_per_hour"], figures[f"{phase}_kb_per_hour_se"] = (
            slope * per_hour,
            error * per_hour,
        )
        if not is_short and slope * per_hour - 2 * error * per_hour > FLAT_KB_PER_HOUR:
            failures.append(f"memory grows by {slope * per_hour:.0f} KiB an hour of the line while {phase}")
    rate = consumer.seen / max(consumer.last_s - consumer.first_s, 1e-9)
    made = {int(number): float(at) for number, at in _of(station, "live") if float(at) <= consumer.last_s}
    behind = [
        consumer.live.get(number, float("inf")) - at for number, at in made.items() if at > consumer.first_s
    ]
    figures |= {"drained_per_s_least": rate, "times_line_rate_least": rate / LINE_RATE}
    figures |= {"live_behind_s": max(behind, default=0.0), "live_results": float(len(behind))}
    figures["filled_per_s_least"] = float(next(_of(station, "rate"))[0])
    figures["longest_h_of_the_line"] = rows / LINE_RATE / 3600
    if not is_short:
        if rate < LEAST_SPEEDUP * LINE_RATE:
            failures.append(
                f"drained at {rate:.0f} results a second, {LEAST_SPEEDUP * LINE_RATE:.0f} are asked"
            )
        if max(behind, default=0.0) > MOST_BEHIND_S:
            failures.append(f"a live result was {max(behind):.1f} s behind")
    return Tally(rows, tuple(failures), figures)


def _of(station: Forked, word: str) -> Iterator[list[str]]:
    return (rest for first, *rest in station.said if first == word)


def _station(folder: Path, port: int, rows: int, fill_s: float, tell: Tell, orders: int) -> int:
    """The child: rows while the broker is away, then live ones in real time until it is told to stop."""
    config = MqttConfig("127.0.0.1", ROOT, port=port, retry_least_s=0.05, retry_most_s=1.0)
    facts = StationState("", None, None, "d", "s", "boot")
    with Outbox(folder / NAME) as outbox:
        publisher = Publisher(outbox, config, facts, on_failure=lambda: None, random=lambda: 0.5)
        publisher.announce("running")
        publisher.start()
        add = _adder(outbox, publisher)
        started = time.monotonic()
        number, next_s = 0, 0.0
        while number < rows and (now := time.monotonic() - started) < fill_s:
            if now >= next_s:
                next_s += fill_s / SAMPLES
                tell("memory", "away", number, resident_kb())
            add(number)
            number += 1
        rows = number
        tell("rate", rows / (time.monotonic() - started))
        tell("filled", rows)
        while not select.select([orders], [], [], 1 / LINE_RATE)[0]:
            add(number)
            tell("live", number, time.monotonic())
            number += 1
            tell("memory", "draining", rows - outbox.counts()["committed"], resident_kb())
        left = publisher.close(60.0)
    return 3 if left or publisher.failure is not None else 0


def _adder(outbox: Outbox, publisher: Publisher) -> Callable[[int], None]:
    def add(number: int) -> None:
        result_id = str(UUID(int=number))
        sequence = outbox.accept(result_id, "boot", "cam", number, "{}")
        outbox.commit(result_id, json.dumps({**_TABLE, "result_id": result_id, "sequence": sequence}))
        publisher.wake()

    return add


CAMPAIGN = Campaign(
    name="broker_away",
    promise="72 h at 2 parts/s without a broker: none lost, memory flat, drained 50 times as fast, live"
    " results at most 2 s behind",
    point="results",
    target=ROWS,
    run=run_broker_away,
    needs=("mosquitto",),
    takes_all_its_time=True,
)
