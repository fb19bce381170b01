"""The consumer as a process, a real mosquitto, and a station's real outbox and delivery thread.

What must hold whatever dies in between: every committed result is stored once, and every stored result is
acknowledged to its station.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.examples.mes.database import Database
from orinspect.examples.mes.reconcile import reconciliation
from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import WAIT_S, listener, mosquitto
from orinspect.tests.examples.mes.databases import Cluster
from orinspect.tests.examples.mes.messages import STATION, payload, result_id
from orinspect.tests.report_cases import BOOT

pytestmark = [pytest.mark.slow, pytest.mark.requires("mosquitto")]
FACTS = StationState("", None, None, "orin-07", "aoi-1", BOOT)
COUNT = 12


class Consumer:
    """A running consumer; its lines are read in a thread, `wait_for` waits for one of them."""

    def __init__(self, port: int, database: str, point: str = "-", *options: str) -> None:
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._is_over = False
        run = ["run", "--database", database, "--port", str(port), "--root", "plant/line/+", *options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orinspect.tests.examples.mes.consumer_child", point, *run],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._thread.start()

    def __enter__(self) -> Consumer:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.ended()

    def wait_for(self, text: str) -> None:
        """Until a line holds `text`."""
        with self._news:
            found = self._news.wait_for(
                lambda: self._is_over or any(text in line for line in self.lines), WAIT_S
            )
            assert found and any(text in line for line in self.lines), self.lines

    def ended(self) -> int:
        """Its exit code."""
        code = self.process.wait(WAIT_S)
        self._thread.join(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            with self._news:
                self.lines.append(line.rstrip())
                self._news.notify_all()
        with self._news:
            self._is_over = True
            self._news.notify_all()


@contextlib.contextmanager
def station(folder: Path, port: int, **mqtt: Any) -> Iterator[tuple[Outbox, Publisher]]:
    """The device's side: a real outbox with the real delivery thread."""
    config = MqttConfig("127.0.0.1", STATION, port=port, retry_least_s=0.05, retry_most_s=0.2, **mqtt)
    with Outbox(folder / "outbox.sqlite") as outbox:
        publisher = Publisher(outbox, config, FACTS, on_failure=lambda: None, random=lambda: 0.5)
        publisher.announce("running")
        publisher.start()
        try:
            yield outbox, publisher
        finally:
            publisher.close(WAIT_S)


def deliver(outbox: Outbox, publisher: Publisher, first: int, last: int) -> None:
    """Commit these parts and let them go."""
    for number in range(first, last + 1):
        outbox.accept(result_id(number), BOOT, "cam", number, "{}")
        outbox.commit(result_id(number), payload(number).decode())
        publisher.wake()


def eventually(holds: Callable[[], bool]) -> None:
    """Until it holds; there is no event for what another process writes into a file."""
    tick, until = threading.Event(), WAIT_S * 50
    while not holds():
        until -= 1
        assert until > 0, "it did not come to hold"
        tick.wait(0.02)


def rows(url: str) -> list[tuple[Any, ...]]:
    with Database(url) as database:
        return database.execute("SELECT sequence, received, acked_at IS NOT NULL FROM result ORDER BY 1")


def assert_complete(url: str, outbox: Outbox, count: int) -> None:
    """All stored once, all acknowledged on both sides."""
    eventually(lambda: outbox.counts()["acknowledged"] == count)
    eventually(lambda: all(row[2] for row in rows(url)))
    assert [row[0] for row in rows(url)] == list(range(1, count + 1))
    with Database(url) as database:
        found = reconciliation(database)
    assert found["is_complete"], found
    assert [boot["results"] for boot in found["boots"]] == [count]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_station_s_results_are_stored_and_acknowledged(tmp_path: Path, protocol: str) -> None:
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        Consumer(port, url, "-", "--protocol", protocol, "--until-offline") as consumer,
    ):
        consumer.wait_for("listening on plant/line/+/result")
        with station(tmp_path, port) as (outbox, publisher):
            deliver(outbox, publisher, 1, COUNT)
            assert_complete(url, outbox, COUNT)
        assert consumer.ended() == 0
    assert any("board-1" in line and "pass" in line for line in consumer.lines)
    assert consumer.lines[-1] == "station is offline (stopped)"


@pytest.mark.parametrize("point", ["received", "stored", "confirmed", "acked"])
def test_killed_between_its_steps_it_loses_nothing_and_doubles_nothing(tmp_path: Path, point: str) -> None:
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    with mosquitto(tmp_path, "allow_anonymous true") as port, station(tmp_path, port) as (outbox, publisher):
        with Consumer(port, url, point) as doomed:
            doomed.wait_for("listening")
            deliver(outbox, publisher, 1, COUNT)
            assert doomed.ended() == -signal.SIGKILL
        stored = rows(url)
        assert bool(stored) == (point != "received")
        assert not any(acked for _, _, acked in stored)
        with Consumer(port, url):
            assert_complete(url, outbox, COUNT)
        if point == "stored":
            assert any(received == 2 for _, received, _ in rows(url)), "the broker delivers those again"


