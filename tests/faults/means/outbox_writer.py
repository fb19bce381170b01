"""What the power-cut campaign records: a program that uses an outbox as the service and the publisher do.

    strace ... python -m orinspect.tests.faults.means.outbox_writer outbox.sqlite SEED PARTS

Before and after each step it writes a line to descriptor 1, so that the trace knows what was promised when.
"""

from __future__ import annotations

import json
import os
import sys
from random import Random

from orinspect.runtime.deliver.outbox import Outbox
from orinspect.tests.faults.means.recorded import new_result_id, recorded_payload

KEEP = 40


def main() -> None:
    """Accept, commit, publish and acknowledge in the order that a line and a broker might give."""
    path, seed, parts = sys.argv[1], sys.argv[2], int(sys.argv[3])
    random = Random(f"outbox {seed}")
    waiting: list[str] = []
    number = 0
    while number < parts:
        with Outbox(path, keep=KEEP) as outbox:
            for _ in range(random.randint(1, parts)):  # then close it and open it again
                number += 1
                result_id = new_result_id(random)
                say("accepting", result_id)
                sequence = outbox.accept(result_id, "boot", "cam", number, json.dumps({"part": number}))
                say("accepted", result_id, sequence)
                payload = recorded_payload(result_id, sequence, random)
                say("committing", result_id)
                outbox.commit(result_id, payload)
                say("committed", result_id, payload)
                waiting.append(result_id)
                while waiting and random.random() < 0.6:
                    confirm(outbox, waiting.pop(0), random)
                if number >= parts:
                    break


def confirm(outbox: Outbox, result_id: str, random: Random) -> None:
    """The broker, or the MES at once, confirms a report."""
    if random.random() < 0.8:
        say("publishing", result_id)
        outbox.mark_published(result_id)
        say("published", result_id)
    if random.random() < 0.3:
        say("acknowledging", result_id)
        outbox.mark_acknowledged(result_id)
        say("acknowledged", result_id)


def say(*words: object) -> None:
    """One line in one write."""
    os.write(1, (json.dumps(words) + "\n").encode())


if __name__ == "__main__":
    main()
