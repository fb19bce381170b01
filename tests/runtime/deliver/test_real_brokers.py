"""Delivery with brokers that others wrote: last will, retained state, the MES's ack, passwords."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.evaluation.embedded_broker import EmbeddedBroker
from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import WAIT_S, listener, real_broker
from orinspect.tests.programs import require

FACTS = StationState("", None, None, "orin-07", "aoi-1", "boot")

STATION = """
import sys, threading
from pathlib import Path
from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
outbox = Outbox(Path(sys.argv[2]))
publisher = Publisher(outbox, MqttConfig("127.0.0.1", "a/b", port=int(sys.argv[1]), protocol=sys.argv[3]),
    StationState("", None, None, "d", "s", "boot"), on_failure=lambda: None, random=lambda: 0.5)
publisher.announce("running")
publisher.start()
sys.stdin.read()
"""


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_killed_station_leaves_the_retained_state_offline(tmp_path: Path, protocol: str) -> None:
    if protocol == "5":
        require("mosquitto")  # the embedded broker speaks 3.1.1 only
    with real_broker(tmp_path) as port:
        with listener(port, "a/b/state") as messages:
            station = subprocess.Popen(
                [sys.executable, "-c", STATION, str(port), str(tmp_path / "o.sqlite"), protocol],
                stdin=subprocess.PIPE,
            )
            assert json.loads(messages.get(timeout=WAIT_S).payload)["state"] == "running"
            station.kill()
            station.communicate()
            will = json.loads(messages.get(timeout=WAIT_S).payload)
            assert (will["state"], will["reason"], will["device_id"]) == ("offline", "connection lost", "d")
        with listener(port, "a/b/state") as later:
            message = later.get(timeout=WAIT_S)
            assert message.retain
            assert json.loads(message.payload)["state"] == "offline"


def test_the_embedded_broker_carries_reports_and_states(tmp_path: Path) -> None:
    with EmbeddedBroker() as broker, listener(broker.port, "a/b/#") as messages:
        with Outbox(tmp_path / "o.sqlite") as outbox:
            config = MqttConfig("127.0.0.1", "a/b", port=broker.port, protocol="3.1.1")
            publisher = Publisher(outbox, config, FACTS, on_failure=lambda: None, random=lambda: 0.5)
            publisher.announce("running")
            publisher.start()
            outbox.accept("r1", "boot", "cam", 1, "{}")
            outbox.commit("r1", '{"n":1}')
            publisher.wake()
            assert publisher.close(WAIT_S) == 0
        topics = [messages.get(timeout=WAIT_S).topic for _ in range(3)]
        assert topics == ["a/b/state", "a/b/result", "a/b/state"]


def test_the_mes_acknowledges_a_report(tmp_path: Path) -> None:
    with real_broker(tmp_path) as port, Outbox(tmp_path / "o.sqlite") as outbox:
        mes = paho.Client(CallbackAPIVersion.VERSION2)

        def acknowledge(client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
            batch = json.dumps({"result_ids": ["r1", "stranger"]}).encode()
            for payload in (b"nonsense", b'{"result_id": "stranger"}', batch):
                client.publish("a/b/ack", payload, qos=1)
            client.publish("a/b/ack-done", "", qos=1)

        def subscribe(*_: object) -> None:
            mes.subscribe("a/b/result", qos=1)

        mes.on_connect = subscribe
        mes.on_message = acknowledge
        with listener(port, "a/b/ack-done") as done:
            publisher = Publisher(
                outbox, MqttConfig("127.0.0.1", "a/b", port=port, protocol="3.1.1"), FACTS,
                on_failure=lambda: None, random=lambda: 0.5,
            )  # fmt: skip
            subscribed = threading.Event()
            mes.on_subscribe = lambda *_: subscribed.set()
            mes.connect("127.0.0.1", port)
            mes.loop_start()
            assert subscribed.wait(WAIT_S)
            outbox.accept("r1", "boot", "cam", 1, "{}")
            outbox.commit("r1", '{"result_id": "r1"}')
            publisher.start()
            done.get(timeout=WAIT_S)
            publisher.close(WAIT_S)
            mes.disconnect()
            mes.loop_stop()
        assert outbox.counts()["acknowledged"] == 1
