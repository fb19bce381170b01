"""Somebody who commands a station over MQTT and listens to everything under its root."""

from __future__ import annotations

import contextlib
import itertools
import json
import queue
from datetime import datetime, timedelta, timezone
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from orinspect.tests.brokers import WAIT_S
from orinspect.tests.wire import check_message


class Commander:
    """A client of MQTT 5 (answers on a topic of its own, by correlation) or 3.1.1 (on `cmd-response`)."""

    def __init__(self, port: int, root: str, protocol: str = "5") -> None:
        self.messages: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._root, self._is_5 = root, protocol == "5"
        self._answers: queue.Queue[tuple[str, bytes | None, dict[str, Any]]] = queue.Queue()
        self._numbers = itertools.count(1)
        self._subscribed: queue.Queue[bool] = queue.Queue()
        version = paho.MQTTv5 if self._is_5 else paho.MQTTv311
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=version)
        self._client.on_message = self._on_message
        self._client.on_subscribe = lambda *_: self._subscribed.put(True)
        self._client.on_connect = self._on_connect
        self._client.connect("127.0.0.1", port)

    def __enter__(self) -> Commander:
        self._client.loop_start()
        self._subscribed.get(timeout=WAIT_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def request(self, arguments: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """A well-formed payload with a new id; `changes` replace keys, None removes one."""
        table = {
            "id": f"c-{next(self._numbers)}",
            "issued_at": moment(0),
            "arguments": arguments or {},
            **changes,
        }
        return {key: value for key, value in table.items() if value is not None}

    def ask(self, name: str, arguments: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        return self.ask_raw(name, json.dumps(self.request(arguments, **changes)).encode())

    def ask_raw(self, name: str, payload: bytes, *, retain: bool = False) -> dict[str, Any]:
        """Send any bytes as a command and wait for the answer."""
        number = str(next(self._numbers)).encode()
        properties = None
        if self._is_5:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
            properties.ResponseTopic = "office/answers"
            properties.CorrelationData = number
        self._client.publish(f"{self._root}/cmd/{name}", payload, qos=1, retain=retain, properties=properties)
        topic, correlation, answer = self._answers.get(timeout=WAIT_S)
        assert topic == ("office/answers" if self._is_5 else f"{self._root}/cmd-response")
        assert correlation == (number if self._is_5 else None)
        check_message("cmd-response", answer)
        assert answer["command"] == name
        return answer

    def next(self, name: str) -> dict[str, Any]:
        """The next message on a topic below the root; what comes on others meanwhile is passed over."""
        while True:
            topic, content = self.messages.get(timeout=WAIT_S)
            check_message(topic.removeprefix(f"{self._root}/"), content)
            if topic == f"{self._root}/{name}":
                return content

    def until_state(self, state: str) -> dict[str, Any]:
        """Wait for a state."""
        while (message := self.next("state"))["state"] != state:
            pass
        return message

    def nothing_on(self, name: str) -> bool:
        """Whether nothing has come on a topic since it was looked at last."""
        with contextlib.suppress(queue.Empty):
            while True:
                topic, _ = self.messages.get_nowait()
                if topic == f"{self._root}/{name}":
                    return False
        return True

    def _on_connect(self, *_: object) -> None:
        self._client.subscribe([(f"{self._root}/#", 1), ("office/answers", 1)])

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        if "/cmd/" in message.topic:
            return
        content = json.loads(message.payload)
        if message.topic == "office/answers" or message.topic.endswith("/cmd-response"):
            correlation = getattr(message.properties, "CorrelationData", None)
            self._answers.put((message.topic, correlation, content))
        else:
            self.messages.put((message.topic, content))


def moment(offset_s: float) -> str:
    """Now and so many seconds, as `issued_at` wants it."""
    return (datetime.now(timezone.utc) + timedelta(seconds=offset_s)).isoformat()
