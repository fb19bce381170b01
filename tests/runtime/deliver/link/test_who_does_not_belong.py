"""A real mosquitto that demands certificates, names and an ACL: nothing gets in, each reason has its alarm.

Delivery waits in every case; where the cause can be taken away here, the report arrives afterwards.
"""

from __future__ import annotations

import contextlib
import json
import queue
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.runtime.line.condition import Condition
from orinspect.tests.brokers import WAIT_S, listener, mosquitto
from orinspect.tests.certificates import Authority, Certificate

FACTS = StationState("", None, None, "orin-07", "aoi-1", "boot")
pytestmark = pytest.mark.requires("mosquitto")
PAST = {"start": "20200101000000Z", "end": "20200201000000Z"}
FUTURE = {"start": "20980101000000Z", "end": "20990101000000Z"}
ACL = "user station\ntopic readwrite a/b/#\nuser mes\ntopic read #\ntopic write a/b/ack\n"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "plant")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "stranger")


class Station:
    """A publisher with one report, its alarms in a queue, and the state that follows from them."""

    def __init__(self, folder: Path, outbox: Outbox, port: int, **changes: Any) -> None:
        quick = {"retry_least_s": 0.05, "retry_most_s": 0.2, "connect_timeout_s": 2.0, "root": "a/b"}
        config = MqttConfig("127.0.0.1", port=port, **{**quick, **changes.pop("mqtt", {})})
        self.outbox = outbox
        self.alarms: queue.Queue[tuple[str, str | None]] = queue.Queue()
        self.failures: list[bool] = []
        self.publisher = Publisher(
            outbox,
            config,
            FACTS,
            on_failure=lambda: self.failures.append(True),
            random=lambda: 0.5,
            **changes,
        )
        self.condition = Condition(self.publisher.announce)
        self.condition.enter("running")
        self.publisher.alarms.on_change = self._on_alarm
        outbox.accept("r1", "boot", "cam", 1, "{}")
        outbox.commit("r1", '{"result_id": "r1"}')

    def _on_alarm(self, code: str, text: str | None) -> None:
        self.condition.trouble(code, text)
        self.alarms.put((code, text))

    def until(self, code: str, *, is_raised: bool = True) -> str:
        """Wait for an alarm; its sentence."""
        while True:
            found, text = self.alarms.get(timeout=WAIT_S)
            if found == code and (text is not None) == is_raised:
                return text or ""


@contextlib.contextmanager
def _station(folder: Path, port: int, **changes: Any) -> Iterator[Station]:
    with Outbox(folder / "o.sqlite") as outbox:
        station = Station(folder, outbox, port, **changes)
        station.publisher.start()
        try:
            yield station
        finally:
            station.publisher.close(0.0)


def _tls_lines(folder: Path, plant: Authority, server: Certificate, acl: str = ACL) -> list[str]:
    (folder / "acl").write_text(acl)
    (folder / "acl").chmod(0o600)
    return [
        f"cafile {plant.ca.certificate}", f"certfile {server.certificate}", f"keyfile {server.key}",
        "require_certificate true", "use_identity_as_username true", "allow_anonymous false",
        f"acl_file {folder / 'acl'}", "user root",
    ]  # fmt: skip