def test_what_comes_while_it_is_down_waits_in_its_session(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    with mosquitto(tmp_path, "allow_anonymous true") as port, station(tmp_path, port) as (outbox, publisher):
        with Consumer(port, url) as first:
            first.wait_for("listening")
            deliver(outbox, publisher, 1, 3)
            assert_complete(url, outbox, 3)
            first.process.terminate()
            assert first.ended() == 0
        deliver(outbox, publisher, 4, COUNT)
        eventually(lambda: outbox.counts()["committed"] == 0)
        with Consumer(port, url):
            assert_complete(url, outbox, COUNT)


def test_a_broker_that_restarts_is_found_again(tmp_path: Path) -> None:
    """With its persistence, on the same port: the consumer and the station both come back by themselves."""
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    lines = ("allow_anonymous true", "persistence true", f"persistence_location {tmp_path}/", "user root")
    with contextlib.ExitStack() as first:
        port = first.enter_context(mosquitto(tmp_path, *lines, gently=True))
        with Consumer(port, url) as consumer, station(tmp_path, port) as (outbox, publisher):
            consumer.wait_for("listening")
            deliver(outbox, publisher, 1, 3)
            assert_complete(url, outbox, 3)
            first.close()
            consumer.wait_for("connection lost")
            deliver(outbox, publisher, 4, COUNT)
            with mosquitto(tmp_path, *lines, port=port):
                assert_complete(url, outbox, COUNT)


def test_a_broker_that_forgets_everything_costs_nothing(tmp_path: Path) -> None:
    """Killed without persistence while the consumer is down: the broker had confirmed the results to the
    station and given them to nobody. The station sends them again for want of an ack."""
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    with contextlib.ExitStack() as first:
        port = first.enter_context(mosquitto(tmp_path, "allow_anonymous true"))
        with station(tmp_path, port, ack="required", ack_timeout_s=1.0) as (outbox, publisher):
            with Consumer(port, url) as consumer:
                consumer.wait_for("listening")
                deliver(outbox, publisher, 1, 3)
                assert_complete(url, outbox, 3)
                consumer.process.terminate()
                assert consumer.ended() == 0
            deliver(outbox, publisher, 4, COUNT)
            eventually(lambda: outbox.counts()["published"] == COUNT - 3)
            first.close()
            with mosquitto(tmp_path, "allow_anonymous true", port=port), Consumer(port, url):
                assert_complete(url, outbox, COUNT)


@pytest.mark.requires("postgresql")
def test_a_database_that_crashes_costs_nothing(tmp_path: Path, postgresql: Cluster) -> None:
    url = postgresql.database()
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        station(tmp_path, port) as (outbox, publisher),
        Consumer(port, url) as consumer,
    ):
        consumer.wait_for("listening")
        deliver(outbox, publisher, 1, 3)
        assert_complete(url, outbox, 3)
        postgresql.crash()
        deliver(outbox, publisher, 4, COUNT)
        consumer.wait_for("trying again")
        assert outbox.counts()["acknowledged"] == 3
        postgresql.start()
        assert_complete(url, outbox, COUNT)


def test_what_is_no_report_is_quarantined_and_not_acknowledged(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path / 'mes.sqlite'}"
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        listener(port, "plant/line/+/ack") as acks,
        Consumer(port, url) as consumer,
    ):
        consumer.wait_for("listening")
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.loop_start()
        for content in (b"nonsense", payload(1, "reject"), payload(1), payload(2)):
            client.publish(f"{STATION}/result", content, qos=1).wait_for_publish(WAIT_S)
        acknowledged: set[str] = set()
        with contextlib.suppress(queue.Empty):
            while not acknowledged >= {result_id(1), result_id(2)}:
                acknowledged |= set(json.loads(acks.get(timeout=WAIT_S).payload)["result_ids"])
        assert acknowledged == {result_id(1), result_id(2)}
        client.disconnect()
        client.loop_stop()
        consumer.process.terminate()
        assert consumer.ended() == 1, "a person must look"
    assert any("quarantined: not JSON" in line for line in consumer.lines)
    assert any("came with two contents" in line for line in consumer.lines)
    found = subprocess.run(
        [sys.executable, "-m", "orinspect.examples.mes", "reconcile", "--database", url, "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 1, found.stderr
    table = json.loads(found.stdout)
    assert (table["quarantined"], len(table["contradictions"]), table["missing"]) == (1, 1, [])
