"""The consumer's command line, with a kill -9 planted between two of its steps; no sleep decides when.

    python -m orinspect.tests.examples.mes.consumer_child POINT run --database ... --root ...

POINT: `stored` (on the disk, the broker does not know), `confirmed` (the broker knows, the station does not),
`received` (nothing is written yet), `acked` (the ack is on its way, not noted as done), or `-`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn

from orinspect.examples.mes.__main__ import main
from orinspect.examples.mes.receive import Arrived, Receiver
from orinspect.examples.mes.store import Store


def die(*_: Any) -> NoReturn:
    """As the power would."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def plant(point: str) -> None:
    """Put the kill where `point` says."""
    acknowledge, confirm = Receiver._acknowledge, Receiver._confirm

    def killed_by_a_result(receiver: Receiver, event: Arrived) -> None:
        if event.message.topic.endswith("/result"):
            die()
        confirm(receiver, event)

    def killed_when_due(receiver: Receiver) -> None:
        if receiver._store.unacknowledged(1):
            die()
        acknowledge(receiver)

    if point == "received":
        Store.take = die  # type: ignore[method-assign,assignment]
    elif point == "stored":
        Receiver._confirm = killed_by_a_result  # type: ignore[method-assign,assignment]
    elif point == "confirmed":
        Receiver._acknowledge = killed_when_due  # type: ignore[method-assign,assignment]
    elif point == "acked":
        Receiver._take_confirmed = die  # type: ignore[method-assign,assignment]
    else:
        assert point == "-", point


if __name__ == "__main__":
    plant(sys.argv.pop(1))
    sys.exit(main())
