"""kill -9 of outbox and publisher, again and again, with a real broker and a consumer behind it.

A worker does what the service does with recorded results: open the outbox, report what the last run left
accepted, accept, commit, publish, and sometimes stop in good order. It is killed at a random moment, or at a
random line of runtime/deliver: every line that runs is a seam.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver import outbox as outbox_file
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Forked, Tell, kill_at_line
from orinspect.tests.faults.means.recorded import digest, new_result_id, recorded_payload

ROOT, SOURCE, NAME = "plant/line", "recorded", "outbox.sqlite"
DELIVER = str(Path(outbox_file.__file__).parent)
KILLS_A_ROUND = 100
KEEP = 60  # rows: rounds are long enough that old ones are deleted
LONGEST_S = 0.035  # a random moment lies between the fork and this
MOST_LINES = 6_000
ENDLESS = 1_000_000
WAIT_S = 60.0


@dataclass(frozen=True)
class Life:
    """What one worker does: how many parts before it stops by itself, and what kills it before."""

    parts: int
    kill_after_s: float | None = None
    kill_at_line: int | None = None


@dataclass
class Told:
    """What workers said: accepted ids, id -> digest of the content that `commit` took, lines of the kills."""

    accepted: set[str] = field(default_factory=set)
    committed: dict[str, str] = field(default_factory=dict)
    places: set[str] = field(default_factory=set)

    def take(self, said: Iterable[list[str]]) -> None:
        """The lines of one worker."""
        for word, *rest in said:
            if word == "accepted":
                self.accepted.add(rest[0])
            elif word == "committed":
                self.committed[rest[0]] = rest[1]
            elif word == "killed":
                self.places.add(rest[0])


def run_kill9(seed: int, folder: Path, kills: int = KILLS_A_ROUND) -> Tally:
    """One outbox, `kills` workers killed on it, then one that delivers the rest; what the consumer has."""
    random = Random(f"kill9 {seed}")
    told, done, failures = Told(), 0, []
    with (
        mosquitto(folder, "allow_anonymous true", "max_queued_messages 0") as port,
        Consumer(port, ROOT, acknowledges=lambda result_id: digest(result_id) < "8") as consumer,
    ):
        lives = [_drawn_life(random) for _ in range(3 * kills)]
        for number, life in enumerate([*lives, Life(0)]):
            if number < len(lives) and done >= kills:
                continue
            code, last_words = _live(folder, port, random, life, consumer, told)
            done += code == -signal.SIGKILL
            if code not in (0, -signal.SIGKILL) or (code and number == len(lives)):
                failures.append(f"worker {number} ended with {code}: {last_words}")
        consumer.pump_while_it_comes(lambda: told.accepted <= consumer.contents.keys())
        failures += faults_of(folder / NAME, consumer, told)
    return Tally(done, tuple(failures), seams=frozenset(told.places))


def faults_of(path: Path, consumer: Consumer, told: Told) -> list[str]:
    """Everything that must hold of what the consumer stored and of what stayed in the outbox."""
    faults = []
    for result_id, content in told.committed.items():
        stored = consumer.contents.get(result_id, set())
        if content not in stored:
            faults.append(f"committed result {result_id} is {'another' if stored else 'lost'}")
    for result_id in told.accepted - consumer.contents.keys() - told.committed.keys():
        faults.append(f"accepted part {result_id} was never reported")
    for result_id, stored in consumer.contents.items():
        if len(stored) > 1:
            faults.append(f"result {result_id} came with {len(stored)} contents")
    with Outbox(path) as outbox:
        counts, rescued = outbox.counts(), outbox.rescued
    if counts["accepted"] or counts["committed"]:
        faults.append(f"the last worker said that all is delivered, and the outbox holds {counts}")
    if rescued:
        faults.append("the outbox believes that it was damaged")
    return faults


def _drawn_life(random: Random) -> Life:
    parts = random.choice((1, 3, ENDLESS))  # a worker that stops by itself is killed while it stops, too
    if random.random() < 0.5:
        return Life(parts, kill_after_s=random.random() * LONGEST_S)
    return Life(parts, kill_at_line=int(MOST_LINES ** random.random()))


def _live(
    folder: Path, port: int, random: Random, life: Life, consumer: Consumer, told: Told
) -> tuple[int, str]:
    """One worker from fork to end: its exit code, negative for a signal, and its last words."""
    child = Random(random.random())

    def body(tell: Tell, orders: int) -> int:
        if life.kill_at_line is not None:
            kill_at_line(life.kill_at_line, [DELIVER], tell)
        return _deliver(folder, port, child, life, tell)

    with Forked(body, folder, consumer) as worker:
        if life.kill_after_s is not None:
            until = time.monotonic() + life.kill_after_s
            worker.listen_until(consumer, lambda: time.monotonic() >= until, life.kill_after_s)
            worker.kill()
        code = worker.wait(consumer)
        told.take(worker.said)
        return code, worker.last_words()


def _deliver(folder: Path, port: int, random: Random, life: Life, tell: Tell) -> int:
    config = MqttConfig(
        "127.0.0.1", ROOT, port=port, protocol=random.choice(("5", "3.1.1")), retry_least_s=0.01,
        retry_most_s=0.05, inflight=random.choice((1, 5, 20)),
    )  # fmt: skip
    facts = StationState("", None, None, "d", "s", "boot")
    with Outbox(folder / NAME, keep=KEEP) as outbox:
        if outbox.rescued:
            raise AssertionError("the outbox believes that it was damaged")
        publisher = Publisher(outbox, config, facts, on_failure=lambda: None, random=random.random)
        publisher.announce("starting")
        publisher.start()
        for row in outbox.abandoned():
            tell("accepted", row.result_id)
            _commit(outbox, publisher, row.result_id, row.sequence, random, tell)
        last = outbox.last_source_sequence(SOURCE) or 0
        for number in range(last + 1, last + 1 + life.parts):
            result_id = new_result_id(random)
            sequence = outbox.accept(result_id, "boot", SOURCE, number, "{}")
            tell("accepted", result_id)
            _commit(outbox, publisher, result_id, sequence, random, tell)
        left = publisher.close(WAIT_S / 2)
    if publisher.failure is not None:
        raise publisher.failure
    return 3 if left else 0


def _commit(
    outbox: Outbox, publisher: Publisher, result_id: str, sequence: int, random: Random, tell: Tell
) -> None:
    payload = recorded_payload(result_id, sequence, random)
    outbox.commit(result_id, payload)
    tell("committed", result_id, digest(payload))
    publisher.wake()


CAMPAIGN = Campaign(
    name="kill9",
    promise="outbox and publisher killed: no committed result lost at the consumer, none with two contents",
    point="kills",
    target=10_000,
    run=run_kill9,
    needs=("mosquitto",),
)
