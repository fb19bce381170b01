"""One connection to the broker. The only file that knows paho.

`MqttLink` makes one connection and then only tells what happens to it, as events on a queue that its owner
reads in one thread: no lock is shared with paho, whose callbacks run while it holds its own. A broken link is
thrown away and a new one made; paho keeps nothing on disk, the outbox does.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import ssl
import threading
from collections.abc import Callable
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
from .link.tls import alarm_from_alert, alarm_from_handshake, context_from_config

Protocol = Literal["5", "3.1.1"]

# CONNACK reason codes of MQTT 5 (section 3.2.2.2), to which paho maps those of 3.1.1.
_ALARMS_OF_CONNACK = {
    0: "mqtt.no_answer",
    0x85: "mqtt.client_id_refused",
    0x86: "mqtt.bad_user",
    0x87: "mqtt.not_authorised",
    0x8A: "mqtt.banned",
    0x88: "mqtt.unreachable",
    0x89: "mqtt.unreachable",
}
SESSION_TAKEN_OVER = 0x8E
PACKET_TOO_LARGE = 0x95
# What an older broker does with a CONNECT of MQTT 5: refuse the version, close, or say nothing (code 0 here).
OTHER_PROTOCOL_MAY_HELP = frozenset({0, 0x84})
_HEADERS = 16  # bytes of a PUBLISH beside topic and payload, at most
_GOODBYE_S = 2.0


class LinkError(DeliveryError):
    """There is no connection; `alarm` is the code under which a person hears of it."""

    def __init__(self, message: str, *, alarm: str) -> None:
        super().__init__(message)
        self.alarm = alarm


class RefusedError(LinkError):
    """The broker answered CONNECT with a refusal, reason code `code`, or with nothing (0)."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message, alarm=_ALARMS_OF_CONNACK.get(code, "mqtt.refused"))
        self.code = code


@dataclass(frozen=True)
class Will:
    """The retained message that the broker publishes when the connection breaks."""

    topic: str
    payload: str


@dataclass(frozen=True)
class Acknowledged:
    """The broker answered PUBLISH `mid`: PUBACK; `reason` is None and `code` 0 unless it refused it."""

    link: MqttLink
    mid: int
    reason: str | None
    code: int = 0


@dataclass(frozen=True)
class Denied:
    """The broker does not let us subscribe to a topic."""

    link: MqttLink
    topic: str
    reason: str


@dataclass(frozen=True)
class Lost:
    """The connection broke; `code` is the reason code of the broker's DISCONNECT (MQTT 5), else 0.

    `is_unreadable`: the broker's last packet could not be read. mosquitto refuses a report that is too large
    with a PUBACK of reason code 0x95, which MQTT 5 does not allow and paho does not decode.
    """

    link: MqttLink
    reason: str
    code: int = 0
    is_unreadable: bool = False


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

    Events go to `events`: `Acknowledged`, `Denied`, `Lost`, `Received`. LinkError when the broker cannot be
    reached or one of the two certificates is refused, RefusedError when it answers no, or nothing.
    """

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        will: Will,
        events: queue.SimpleQueue[Any],
        protocol: Protocol,
        *,
        is_clock_synchronised: Callable[[], bool] = lambda: True,
    ) -> None:
        self.protocol = protocol
        self.receive_maximum = 0xFFFF  # what the broker takes at a time, once it said so
        self.maximum_packet_size: int | None = None
        self._topics: dict[int, str] = {}  # message id of a SUBSCRIBE -> its topic
        self._is_unreadable = False
        self._socket_text = ""  # the last that paho said about its socket
        self._events = events
        self._where = f"broker {config.host}:{config.port}"
        self._answers: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._connected = False
        self._client = self._client_from(config, client_id, will)
        try:
            self._client.connect(config.host, config.port, keepalive=config.keepalive_s)
        except ssl.SSLError as error:
            alarm, text = alarm_from_handshake(error, is_clock_synchronised())
            raise LinkError(f"{self._where}: {text}", alarm=alarm) from error
        except (OSError, ValueError) as error:
            raise LinkError(
                f"{self._where} cannot be reached: {_system_text(error)}", alarm="mqtt.unreachable"
            ) from error
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
            refused = alarm_from_alert(self._socket_text)
            if code < 0 and refused is not None:
                raise LinkError(f"{self._where}: {refused[1]}", alarm=refused[0])
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
        _, mid = self._client.subscribe(topic, qos=1)
        if mid is not None:
            self._topics[mid] = topic

    def fits(self, topic: str, payload: str) -> bool:
        """False when the broker said that it takes no packet as large as this one."""
        if self.maximum_packet_size is None:
            return True
        return len(topic.encode()) + len(payload.encode()) + _HEADERS <= self.maximum_packet_size

    def close(self) -> None:
        """DISCONNECT, which keeps the broker from publishing the will; twice is fine.

        A broker that does not read any more would keep the DISCONNECT, and us, waiting: then the connection
        is cut.
        """
        cut = threading.Timer(_GOODBYE_S, self._cut)
        cut.start()
        try:
            self._client.disconnect()
            self._client.loop_stop()
        finally:
            cut.cancel()

    def _cut(self) -> None:
        connection = self._client.socket()
        if isinstance(connection, socket.socket):  # a TLS socket is one, too
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

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
        context = context_from_config(config)
        if context is not None:
            client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_log = self._on_log
        return client

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self._connected = not reason.is_failure
        self.receive_maximum = getattr(properties, "ReceiveMaximum", self.receive_maximum)
        self.maximum_packet_size = getattr(properties, "MaximumPacketSize", None)
        self._answers.put((reason.value if reason.is_failure else 0, str(reason)))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        if self._connected:
            code = reason.value if flags.is_disconnect_packet_from_server else 0
            text = f"{self._where}: connection lost ({reason})"
            self._events.put(Lost(self, text, code, self._is_unreadable))
        else:
            self._answers.put((-1, str(reason)))

    def _on_publish(self, client: Any, data: Any, mid: int, reason: ReasonCode, properties: Any) -> None:
        if reason.is_failure:
            self._events.put(Acknowledged(self, mid, str(reason), reason.value))
        else:
            self._events.put(Acknowledged(self, mid, None))

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        for reason in reasons:
            if reason.is_failure:
                self._events.put(Denied(self, self._topics.get(mid, "a topic"), str(reason)))

    def _on_log(self, client: Any, data: Any, level: int, text: str) -> None:
        if level == paho.MQTT_LOG_ERR:
            self._socket_text = text
        elif text.startswith("Received malformed packet"):
            self._is_unreadable = True

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
