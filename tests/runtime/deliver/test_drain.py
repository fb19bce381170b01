"""A backlog drains at 50 times a line of 2 parts/s and more, in flat memory, and new reports overtake it.

pytest tests/runtime/deliver/test_drain.py -s       # prints the figures of docs/delivery.md
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from pathlib import Path

import pytest

from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.runtime.deliver.store.carve import digest_of
from orinspect.tests.brokers import WAIT_S, listener, mosquitto

PARTS = int(os.environ.get("ORINSPECT_DRAIN_PARTS", "4000"))
BODY = "x" * 4000


def _fill(path: Path, count: int) -> None:
    """Reports of a long outage, written many in a transaction: the line's own pace would take hours."""
    with Outbox(path) as outbox, outbox._atomic() as connection:
        for number in range(1, count + 1):
            row = (f"r{number}", "boot", number, "cam", number)
            payload = json.dumps({"n": number, "text": BODY})
            connection.execute(
                "INSERT INTO result (result_id, boot_id, sequence, source, source_sequence, state, trigger,"
                " payload, digest) VALUES (?, ?, ?, ?, ?, 'committed', '{}', ?, ?)",
                (*row, payload, digest_of(*row, payload)),
            )
        connection.execute("INSERT INTO ledger VALUES ('boot', ?)", (count,))


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.requires("mosquitto")
def test_a_backlog_drains_fast_and_new_reports_overtake_it(tmp_path: Path) -> None:
    _fill(tmp_path / "o.sqlite", PARTS)
    sent: dict[int, float] = {}
    delays: queue.Queue[float] = queue.Queue()
    with (
        Outbox(tmp_path / "o.sqlite") as outbox,
        mosquitto(tmp_path, "allow_anonymous true", "max_queued_messages 0") as port,
        listener(port, "a/b/state") as states,
        listener(port, "a/b/result") as results,
    ):

        def listen() -> None:
            while True:
                table = json.loads(results.get(timeout=WAIT_S).payload)
                if table["n"] > PARTS:
                    delays.put(time.monotonic() - sent[table["n"]])
                if table["n"] == 0:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        publisher = Publisher(
            outbox, MqttConfig("127.0.0.1", "a/b", port=port), StationState("", None, None, "d", "s", "boot"),
            on_failure=lambda: None, random=lambda: 0.5,
        )  # fmt: skip
        publisher.announce("running")
        publisher.start()
        states.get(timeout=WAIT_S)
        start, memory, most, live = time.monotonic(), _resident_mib(), 0.0, 0
        pace = threading.Event()
        while outbox.counts()["committed"]:
            live += 1
            number = PARTS + live
            outbox.accept(f"r{number}", "boot", "cam", number, "{}")
            sent[number] = time.monotonic()
            outbox.commit(f"r{number}", json.dumps({"n": number, "text": BODY}))
            publisher.wake()
            most = max(most, _resident_mib())
            pace.wait(0.5)  # the line: 2 parts/s
        took_s = time.monotonic() - start
        outbox.accept("end", "boot", "cam", 0, "{}")
        outbox.commit("end", '{"n": 0}')
        publisher.wake()
        thread.join(WAIT_S)
        assert publisher.close(WAIT_S) == 0
    waited = sorted(delays.get_nowait() for _ in range(delays.qsize()))
    print(
        f"\n{PARTS} reports of 4 kB at {PARTS / took_s:.0f}/s; {live} live ones, median"
        f" {waited[len(waited) // 2] * 1e3:.0f} ms, slowest {waited[-1] * 1e3:.0f} ms;"
        f" memory {memory:.0f} to {most:.0f} MiB"
    )
    assert len(waited) == live
    assert PARTS / took_s >= 100, "50 times 2 parts/s"
    assert waited[-1] <= 2.0
    assert most - memory < 30
