"""Broken networks and brokers: a station that publishes through a faulty proxy to a mosquitto that restarts.

The station is never killed. It commits results all the time while its connections meet one fate after the
other; in half of the rounds the broker is restarted in between. One that keeps its sessions on disk loses
nothing that it confirmed; behind one that forgets, the MES acknowledges each result and the station sends
again what is not acknowledged. Then the network heals, and everything must be at the consumer.
"""

from __future__ import annotations

import select
import socket
import subprocess
import threading
import time
from pathlib import Path
from random import Random
from types import TracebackType

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import MOSQUITTO
from orinspect.tests.faults.kill9 import NAME, ROOT, Told, faults_of
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Forked, Tell
from orinspect.tests.faults.means.proxy import KINDS, FaultProxy
from orinspect.tests.faults.means.recorded import digest, new_result_id, recorded_payload

FAULTS_A_ROUND = 25
PAUSE_S = 0.02  # between two parts
DEAF_S = 0.5
WAIT_S = 120.0


def run_tcp_proxy(seed: int, folder: Path, faults: int = FAULTS_A_ROUND) -> Tally:
    """One station, `faults` connections that meet a fate, then a healthy network."""
    random = Random(f"proxy {seed}")
    told, failures, restarts = Told(), [], 0
    forgets = seed % 4 == 3
    with (
        RestartableBroker(folder, forgets=forgets) as broker,
        Consumer(broker.port, ROOT, client_id="mes", acknowledges=lambda _: forgets) as consumer,
        FaultProxy(broker.port, random) as proxy,
        Forked(
            lambda tell, orders: _station(folder, proxy.port, seed, forgets, tell, orders), folder, consumer
        ) as station,
    ):
        while proxy.faults < faults and station.listen(consumer, 0.05):
            if seed % 2 and restarts < 3 and proxy.faults >= (restarts + 1) * faults // 4:
                restarts += 1
                until = time.monotonic() + DEAF_S  # meanwhile results pile up in the broker
                station.listen_until(None, lambda: time.monotonic() >= until, DEAF_S)  # noqa: B023
                broker.restart()
        proxy.is_faulty = False
        proxy.cut()
        station.stop()
        code = station.wait(consumer, WAIT_S)
        if code != 0:
            failures.append(f"the station ended with {code}: {station.last_words()}")
        told.take(station.said)
        consumer.pump_while_it_comes(lambda: told.accepted <= consumer.contents.keys())
        met = {kind for kind in KINDS if proxy.met[kind]}
        done = proxy.faults + restarts
    failures += faults_of(folder / NAME, consumer, told)
    copies = consumer.received / max(len(consumer.contents), 1)
    return Tally(done, tuple(failures), {"copies_a_result": copies}, frozenset(met))


class RestartableBroker:
    """A mosquitto that can be restarted on its port; it `forgets` or has its sessions on disk."""

    def __init__(self, folder: Path, *, forgets: bool) -> None:
        self._folder = folder / "broker"
        self._folder.mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        lines = (
            f"listener {self.port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0",
            "max_inflight_messages 1",
            "user root",  # else it gives up root and cannot reach its own folder
            f"persistence {str(not forgets).lower()}", f"persistence_location {self._folder}/",
        )  # fmt: skip
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process = self._started()

    def __enter__(self) -> RestartableBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def restart(self) -> None:
        """Stop it in good order, which writes its sessions, and start it again."""
        self._process.terminate()
        self._process.communicate(timeout=WAIT_S)
        self._process = self._started()

    def _started(self) -> subprocess.Popen[str]:
        assert MOSQUITTO is not None
        command = [MOSQUITTO, "-c", str(self._folder / "mosquitto.conf")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if " running" in line:
                # its log must be read, or it would wait for a reader in the end
                threading.Thread(target=process.stderr.read, daemon=True).start()
                return process
        raise AssertionError("mosquitto did not start")


def _station(folder: Path, port: int, seed: int, needs_ack: bool, tell: Tell, orders: int) -> int:
    """The child: results all the time, until it is told to stop; then it delivers the rest."""
    random = Random(f"station {seed}")
    config = MqttConfig(
        "127.0.0.1", ROOT, port=port, protocol=random.choice(("5", "3.1.1", "auto")), keepalive_s=1,
        connect_timeout_s=1.0, retry_least_s=0.02, retry_most_s=0.2, inflight=random.choice((1, 5, 20)),
        ack="required" if needs_ack else "none", ack_timeout_s=1.0,
    )  # fmt: skip
    facts = StationState("", None, None, "d", "s", "boot")
    with Outbox(folder / NAME) as outbox:
        publisher = Publisher(outbox, config, facts, on_failure=lambda: None, random=random.random)
        publisher.announce("running")
        publisher.start()
        number = 0
        while not select.select([orders], [], [], PAUSE_S)[0]:
            number += 1
            result_id = new_result_id(random)
            sequence = outbox.accept(result_id, "boot", "cam", number, "{}")
            payload = recorded_payload(result_id, sequence, random)
            outbox.commit(result_id, payload)
            tell("accepted", result_id)
            tell("committed", result_id, digest(payload))
            publisher.wake()
        deadline = time.monotonic() + WAIT_S / 2
        while needs_ack and outbox.counts()["acknowledged"] < number and time.monotonic() < deadline:
            select.select([], [], [], PAUSE_S)
        left = publisher.close(WAIT_S / 4)
    if publisher.failure is not None:
        raise publisher.failure
    return 3 if left else 0


CAMPAIGN = Campaign(
    name="tcp_proxy",
    promise="connections late, reset, half open, deaf, mute, slow, in crumbs, refused; broker restarted with"
    " and without persistence: nothing lost",
    point="faults",
    target=1_000,
    run=run_tcp_proxy,
    needs=("mosquitto",),
)
