"""A consumer that stores results by `result_id`, in its caller's thread: nothing that a fork could tear.

It keeps every content that ever came under an id, so that two contents under one id are seen, and
acknowledges those results that its owner chooses, as an MES does.
"""

from __future__ import annotations

import json
import os
import select
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from orinspect.tests.faults.means.recorded import digest

C = TypeVar("C", bound="Consumer")
WAIT_S = 20.0
QUIET_S = 5.0


class Consumer:
    """Subscribed to `ROOT/result` of the broker at `port`; a context manager. `pump` lets it work."""

    def __init__(
        self,
        port: int,
        root: str,
        *,
        acknowledges: Callable[[str], bool] = lambda result_id: False,
        client_id: str = "",
    ) -> None:
        """With a `client_id` it has a session in the broker that outlives its connections."""
        self.contents: dict[str, set[str]] = defaultdict(set)  # id -> digests
        self.received = 0
        self._root, self._acknowledges, self._ready = root, acknowledges, False
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv311, clean_session=not client_id
        )
        self._client.on_connect = lambda client, *_: client.subscribe(f"{root}/result", qos=1)
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message
        self._port, self._is_lasting = port, bool(client_id)
        self._client.connect("127.0.0.1", port)
        if not self.pump_until(lambda: self._ready):
            raise AssertionError("the consumer cannot subscribe")

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()

    def pump(self, timeout_s: float, *others: int) -> bool:
        """Take what has come, or wait for it; True when one of the descriptors `others` can be read."""
        if self._client.socket() is None and not self._reconnected():
            return bool(select.select(others, [], [], min(max(timeout_s, 0.0), 0.05))[0])
        own = self._descriptor()
        wants_write = [own] if self._client.want_write() else []
        readable, writable, _ = select.select([own, *others], wants_write, [], max(timeout_s, 0.0))
        if own in readable:
            self._client.loop_read()
        if writable:
            self._client.loop_write()
        self._client.loop_misc()
        return any(other in readable for other in others)

    def pump_until(self, is_done: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Work until the condition holds; False when it did not in time."""
        deadline = time.monotonic() + timeout_s
        while not is_done():
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self.pump(min(left_s, 0.2))
        return True

    def pump_while_it_comes(self, is_done: Callable[[], bool], quiet_s: float = QUIET_S) -> None:
        """Work until the condition holds, or nothing has come for a while."""
        while not is_done():
            before = self.received
            self.pump_until(is_done, quiet_s)
            if self.received == before:
                return

    def close_in_child(self) -> None:
        """Close this process's copy of the socket, after a fork, without a word to the broker."""
        # the number stays taken: a file that got it would be closed with the socket
        os.dup2(os.open(os.devnull, os.O_RDWR), self._descriptor())

    def _reconnected(self) -> bool:
        """Connect again, as a consumer with a session may; the broker may still be away."""
        if not self._is_lasting:
            raise AssertionError("the consumer's connection is gone")
        try:
            self._client.connect("127.0.0.1", self._port)
        except OSError:
            return False
        return True

    def _descriptor(self) -> int:
        sock = self._client.socket()
        assert sock is not None, "the consumer's connection is gone"
        return int(sock.fileno())

    def _store(self, result_id: str, payload: bytes) -> None:
        self.contents[result_id].add(digest(payload))

    def _on_subscribe(self, *_: Any) -> None:
        self._ready = True

    def _on_message(self, client: paho.Client, _: object, message: paho.MQTTMessage) -> None:
        self.received += 1
        result_id = str(json.loads(message.payload)["result_id"])
        self._store(result_id, bytes(message.payload))
        if self._acknowledges(result_id):
            client.publish(f"{self._root}/ack", json.dumps({"result_id": result_id}), qos=1)
