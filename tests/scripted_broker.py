"""A broker that is a plain socket and does what a test says: refuse, stay silent, close in the middle."""

from __future__ import annotations

import contextlib
import queue
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal

WAIT_S = 20.0
NOT_AUTHORISED = {4: 0x05, 5: 0x87}  # by protocol level: CONNACK of MQTT 3.1.1 and of MQTT 5
UNKNOWN_PROTOCOL = {4: 0x01, 5: 0x01}  # what a 3.1.1 broker says to both


@dataclass(frozen=True)
class Connect:
    """A CONNECT as it came."""

    level: int
    client_id: str
    will_topic: str
    will_payload: bytes
    will_retain: bool
    will_qos: int


@dataclass(frozen=True)
class Publish:
    """A PUBLISH as it came."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    mid: int


@dataclass(frozen=True)
class Gone:
    """A connection ended, with a DISCONNECT or without."""

    said_goodbye: bool


Answer = Literal["ack", "silence", "close", "refuse"] | int  # a number: PUBACK with this reason code


class ScriptedBroker:
    """Listens on a free port. `connack(connect)` gives the reason code or None to close without a word,
    `puback(publish)` what to do with a message; what came stands in `events`. A context manager."""

    def __init__(
        self,
        connack: Callable[[Connect], int | None] = lambda connect: 0,
        puback: Callable[[Publish], Answer] = lambda publish: "ack",
    ) -> None:
        self.events: queue.Queue[Connect | Publish | Gone] = queue.Queue()
        self.connack, self.puback = connack, puback
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> ScriptedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(WAIT_S)

    def drop(self) -> None:
        """Cut every connection."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def disconnect(self, code: int) -> None:
        """Say goodbye to every client with a reason code of MQTT 5, and close."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.sendall(bytes([0xE0, 2, code, 0]))
        self.drop()

    def next(
        self, kind: type[Connect] | type[Publish] | type[Gone], topic: str = ""
    ) -> Connect | Publish | Gone:
        """The next event of this kind (and topic ending); others are skipped."""
        while True:
            event = self.events.get(timeout=WAIT_S)
            if isinstance(event, kind) and (not topic or getattr(event, "topic", "").endswith(topic)):
                return event

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        goodbye, level, is_welcome = False, 4, False
        with connection, contextlib.suppress(OSError, EOFError):
            while True:
                header, body = _packet(connection)
                kind = header >> 4
                if kind == 1:
                    connect = _connect(body)
                    level = connect.level
                    self.events.put(connect)
                    code = self.connack(connect)
                    if code is None:
                        break
                    # a 3.1.1 broker answers MQTT 5 in its own format, without properties
                    modern = level == 5 and code not in (0x01,)
                    connection.sendall(
                        b"\x20\x03\x00" + bytes([code, 0]) if modern else b"\x20\x02\x00" + bytes([code])
                    )
                    if code:
                        break
                    is_welcome = True
                elif kind == 3 and not self._take(connection, _publish(header, body, level), level):
                    break
                elif kind == 8:
                    connection.sendall(
                        b"\x90"
                        + (b"\x04" + body[:2] + b"\x00\x01" if level == 5 else b"\x03" + body[:2] + b"\x01")
                    )
                elif kind == 12:
                    connection.sendall(b"\xd0\x00")
                elif kind == 14:
                    goodbye = True
                    break
        if is_welcome:
            self.events.put(Gone(goodbye))

    def _take(self, connection: socket.socket, publish: Publish, level: int) -> bool:
        """Answer one message; False: close the connection."""
        self.events.put(publish)
        answer = self.puback(publish)
        if answer == "ack":
            connection.sendall(b"\x40\x02" + struct.pack("!H", publish.mid))
        elif answer == "refuse" or isinstance(answer, int):
            assert level == 5, "3.1.1 has no negative PUBACK"
            code = answer if isinstance(answer, int) else 0x87
            connection.sendall(b"\x40\x04" + struct.pack("!HBB", publish.mid, code, 0))
        return answer != "close"


def _packet(connection: socket.socket) -> tuple[int, bytes]:
    header = _exactly(connection, 1)[0]
    length, shift = 0, 0
    while True:
        byte = _exactly(connection, 1)[0]
        length |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return header, _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def _text(body: bytes, at: int) -> tuple[bytes, int]:
    (length,) = struct.unpack_from("!H", body, at)
    return body[at + 2 : at + 2 + length], at + 2 + length


def _connect(body: bytes) -> Connect:
    _, at = _text(body, 0)
    level, flags = body[at], body[at + 1]
    at += 4
    if level == 5:
        at += 1 + body[at]
    client, at = _text(body, at)
    topic = payload = b""
    if flags & 4:
        if level == 5:
            at += 1 + body[at]
        topic, at = _text(body, at)
        payload, at = _text(body, at)
    return Connect(level, client.decode(), topic.decode(), payload, bool(flags & 32), flags >> 3 & 3)


def _publish(header: int, body: bytes, level: int) -> Publish:
    topic, at = _text(body, 0)
    qos, mid = header >> 1 & 3, 0
    if qos:
        (mid,) = struct.unpack_from("!H", body, at)
        at += 2
    if level == 5:
        at += 1 + body[at]
    return Publish(topic.decode(), body[at:], qos, bool(header & 1), mid)
