"""Who does not belong: strangers at a broker with mutual TLS, an ACL file and a size limit.

A real station publishes and takes commands; an MES that belongs watches every topic. Then others try to get
something in: without a certificate, with an expired one or one of another authority under the station's or
the MES's name, in plain text, with a certificate that may do less, with messages that are too large or make
no sense. Nothing that they wrote may reach the MES, the outbox or the station's commands, and the station
goes on.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.tests.brokers import mosquitto
from orinspect.tests.certificates import Authority, Certificate
from orinspect.tests.faults.means.campaign import Campaign, Tally

ROOT = "plant/line"
ATTEMPTS_A_ROUND = 40
LIMIT_BYTES = 50_000
WAIT_S = 30.0
ACL = f"""
user station
topic write {ROOT}/result
topic write {ROOT}/state
topic write {ROOT}/alarm
topic write {ROOT}/cmd-response
topic read {ROOT}/ack
topic read {ROOT}/cmd/#
user mes
topic readwrite #
user sensor
topic readwrite other/#
"""
TOPICS = ("result", "state", "ack", "cmd/state", "cmd/bundle/activate", "alarm", "cmd-response")


class Client:
    """A paho client without a thread: `messages` are (topic, payload), `answers` what the broker said."""

    def __init__(self, port: int, context: ssl.SSLContext | None, protocol: int = paho.MQTTv5) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self.answers: list[bool] = []  # of CONNECT, SUBSCRIBE and PUBLISH: accepted or not
        self.is_gone = False
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)  # type: ignore[arg-type]
        if context is not None:
            self._client.tls_set_context(context)
        self._client.on_connect = lambda _, __, ___, reason, ____: self.answers.append(not reason.is_failure)
        self._client.on_publish = lambda _, __, ___, reason, ____: self.answers.append(not reason.is_failure)
        self._client.on_subscribe = lambda _, __, ___, codes, ____: self.answers.append(
            not any(code.is_failure for code in codes)
        )
        self._client.on_message = lambda _, __, message: self.messages.append(
            (message.topic, bytes(message.payload))
        )
        self._client.on_disconnect = self._on_disconnect
        self._client.connect("127.0.0.1", port, keepalive=60)
        self.until(lambda: bool(self.answers))

    def close(self) -> None:
        """Leave."""
        self._client.disconnect()

    def until(self, is_done: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Work until the condition holds, the connection is gone, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not is_done() and not self.is_gone and time.monotonic() < deadline:
            if self._client.loop(0.05) != paho.MQTT_ERR_SUCCESS:
                self.is_gone = True
        return is_done()

    def ask(self, what: str, *arguments: Any, **more: Any) -> bool:
        """`publish` or `subscribe` at QoS 1; whether the broker took it."""
        before = len(self.answers)
        getattr(self._client, what)(*arguments, qos=1, **more)
        return self.until(lambda: len(self.answers) > before) and self.answers[-1]

    def _on_disconnect(self, *_: Any) -> None:
        self.is_gone = True


class Plant:
    """Certificates of everybody, and the broker's configuration."""

    def __init__(self, folder: Path) -> None:
        self.authority, stranger = Authority(folder / "plant"), Authority(folder / "stranger")
        issue = self.authority.issue
        self.names = {name: issue(name) for name in ("server", "station", "mes", "sensor")}
        self.strangers: dict[str, Certificate | None] = {
            "no certificate": None,
            "an expired certificate": issue("expired", end="20210101000000Z"),
            "another authority's station": stranger.issue("station"),
            "another authority's MES": stranger.issue("mes"),
        }
        (folder / "acl").write_text(ACL, encoding="utf-8")
        (folder / "acl").chmod(0o600)
        server = self.names["server"]
        self.lines = (
            f"cafile {self.authority.ca.certificate}", f"certfile {server.certificate}",
            f"keyfile {server.key}", "require_certificate true", "use_identity_as_username true",
            "allow_anonymous false", f"acl_file {folder / 'acl'}", "user root",
            f"message_size_limit {LIMIT_BYTES}",
        )  # fmt: skip

    def context(self, certificate: Certificate | None) -> ssl.SSLContext:
        """What a client that trusts the plant's server shows of itself."""
        context = ssl.create_default_context(cafile=self.authority.ca.certificate)
        if certificate is not None:
            context.load_cert_chain(certificate.certificate, certificate.key)
        return context


def run_access(seed: int, folder: Path, attempts: int = ATTEMPTS_A_ROUND) -> Tally:
    """One plant, `attempts` attempts to get something in."""
    random, failures, kinds = Random(f"access {seed}"), [], set()
    plant = Plant(folder)
    with (
        mosquitto(folder, *plant.lines) as port,
        Outbox(folder / "outbox.sqlite") as outbox,
        station_of(port, plant, outbox) as (publisher, commands),
    ):
        mes = Client(port, plant.context(plant.names["mes"]))
        assert mes.ask("subscribe", "#"), "the MES is not let in"
        for number in range(attempts):
            kind, attempt = random.choice(list(ATTEMPTS.items()))
            kinds.add(kind)
            mark = f"stranger {number}"
            faults = list(attempt(port, plant, random, mark))
            faults += _what_got_in(mes, mark, is_stranger=not kind.startswith("the MES"))
            faults += [f"the command {name} arrived" for name in commands]
            faults += _what_goes_on(outbox, publisher, mes, number)
            failures += [f"attempt {number} ({kind}): {fault}" for fault in faults]
            commands.clear()
        mes.close()
        if outbox.counts()["acknowledged"]:
            failures.append("somebody acknowledged a result who is not the MES")
    return Tally(attempts, tuple(failures), seams=frozenset(kinds))