@contextlib.contextmanager
def _watcher(port: int, plant: Authority) -> Iterator[queue.Queue[paho.MQTTMessage]]:
    """The MES, which belongs and sees everything that got in."""
    messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
    ready: queue.Queue[bool] = queue.Queue()
    mine = plant.issue("mes")
    context = ssl.create_default_context(cafile=plant.ca.certificate)
    context.load_cert_chain(mine.certificate, mine.key)
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.tls_set_context(context)

    def subscribe(*_: object) -> None:
        client.subscribe("#", qos=1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: ready.put(True)
    client.on_message = lambda _, __, message: messages.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        ready.get(timeout=WAIT_S)
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()


def _mutual(plant: Authority, mine: Certificate, **more: Any) -> dict[str, Any]:
    return {
        "ca_file": plant.ca.certificate, "cert_file": mine.certificate, "key_file": mine.key, **more
    }  # fmt: skip


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_station_that_belongs_is_let_in(tmp_path: Path, plant: Authority, version: str) -> None:
    lines = _tls_lines(tmp_path, plant, plant.issue("server"))
    with mosquitto(tmp_path, *lines) as port, _watcher(port, plant) as seen:
        mqtt = _mutual(plant, plant.issue("station"), tls_version=version)
        with _station(tmp_path, port, mqtt=mqtt) as station:
            while seen.get(timeout=WAIT_S).topic != "a/b/result":
                pass
            assert station.publisher.close(WAIT_S) == 0
            assert station.publisher.alarms.standing() == {}


@pytest.mark.parametrize("case", ["none", "another CA's", "expired"])
def test_a_certificate_that_the_broker_does_not_take(
    tmp_path: Path, plant: Authority, stranger: Authority, case: str
) -> None:
    lines = _tls_lines(tmp_path, plant, plant.issue("server"))
    if case == "none":
        mqtt: dict[str, Any] = {"ca_file": plant.ca.certificate}
    elif case == "expired":
        mqtt = _mutual(plant, plant.issue("station", **PAST))
    else:
        mqtt = _mutual(plant, stranger.issue("station"))
    with mosquitto(tmp_path, *lines) as port, _watcher(port, plant) as seen:
        with _station(tmp_path, port, mqtt=mqtt) as station:
            assert "certificate" in station.until("tls.certificate_refused")
            assert station.condition.state[0] == "degraded"
            assert station.outbox.counts()["committed"] == 1
            assert station.failures == []
        assert seen.empty()


@pytest.mark.parametrize(
    ("case", "is_synchronised", "code"),
    [
        ("expired", True, "tls.certificate_expired"),
        ("expired", False, "tls.clock_not_set"),
        ("not yet valid", True, "tls.certificate_not_yet_valid"),
        ("not yet valid", False, "tls.clock_not_set"),
        ("another CA's", True, "tls.unknown_ca"),
        ("another host's", True, "tls.host_name"),
    ],
)
def test_a_broker_that_is_not_the_right_one(
    tmp_path: Path, plant: Authority, stranger: Authority, case: str, is_synchronised: bool, code: str
) -> None:
    servers = {
        "expired": lambda: plant.issue("old", **PAST),
        "not yet valid": lambda: plant.issue("new", **FUTURE),
        "another CA's": lambda: stranger.issue("server"),
        "another host's": lambda: plant.issue("elsewhere", host="DNS:elsewhere.example"),
    }
    mqtt = _mutual(plant, plant.issue("station"))
    with (
        mosquitto(tmp_path, *_tls_lines(tmp_path, plant, servers[case]())) as port,
        _station(tmp_path, port, mqtt=mqtt, is_clock_synchronised=lambda: is_synchronised) as station,
    ):
        assert "certificate" in station.until(code)
        assert station.condition.state[0] == "degraded"
        assert list(station.publisher.alarms.standing()) == [code]
        assert station.outbox.counts()["committed"] == 1
        assert station.publisher.connections == 0


def test_plain_text_to_a_tls_port_and_tls_to_a_plain_port(tmp_path: Path, plant: Authority) -> None:
    with (
        mosquitto(tmp_path, *_tls_lines(tmp_path, plant, plant.issue("server"))) as port,
        _station(tmp_path, port) as station,
    ):
        station.until("mqtt.no_answer")
    (tmp_path / "plain").mkdir()
    with mosquitto(tmp_path / "plain", "allow_anonymous true") as port:
        mqtt = {"ca_file": plant.ca.certificate}
        with _station(tmp_path / "plain", port, mqtt=mqtt) as station:
            code, text = station.alarms.get(timeout=WAIT_S)  # mosquitto closes, or says nothing
            assert code in ("tls.failed", "mqtt.unreachable"), text
            assert station.outbox.counts()["committed"] == 1


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_no_name_and_a_wrong_password(tmp_path: Path, protocol: str) -> None:
    (tmp_path / "secret").write_text("wrong\n")
    for number, mqtt in enumerate(({}, {"username": "station", "password_file": tmp_path / "secret"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        with (
            mosquitto(folder, "allow_anonymous false") as port,
            _station(folder, port, mqtt={"protocol": protocol, **mqtt}) as station,
        ):
            assert "Not authorized" in station.until("mqtt.not_authorised")
            assert station.outbox.counts()["committed"] == 1


def test_a_topic_that_the_acl_denies_waits_until_it_is_allowed(tmp_path: Path, plant: Authority) -> None:
    lines = _tls_lines(tmp_path, plant, plant.issue("server"), ACL.replace("a/b/#", "a/other/#"))
    with (
        mosquitto(tmp_path, *lines) as port,
        _watcher(port, plant) as seen,
        _station(tmp_path, port, mqtt=_mutual(plant, plant.issue("station"))) as station,
    ):
        assert "r1" in station.until("mqtt.publish_denied")
        assert station.condition.state[0] == "degraded"
        assert station.outbox.counts()["committed"] == 1
        assert seen.empty()
    with (
        mosquitto(tmp_path, *_tls_lines(tmp_path, plant, plant.issue("server"))) as port,
        _watcher(port, plant) as seen,
        Outbox(tmp_path / "o.sqlite") as outbox,
    ):
        config = MqttConfig("127.0.0.1", "a/b", port=port, **_mutual(plant, plant.issue("station")))
        publisher = Publisher(outbox, config, FACTS, on_failure=lambda: None, random=lambda: 0.5)
        publisher.start()
        while seen.get(timeout=WAIT_S).topic != "a/b/result":
            pass
        assert publisher.close(WAIT_S) == 0


@pytest.mark.parametrize(
    ("limit", "protocol"),
    [("max_packet_size 2000", "5"), ("message_size_limit 2000", "5"), ("max_packet_size 2000", "3.1.1")],
)
def test_a_report_that_is_too_large_does_not_block_the_ones_behind_it(
    tmp_path: Path, limit: str, protocol: str
) -> None:
    size = 100_000 if protocol == "3.1.1" else 3000  # 3.1.1 cannot say why, so only large ones are suspected
    with Outbox(tmp_path / "o.sqlite") as outbox:
        outbox.accept("large", "boot", "cam", 1, "{}")
        outbox.commit("large", json.dumps({"result_id": "large", "text": "x" * size}))
    with (
        mosquitto(tmp_path, "allow_anonymous true", limit) as port,
        listener(port, "a/b/result") as results,
        _station(tmp_path, port, mqtt={"protocol": protocol}) as station,
    ):
        assert json.loads(results.get(timeout=WAIT_S).payload)["result_id"] == "r1"
        assert "large" in station.until("mqtt.packet_too_large")
        assert station.condition.state[0] == "degraded"
        assert station.outbox.refused() == 1
        assert station.publisher.close(WAIT_S) == 1
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        listener(port, "a/b/result") as results,
        Outbox(tmp_path / "o.sqlite") as outbox,
    ):  # a start later, and the broker takes it
        publisher = Publisher(
            outbox, MqttConfig("127.0.0.1", "a/b", port=port), FACTS,
            on_failure=lambda: None, random=lambda: 0.5,
        )  # fmt: skip
        publisher.start()
        assert json.loads(results.get(timeout=WAIT_S).payload)["result_id"] == "large"
        assert publisher.close(WAIT_S) == 0


def test_another_client_under_our_id(tmp_path: Path) -> None:
    """mosquitto 2.0.11 closes the older connection without the DISCONNECT that MQTT 5 asks for."""
    with (
        mosquitto(tmp_path, "allow_anonymous true") as port,
        listener(port, "a/b/state") as states,
        _station(tmp_path, port, calm_s=1.0) as station,
    ):
        for _ in range(20):
            states.get(timeout=WAIT_S)  # connected, again
            thief = paho.Client(CallbackAPIVersion.VERSION2, client_id="orinspect-orin-07-aoi-1")
            thief.connect("127.0.0.1", port)
            thief.loop_start()
            states.get(timeout=WAIT_S)
            thief.disconnect()
            thief.loop_stop()
            if "mqtt.connection_unstable" in station.publisher.alarms.standing():
                break
        assert "orinspect-orin-07-aoi-1" in station.until("mqtt.connection_unstable")
        while station.condition.state != ("running", None):  # a late thief may raise the alarm once more
            station.until("mqtt.connection_unstable", is_raised=False)
        assert "mqtt.connection_unstable" not in station.publisher.alarms.standing()
        assert station.publisher.close(WAIT_S) == 0
