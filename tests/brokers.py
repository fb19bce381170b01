"""A real broker for a test (mosquitto where installed, else the embedded one) and a listening client."""

from __future__ import annotations

import contextlib
import queue
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.evaluation.embedded_broker import EmbeddedBroker
from orinspect.tests.programs import program, require, wanted

WAIT_S = 30.0
MOSQUITTO = program("mosquitto", "/usr/sbin")


@contextlib.contextmanager
def mosquitto(folder: Path, *lines: str, port: int = 0, gently: bool = False) -> Iterator[int]:
    """A mosquitto on `port` or a free one, with these lines in its configuration; gives the port.

    It is killed at the end; `gently`: told to stop, and it writes its sessions when it keeps any.
    """
    require("mosquitto")
    assert MOSQUITTO is not None
    if not port:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
    config = folder / "mosquitto.conf"
    config.write_text("\n".join([f"listener {port} 127.0.0.1", *lines]) + "\n")
    process = subprocess.Popen([MOSQUITTO, "-c", str(config)], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if " running" in line:
                break
        else:
            raise AssertionError("mosquitto did not start")
        yield port
    finally:
        process.terminate() if gently else process.kill()
        process.communicate()


@contextlib.contextmanager
def real_broker(folder: Path) -> Iterator[int]:
    """The best broker that this machine has, or that ORINSPECT_REQUIRE asks for; gives its port."""
    if wanted("mosquitto"):
        with mosquitto(folder, "allow_anonymous true") as port:
            yield port
    else:
        with EmbeddedBroker() as broker:
            yield broker.port


@contextlib.contextmanager
def listener(port: int, topic: str) -> Iterator[queue.Queue[paho.MQTTMessage]]:
    """A subscribed client; its messages, QoS 1, in order."""
    messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
    subscribed: queue.Queue[bool] = queue.Queue()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)

    def subscribe(*_: object) -> None:
        client.subscribe(topic, qos=1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: subscribed.put(True)
    client.on_message = lambda _, __, message: messages.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        subscribed.get(timeout=WAIT_S)
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()
