"""Commands over a real mosquitto: response topic and correlation data of MQTT 5, cmd-response of 3.1.1."""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.link.mail import Command
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import WAIT_S, listener, mosquitto

FACTS = StationState("", None, None, "orin-07", "aoi-1", "boot")
pytestmark = pytest.mark.requires("mosquitto")


@contextlib.contextmanager
def _station(folder: Path, port: int) -> Iterator[tuple[Publisher, queue.Queue[Command]]]:
    commands: queue.Queue[Command] = queue.Queue()
    with Outbox(folder / "o.sqlite") as outbox:
        publisher = Publisher(
            outbox, MqttConfig("127.0.0.1", "a/b", port=port), FACTS,
            on_failure=lambda: None, random=lambda: 0.5,
        )  # fmt: skip

        def take(command: Command) -> None:
            commands.put(command)
            if command.name == "broken":
                raise ZeroDivisionError("a fault of the handler")

        publisher.on_command = take
        with listener(port, "a/b/state") as states:
            publisher.announce("ready")
            publisher.start()
            states.get(timeout=WAIT_S)  # subscribed before it said so
            try:
                yield publisher, commands
            finally:
                publisher.close(0.0)


def _send(port: int, topic: str, payload: bytes, *, answer: str | None = None, retain: bool = False) -> None:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    properties = None
    if answer is not None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic, properties.CorrelationData = answer, b"\x00\xff7"
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=retain, properties=properties).wait_for_publish(WAIT_S)
    client.disconnect()
    client.loop_stop()


def test_a_command_is_answered_where_its_sender_listens(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true") as port, _station(tmp_path, port) as (station, commands):
        answers: queue.Queue[paho.MQTTMessage] = queue.Queue()
        ready: queue.Queue[bool] = queue.Queue()
        panel = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)

        def subscribe(*_: object) -> None:
            panel.subscribe("panel/7", qos=1)

        panel.on_connect = subscribe
        panel.on_subscribe = lambda *_: ready.put(True)
        panel.on_message = lambda _, __, message: answers.put(message)
        panel.connect("127.0.0.1", port)
        panel.loop_start()
        ready.get(timeout=WAIT_S)
        _send(port, "a/b/cmd/recipe/select", b'{"recipe": "x"}', answer="panel/7")
        command = commands.get(timeout=WAIT_S)
        assert (command.name, command.payload) == ("recipe/select", b'{"recipe": "x"}')
        assert not command.is_retained
        station.answer(command, "done")
        answer = answers.get(timeout=WAIT_S)
        assert answer.payload == b"done"
        assert answer.properties is not None
        assert getattr(answer.properties, "CorrelationData", None) == b"\x00\xff7"
        panel.disconnect()
        panel.loop_stop()


@pytest.mark.parametrize("topic", [None, "a/b/result", "a/b", "a/b/state"])
def test_without_a_topic_of_the_sender_the_answer_is_on_cmd_response(
    tmp_path: Path, topic: str | None
) -> None:
    """A command cannot make the station forge a report."""
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        listener(port, "a/b/cmd-response") as answers,
        _station(tmp_path, port) as (station, commands),
    ):
        _send(port, "a/b/cmd/state", b"", answer=topic)
        station.answer(commands.get(timeout=WAIT_S), "here")
        assert answers.get(timeout=WAIT_S).payload == b"here"


def test_a_handler_that_fails_and_a_retained_command(tmp_path: Path) -> None:
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        _send(port, "a/b/cmd/old", b"{}", retain=True)
        with _station(tmp_path, port) as (station, commands):
            assert commands.get(timeout=WAIT_S).is_retained
            _send(port, "a/b/cmd/broken", b"")
            assert commands.get(timeout=WAIT_S).name == "broken"
            _send(port, "a/b/cmd/state", b"")
            assert commands.get(timeout=WAIT_S).name == "state"
            assert station.failure is None


def test_other_topics_are_published_and_what_is_retained_stays(tmp_path: Path) -> None:
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        listener(port, "a/b/#") as messages,
        _station(tmp_path, port) as (station, _),
    ):
        station.publish("health", "1", retain=True)
        station.publish("alarm", "2")
        seen: dict[str, bytes] = {}
        while len(seen) < 2:
            message = messages.get(timeout=WAIT_S)
            if not message.topic.endswith("state"):
                seen[message.topic] = bytes(message.payload)
        assert seen == {"a/b/health": b"1", "a/b/alarm": b"2"}
        with listener(port, "a/b/health") as late:
            assert late.get(timeout=WAIT_S).payload == b"1"
        with listener(port, "a/b/alarm") as none, listener(port, "a/b/health") as late:
            late.get(timeout=WAIT_S)
            assert none.empty()
