"""An MQTT broker for the demo and the tests: amqtt, in a process of its own, on a free port of this machine.

Not for a line: it keeps nothing on disk, knows no passwords and speaks MQTT 3.1.1 only.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from types import TracebackType

from ..runtime.errors import DeliveryError

HOST = "127.0.0.1"
_TRIES = 5


class EmbeddedBroker:
    """A running broker at `HOST`, `port`; a context manager. DeliveryError when it does not start."""

    def __init__(self, *, start_timeout_s: float = 30.0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,  # its end is the child's sign to stop, also when this process is killed
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        timer = threading.Timer(start_timeout_s, self._process.kill)
        timer.start()
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        timer.cancel()
        if not line.strip().isdigit():
            _, errors = self._process.communicate()
            last = errors.strip().splitlines()[-1:] or ["it said nothing"]
            raise DeliveryError(
                f"the embedded broker did not start: {last[0]}; install it with pip install 'orinspect[demo]'"
            )
        self.port = int(line)

    def __enter__(self) -> EmbeddedBroker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the broker; twice is fine."""
        self._process.kill()
        self._process.communicate()


async def _serve() -> None:
    """Start on a free port, say which one, and run until standard input ends."""
    from amqtt.broker import Broker
    from amqtt.errors import BrokerError

    for attempt in range(_TRIES):
        port = _free_port()
        broker = Broker(
            {
                "listeners": {"default": {"type": "tcp", "bind": f"{HOST}:{port}"}},
                "plugins": {
                    "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
                },
            }
        )
        try:
            await broker.start()
        except BrokerError:  # somebody took the port in between
            if attempt + 1 == _TRIES:
                raise
            continue
        break
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(_serve())
