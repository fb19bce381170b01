"""From the broker into the store, in this order: write, confirm to the broker, acknowledge to the station.

paho's thread only puts what happens on one queue; the main thread does the work. A message is confirmed to
the broker (PUBACK) when it is on the disk and not before, so whatever this process had not written when it
died is delivered again: the broker keeps the session, and the station sends again what nobody acknowledged.
"""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .contract import MOST_BYTES
from .database import Database, DownError
from .store import INVALID, Message, Store, Stored

MOST_TOGETHER = 500
"""Messages in one transaction, and ids in one ack."""
PAUSE_S = 1.0
GOODBYE_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True)
class Broker:
    """How to reach the broker; it keeps the session of `client_id` for `session_expiry_s` after a break."""

    host: str
    port: int
    client_id: str
    protocol: str = "5"
    session_expiry_s: int = 7 * 24 * 3600
    username: str | None = None
    password: str | None = None
    tls: dict[str, Any] | None = None


@dataclass(frozen=True)
class Arrived:
    """A message, with what its PUBACK needs: the packet id holds in connection number `connection` only."""

    message: paho.MQTTMessage
    connection: int
    at: str


@dataclass(frozen=True)
class Confirmed:
    """The broker has our ack, packet `mid`; or it refused it, and `refusal` says why."""

    mid: int
    refusal: str | None


@dataclass(frozen=True)
class Wake:
    """Something changed: connected, or asked to stop."""


class Receiver:
    """Receives from the stations under `root` (MQTT wildcards allowed) until `stop`; see `run`."""

    def __init__(
        self,
        database: Database,
        store: Store,
        broker: Broker,
        root: str,
        *,
        on_stored: Callable[[Stored], None],
        on_state: Callable[[dict[str, Any], bool], None],
        say: Callable[[str], None],
    ) -> None:
        self.invalid = 0
        self._database, self._store, self._broker, self._root = database, store, broker, root
        self._on_stored, self._on_state, self._say = on_stored, on_state, say
        self._events: queue.SimpleQueue[Arrived | Confirmed | Wake] = queue.SimpleQueue()
        self._acks: dict[int, list[str]] = {}  # packet id -> result ids on their way to the station
        self._connection, self._refused_in = 0, -1
        self._stopping = False
        self._client = self._new_client()

    def stop(self) -> None:
        """End after what has arrived is stored; callable from a signal handler or a callback."""
        self._stopping = True
        self._events.put(Wake())

    def run(self) -> None:
        """Receive, until `stop`. Reconnects for ever: to the broker, and to the database."""
        self._connect()
        try:
            while not self._stopping:
                self._step(None)
            until = time.monotonic() + GOODBYE_S
            while self._acks and (left_s := until - time.monotonic()) > 0:
                self._step(left_s)
        finally:
            self._client.disconnect()  # the session stays in the broker
            self._client.loop_stop()

    def _step(self, timeout_s: float | None) -> None:
        """Everything that has happened, at least one event: store, confirm, acknowledge."""
        events = []
        try:
            events.append(self._events.get(timeout=timeout_s))
            while len(events) < MOST_TOGETHER:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        arrived = [event for event in events if isinstance(event, Arrived)]
        results = [event for event in arrived if event.message.topic.endswith("/result")]
        messages = [Message(e.message.topic, bytes(e.message.payload), e.at) for e in results]
        stored = self._until_it_works(lambda: self._store.take(messages)) if messages else []
        for event in arrived:
            self._confirm(event)
        for entry in stored:
            self.invalid += entry.outcome == INVALID
            self._on_stored(entry)
        for confirmed in (event for event in events if isinstance(event, Confirmed)):
            self._take_confirmed(confirmed)
        self._acknowledge()
        for event in arrived:
            if event.message.topic.endswith("/state"):
                self._take_state(event.message)

    def _confirm(self, event: Arrived) -> None:
        """PUBACK. After a break the broker sends the message again under the new connection."""
        if event.connection == self._connection:
            self._client.ack(event.message.mid, event.message.qos)

    def _take_confirmed(self, event: Confirmed) -> None:
        """The broker has an ack: its results are done. A refused one is tried over the next connection."""
        ids = self._acks.pop(event.mid, [])
        if event.refusal is None:
            self._until_it_works(lambda: self._store.mark_acknowledged(ids, utc_now()))
        else:
            self._say(
                f"the broker refused our ack: {event.refusal}; may {self._broker.client_id} publish it?"
            )
            self._refused_in = self._connection

    def _acknowledge(self) -> None:
        """Tell the stations what is stored; the next ack waits until the broker has this one."""
        if self._acks or self._refused_in == self._connection or not self._client.is_connected():
            return
        for station, ids in self._until_it_works(lambda: self._store.unacknowledged(MOST_TOGETHER)).items():
            payload = json.dumps({"schema": "orinspect.ack/1.0", "result_ids": ids})
            self._acks[self._client.publish(f"{station}/ack", payload, qos=1).mid] = ids

    def _take_state(self, message: paho.MQTTMessage) -> None:
        try:
            state = json.loads(message.payload)
            self._on_state({"state": state["state"], "reason": state["reason"]}, message.retain)
        except (ValueError, TypeError, KeyError):
            self._say(f"not a state, ignored: {message.payload[:80]!r}")

    def _until_it_works(self, work: Callable[[], T]) -> T:
        """The database may be away for hours: nothing is confirmed meanwhile, and nothing is lost."""
        while True:
            try:
                self._database.open()
                return work()
            except DownError as error:
                self._say(f"database: {error}; trying again")
                self._database.close()
                time.sleep(PAUSE_S)

    def _new_client(self) -> paho.Client:
        version = paho.MQTTv5 if self._broker.protocol == "5" else paho.MQTTv311
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._broker.client_id,
            protocol=version,
            clean_session=None if version == paho.MQTTv5 else False,
            manual_ack=True,
        )
        client.reconnect_delay_set(1, 30)
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._broker.password)
        if self._broker.tls is not None:
            client.tls_set(**self._broker.tls)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        client.on_publish = self._on_publish
        return client

    def _connect(self) -> None:
        broker = self._broker
        if broker.protocol == "5":
            session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            session.SessionExpiryInterval = broker.session_expiry_s
            session.ReceiveMaximum = MOST_TOGETHER  # what waits here is bounded by it
            session.MaximumPacketSize = MOST_BYTES + 1000
            self._client.connect_async(broker.host, broker.port, clean_start=False, properties=session)
        else:
            self._client.connect_async(broker.host, broker.port)
        self._client.loop_start()

    def _on_connect(self, client: paho.Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._say(f"the broker refused the connection: {reason}; trying again")
        else:
            client.subscribe([(f"{self._root}/result", 1), (f"{self._root}/state", 1)])

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        self._connection += 1
        if not self._stopping:
            self._say(f"connection lost: {reason}; the broker keeps what comes meanwhile")

    def _on_subscribe(self, client: Any, data: Any, mid: int, reasons: Any, properties: Any) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        listening = f"listening on {self._root}/result and /state"
        self._say(f"the broker refused the subscription: {', '.join(refused)}" if refused else listening)
        self._events.put(Wake())  # acks may wait for the connection

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self._events.put(Confirmed(mid, str(reason) if reason.is_failure else None))

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        self._events.put(Arrived(message, self._connection, utc_now()))


def utc_now() -> str:
    """RFC 3339 with milliseconds."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
