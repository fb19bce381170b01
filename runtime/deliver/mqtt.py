"""One connection to the broker. The only file that knows paho.

`MqttLink` makes one connection and then only tells what happens to it, as events on a queue that its owner
reads in one thread: no lock is shared with paho, whose callbacks run while it holds its own. A broken link is
thrown away and a new one made; paho keeps nothing on disk, the outbox does.
"""

from __future__ import annotations

import queue
import ssl
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from ..config import MqttConfig
from ..errors import ConfigError, DeliveryError

Protocol = Literal["5", "3.1.1"]

# CONNACK reasons that waiting will not cure: somebody must change the configuration or the broker. paho maps
# the codes of 3.1.1 to those of MQTT 5 (section 3.2.2.2).
LASTING_REFUSALS = frozenset(
    {0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8A, 0x8C, 0x90, 0x95, 0x99, 0x9A, 0x9B, 0x9D}
)
# What an older broker does with a CONNECT of MQTT 5: refuse the version, close, or say nothing (code 0 here).
OTHER_PROTOCOL_MAY_HELP = frozenset({0, 0x84})


class RefusedError(DeliveryError):
    """The broker answered CONNECT with a refusal; `lasting` when trying again cannot help."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code
        self.lasting = code in LASTING_REFUSALS


@dataclass(frozen=True)
class Will:
    """The retained message that the broker publishes when the connection breaks."""

    topic: str
    payload: str


@dataclass(frozen=True)
class Acknowledged:
    """The broker answered PUBLISH `mid`: PUBACK; `reason` is None unless it refused the message."""

    link: MqttLink
    mid: int
    reason: str | None


@dataclass(frozen=True)
class Lost:
    """The connection broke."""

    link: MqttLink
    reason: str


@dataclass(frozen=True)
class Received:
    """A message on a topic that the link subscribed to."""

    topic: str
    payload: bytes
    is_retained: bool
    response_topic: str | None
    correlation: bytes | None


class MqttLink:
    """One MQTT connection, open from construction to `close`; a context manager.

    Events go to `events`: `Acknowledged`, `Lost`, `Received`. DeliveryError when the broker cannot be reached
    RefusedError when it answers no, or nothing.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Will,
        events: queue.SimpleQueue[Any],
        protocol: Protocol,
    ) -> None:
        self.protocol = protocol
        self._events = events
        self._where = f"broker {config.host}:{config.port}"
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._connected = False
        self._client = self._client_from(config, client_id, will)
        try:
            self._client.connect(config.host, config.port, keepalive=config.keepalive_s)
        except (OSError, ValueError) as error:
            raise DeliveryError(f"{self._where} cannot be reached: {_system_text(error)}") from error
        self._client.loop_start()
        try:
            code, text = self._answers.get(timeout=config.connect_timeout_s)
        except queue.Empty:
            self.close()
            raise RefusedError(
                f"{self._where} gave no answer to CONNECT in {config.connect_timeout_s:g} s", code=0
            ) from None
        if code:
            self.close()
            if code < 0:
                raise RefusedError(
                    f"{self._where} closed the connection before it answered CONNECT ({text})", code=0
                )
            raise RefusedError(
                f"{self._where} refused the connection: {text} (reason code {code})", code=code
            )

    def __enter__(self) -> MqttLink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def publish(
        self, topic: str, payload: str, *, retain: bool = False, correlation: bytes | None = None
    ) -> int:
        """Send at QoS 1 and return the message's id; the answer comes as `Acknowledged`, or never."""
        properties = None
        if correlation is not None and self.protocol == "5":
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.CorrelationData = correlation
        # A non-zero rc does not mean "not sent": only the PUBACK counts; without it the row is sent again.
        sent = self._client.publish(topic, payload.encode(), qos=1, retain=retain, properties=properties)
        return int(sent.mid)

    def subscribe(self, topic: str) -> None:
        """Ask for a topic at QoS 1; its messages come as `Received`."""
        self._client.subscribe(topic, qos=1)

    def close(self) -> None:
        """DISCONNECT, which keeps the broker from publishing the will; twice is fine."""
        self._client.disconnect()
        self._client.loop_stop()

    def _client_from(self, config: MqttConfig, client_id: str, will: Will) -> paho.Client:
        """A client that never reconnects by itself, since when to try again is its owner's decision, and that
        leaves no session in the broker (the default in both protocols): the outbox knows what is missing."""
        version = paho.MQTTv5 if self.protocol == "5" else paho.MQTTv311
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, protocol=version, reconnect_on_failure=False
        )
        client.connect_timeout = config.connect_timeout_s
        client.max_inflight_messages_set(0)  # the session counts
        client.will_set(will.topic, will.payload.encode(), qos=1, retain=True)
        if config.username is not None:
            client.username_pw_set(config.username, _password(config))
        if config.tls or config.ca_file is not None:
            try:
                client.tls_set_context(ssl.create_default_context(cafile=config.ca_file))
            except OSError as error:
                raise ConfigError(f"mqtt.ca_file: {config.ca_file} cannot be used ({error})") from error
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._connected = not reason.is_failure
        self._answers.put((reason.value if reason.is_failure else 0, str(reason)))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._connected:
            self._events.put(Lost(self, f"{self._where}: connection lost ({reason})"))
        else:
            self._answers.put((-1, str(reason)))

    def _on_publish(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        self._events.put(Acknowledged(self, mid, str(reason) if reason.is_failure else None))

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        properties = message.properties  # None in 3.1.1
        self._events.put(
            Received(
                message.topic,
                bytes(message.payload),
                bool(message.retain),
                getattr(properties, "ResponseTopic", None),
                getattr(properties, "CorrelationData", None),
            )
        )


def _password(config: MqttConfig) -> str | None:
    """The first line of `mqtt.password_file`: a password in service.toml would end up in backups of it."""
    if config.password_file is None:
        return None
    try:
        return config.password_file.read_text(encoding="utf-8").split("\n", 1)[0]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt.password_file: {config.password_file} cannot be read ({error})") from error


def _system_text(error: BaseException) -> str:
    """`Connection refused` rather than `[Errno 111] Connection refused`."""
    return getattr(error, "strerror", None) or str(error)