@contextlib.contextmanager
def station_of(port: int, plant: Plant, outbox: Outbox) -> Iterator[tuple[Publisher, list[str]]]:
    """A station that belongs, and the names of the commands that reach it."""
    own = plant.names["station"]
    config = MqttConfig(
        "127.0.0.1", ROOT, port=port, ca_file=plant.authority.ca.certificate, cert_file=own.certificate,
        key_file=own.key, retry_least_s=0.05, retry_most_s=0.2,
    )  # fmt: skip
    facts = StationState("", None, None, "d", "s", "boot")
    publisher = Publisher(outbox, config, facts, on_failure=lambda: None, random=lambda: 0.5)
    commands: list[str] = []
    publisher.on_command = lambda command: commands.append(command.name)
    publisher.announce("running")
    publisher.start()
    try:
        yield publisher, commands
    finally:
        publisher.close(WAIT_S)


def _stranger(port: int, plant: Plant, random: Random, mark: str) -> Iterator[str]:
    """Without a certificate that counts there is no connection, whatever it would say."""
    name, certificate = random.choice(list(plant.strangers.items()))
    with contextlib.suppress(OSError):  # an ssl.SSLError is one
        client = Client(port, plant.context(certificate), random.choice((paho.MQTTv311, paho.MQTTv5)))
        if client.answers[:1] == [True]:
            yield f"{name} was let in"
            client.ask("publish", f"{ROOT}/cmd/state", mark)


def _plain(port: int, plant: Plant, random: Random, mark: str) -> Iterator[str]:
    """Bytes without TLS: MQTT, or anything."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), WAIT_S) as plain:
        hello = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"
        plain.sendall(random.choice((hello, random.randbytes(200), b"GET / HTTP/1.1\r\n\r\n")))
        plain.settimeout(2.0)
        answer = plain.recv(64)
        if answer.startswith(b"\x20"):
            yield "a broker with TLS answered in plain MQTT"


def _other_role(port: int, plant: Plant, random: Random, mark: str) -> Iterator[str]:
    """A sensor of the plant, which may write other topics, tries those of the station."""
    client = Client(port, plant.context(plant.names["sensor"]), random.choice((paho.MQTTv311, paho.MQTTv5)))
    topic = f"{ROOT}/{random.choice(TOPICS)}"
    payload = json.dumps({"result_id": "r0", "mark": mark})
    client.ask("publish", topic, payload, retain=random.random() < 0.3)
    client.ask("subscribe", f"{ROOT}/#")
    client.until(lambda: bool(client.messages), 0.2)
    if client.messages:
        yield f"it reads {client.messages[0][0]}"
    client.close()


def _too_large(port: int, plant: Plant, random: Random, mark: str) -> Iterator[str]:
    """Somebody who may write sends more than the broker takes; it is cut off."""
    client = Client(port, plant.context(plant.names["mes"]))
    client.ask(
        "publish", f"{ROOT}/{random.choice(TOPICS)}", mark + "x" * (LIMIT_BYTES + random.randrange(10**6))
    )
    with contextlib.suppress(OSError):
        client.close()
    return iter(())


def _nonsense(port: int, plant: Plant, random: Random, mark: str) -> Iterator[str]:
    """The MES itself acknowledges what does not exist, or makes no sense."""
    client = Client(port, plant.context(plant.names["mes"]))
    payload = random.choice(
        (
            mark,
            "",
            json.dumps({"result_ids": [mark] * 1500}),
            json.dumps([mark]),
            json.dumps({"result_id": mark}),
        )
    )
    client.ask("publish", f"{ROOT}/ack", payload)
    client.close()
    return iter(())


ATTEMPTS: dict[str, Callable[[int, Plant, Random, str], Iterator[str]]] = {
    "no usable certificate": _stranger,
    "plain text": _plain,
    "another role": _other_role,
    "too large": _too_large,
    "the MES talks nonsense": _nonsense,
}


def _what_got_in(mes: Client, mark: str, *, is_stranger: bool) -> list[str]:
    """What the MES saw of it; a message of its own closes the gate behind which nothing can come any more."""
    mes.ask("publish", "other/gate", mark + " gate")
    mes.until(lambda: ("other/gate", f"{mark} gate".encode()) in mes.messages)
    seen = [topic for topic, payload in mes.messages if mark.encode() in payload and topic != "other/gate"]
    mes.messages.clear()
    return [f"it got through on {topic}" for topic in seen] if is_stranger else []


def _what_goes_on(outbox: Outbox, publisher: Publisher, mes: Client, number: int) -> list[str]:
    """The station still delivers, and its state is its own."""
    result_id = f"result-{number}"
    outbox.accept(result_id, "boot", "cam", number + 1, "{}")
    outbox.commit(result_id, json.dumps({"result_id": result_id}))
    publisher.wake()
    topic = f"{ROOT}/result"
    arrived = mes.until(
        lambda: any(at == topic and result_id.encode() in payload for at, payload in mes.messages)
    )
    return [] if arrived else ["the station does not deliver any more"]


CAMPAIGN = Campaign(
    name="access",
    promise="mosquitto with mutual TLS, ACL and size limit: no stranger gets anything in or out, the station"
    " goes on",
    point="attempts",
    target=1_000,
    run=run_access,
    needs=("mosquitto", "openssl"),
)
