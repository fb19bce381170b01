"""A TCP proxy on loopback that does to a connection what networks do, drawn from a seed."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass
from random import Random
from types import TracebackType
from typing import Literal, get_args

Kind = Literal["late", "reset", "half_open", "deaf", "mute", "slow", "crumbs", "refused"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PIECE = 4096
WAIT_S = 20.0


@dataclass(frozen=True)
class Fate:
    """What happens to one connection once `after_bytes` went through it.

    late: each piece waits `delay_s`; reset: RST in the midst of a piece; half_open: nothing goes any more and
    nobody is told; deaf, mute: the same in one direction, to the station or from it; slow: a few bytes at a
    time, with pauses and small buffers; crumbs: pieces of one to three bytes; refused: RST at once.
    """

    kind: Kind
    after_bytes: int
    delay_s: float


def drawn_fate(random: Random) -> Fate:
    """Any of them, anywhere in the first few messages."""
    return Fate(random.choice(KINDS), int(20_000 ** random.random()), random.random() * 0.02)


class FaultProxy:
    """Listens on `port` and forwards to `target`; a context manager.

    While `is_faulty` each new connection gets a fate of its own, and after `faulty_s` at most it is cut;
    `cut` ends all of them. `met` counts fates by kind.
    """

    def __init__(self, target: int, random: Random, *, faulty_s: float = 1.5) -> None:
        self.met: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.is_faulty = True
        self._target, self._random, self._faulty_s = target, random, faulty_s
        self._stopping = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._start(self._accept)

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(WAIT_S)

    @property
    def faults(self) -> int:
        """Connections that met their fate so far."""
        return sum(self.met.values())

    def cut(self) -> None:
        """Reset every connection."""
        for each in list(self._sockets):
            _reset(each)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._stopping.is_set():
                station, _ = self._listener.accept()
                self._start(self._serve, station, drawn_fate(self._random) if self.is_faulty else None)

    def _serve(self, station: socket.socket, fate: Fate | None) -> None:
        if fate is not None and fate.kind == "refused":
            self.met["refused"] += 1
            _reset(station)
            return
        try:
            broker = socket.create_connection(("127.0.0.1", self._target), WAIT_S)
        except OSError:  # it is being restarted
            _reset(station)
            return
        broker.settimeout(None)
        if fate is not None and fate.kind == "slow":
            for each in (station, broker):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._sockets += [station, broker]
        over = threading.Event()
        self._start(self._forward, station, broker, fate, True, over)
        self._start(self._forward, broker, station, fate, False, over)
        if fate is not None:
            over.wait(self._faulty_s)
            _reset(station)
            _reset(broker)

    def _forward(
        self,
        source: socket.socket,
        sink: socket.socket,
        fate: Fate | None,
        is_from_station: bool,
        over: threading.Event,
    ) -> None:
        """One direction of one connection, until either side ends it."""
        left, has_met = 0 if fate is None else fate.after_bytes, False
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                left -= len(piece)
                if fate is not None and left <= 0:
                    if not has_met:
                        has_met = True
                        self.met[fate.kind] += 1
                    if self._ends(piece, source, sink, fate, is_from_station):
                        return
                else:
                    sink.sendall(piece)
        over.set()
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _ends(
        self, piece: bytes, source: socket.socket, sink: socket.socket, fate: Fate, is_from_station: bool
    ) -> bool:
        """Do to one piece what the fate says; True when this direction goes no further."""
        if fate.kind == "reset":
            with contextlib.suppress(OSError):
                sink.sendall(piece[: len(piece) // 2])
            _reset(sink)
            _reset(source)
            return True
        if fate.kind == "half_open":
            return True  # both sockets stay open, nobody reads them
        if fate.kind == ("mute" if is_from_station else "deaf"):
            return False  # swallowed
        sizes = {"slow": 64, "crumbs": 1 + fate.after_bytes % 3}
        size = sizes.get(fate.kind, PIECE)
        for at in range(0, len(piece), size):
            if fate.kind in ("late", "slow"):
                self._stopping.wait(fate.delay_s)
            sink.sendall(piece[at : at + size])
        return False


def _reset(each: socket.socket) -> None:
    """RST, not FIN: what is still in the buffers is lost."""
    with contextlib.suppress(OSError):
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        each.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        each.close()
