"""kill -9 of the whole service: camera process, engines, outbox, publisher, over a small random bundle.

The service is forked with its imports done; only the capture process is a new Python, as always. It is killed
at a random moment after it reported so many parts, or at a random line of runtime/line or runtime/deliver.
Every process that it had started must end by itself.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from orinspect.runtime import service
from orinspect.runtime.config import load_config
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.tests.brokers import mosquitto
from orinspect.tests.faults.kill9 import NAME, ROOT, Told, faults_of
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.consumer import Consumer
from orinspect.tests.faults.means.forked import Forked, Tell, kill_at_line
from orinspect.tests.faults.means.recorded import digest
from orinspect.tests.small_bundle import write_small_bundle

KILLS_A_ROUND = 10
RUNTIME = Path(service.__file__).parent
MOST_PARTS = 3
LONGEST_S = 0.2
MOST_LINES = 4_000
WAIT_S = 120.0


def run_service_kill9(seed: int, folder: Path, kills: int = KILLS_A_ROUND) -> Tally:
    """One station, killed `kills` times, then stopped by SIGTERM; what the consumer has."""
    random = Random(f"service {seed}")
    told, done, failures = Told(), 0, []
    write_small_bundle(folder)
    with mosquitto(folder, "allow_anonymous true") as port, Consumer(port, ROOT) as consumer:
        config = write_service_config(folder, port, f"scenes:pcb?seed={seed}&size_px=128")
        for life in range(2 * kills):
            if done < kills:
                code, words = _live(config, random, consumer, told, is_last=False)
                done += code == -signal.SIGKILL
                if code != -signal.SIGKILL:
                    failures.append(f"life {life} ended with {code}: {words}")
        code, words = _live(config, random, consumer, told, is_last=True)
        if code != 0:
            failures.append(f"after SIGTERM the service ended with {code}: {words}")
        consumer.pump_while_it_comes(lambda: told.accepted <= consumer.contents.keys())
        failures += [f"process {name} stays" for name in _left_behind(folder)]
        failures += faults_of(folder / NAME, consumer, told)
    return Tally(done, tuple(failures), {"results": float(len(told.committed))}, frozenset(told.places))


def write_service_config(folder: Path, port: int, source: str, **mqtt: Any) -> Path:
    """A service.json for the bundle in `folder`."""
    tables = {
        "device": {"device_id": "d", "station_id": "s"},
        "camera": {"source": source},
        "inspection": {"bundle": "bundle", "threads": 1},
        "mqtt": {
            "host": "127.0.0.1", "port": port, "root": ROOT, "retry_least_s": 0.05,
            "retry_most_s": 0.2, **mqtt,
        },
        "outbox": {"path": NAME, "drain_timeout_s": 30.0},
    }  # fmt: skip
    path = folder / "service.json"
    path.write_text(json.dumps(tables), encoding="utf-8")
    return path


def service_body(config: Path, kill_line: int | None = None) -> Callable[[Tell, int], int]:
    """What a forked child does: `orinspect run`, and it tells what the outbox took."""

    def body(tell: Tell, orders: int) -> int:
        os.setsid()
        errors = os.open(config.parent / "service-errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(errors, 2)
        os.environ["ORINSPECT_FAULTS"] = str(config.parent)  # marks its processes for _left_behind
        sys.modules["__main__"] = types.ModuleType(
            "__main__"
        )  # the capture process imports what it needs only
        _tell_of_outbox(tell)
        if kill_line is not None:
            kill_at_line(kill_line, [str(RUNTIME / "line"), str(RUNTIME / "deliver")], tell)
        return service.run_service(load_config(config))

    return body


def _live(config: Path, random: Random, consumer: Consumer, told: Told, *, is_last: bool) -> tuple[int, str]:
    at_line = not is_last and random.random() < 0.5
    body = service_body(config, int(MOST_LINES ** random.random()) if at_line else None)
    before, parts = len(consumer.contents), random.randint(int(is_last), MOST_PARTS)
    with Forked(body, config.parent, consumer) as worker:
        worker.listen_until(consumer, lambda: len(consumer.contents) >= before + parts, WAIT_S)
        if is_last:
            worker.terminate()
        elif not at_line:
            until = time.monotonic() + random.random() * LONGEST_S
            worker.listen_until(consumer, lambda: time.monotonic() >= until, LONGEST_S)
            worker.kill()
        code = worker.wait(consumer, WAIT_S)
        told.take(worker.said)
        return code, worker.last_words()


def _tell_of_outbox(tell: Tell) -> None:
    """In this process the outbox tells what it has taken, after it has."""
    accept, commit = Outbox.accept, Outbox.commit

    def telling_accept(outbox: Outbox, result_id: str, *rest: Any, **more: Any) -> int:
        sequence = accept(outbox, result_id, *rest, **more)
        tell("accepted", result_id)
        return sequence

    def telling_commit(outbox: Outbox, result_id: str, payload: str) -> None:
        commit(outbox, result_id, payload)
        tell("committed", result_id, digest(payload))

    Outbox.accept = telling_accept  # type: ignore[assignment, method-assign]
    Outbox.commit = telling_commit  # type: ignore[assignment, method-assign]


def _left_behind(folder: Path) -> list[str]:
    """Processes of killed services that are still there after a while."""
    mark = f"ORINSPECT_FAULTS={folder}\0".encode()
    deadline = time.monotonic() + 30.0
    while True:
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (place / "environ").read_bytes():
                    found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            except OSError:
                continue
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.2)


CAMPAIGN = Campaign(
    name="service_kill9",
    promise="service with engines killed: the same, every accepted part is reported, no process stays",
    point="kills",
    target=300,
    run=run_service_kill9,
    needs=("mosquitto",),
)
