"""A minimal MES: receives the reports of a station and prints one line a part.

It knows two things only: the topics (`ROOT/result`, `ROOT/state`) and the JSON Schema of a report. It imports
nothing of orinspect, so it can be copied as the start of a consumer of your own:

    pip install paho-mqtt jsonschema
    python subscriber.py --port 1883 --root enterprise/site/area/line/station --schema report-1.0.json

What a consumer must do, and where it stands below:
  * subscribe before the station starts, or miss what was published meanwhile     `_on_connect`
  * validate, and never guess about a message that is not a report               `take_report`
  * drop a report that it has already: delivery is at least once                 `take_report`
  * leave out what the plant ignores: a defect of severity "ignore" is no fault     `row_from_report`
  * order by (boot_id, sequence), not by arrival
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, TextIO

import jsonschema
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

COLUMNS = "{:<22} {:<11} {:<42} {:>8} {:>7}"


class Consumer:
    """Takes messages, prints the table, and keeps every report as received in `out`."""

    def __init__(self, root: str, schema: dict[str, Any], out: TextIO | None, until_offline: bool) -> None:
        self.root, self.out, self.until_offline = root, out, until_offline
        self.validator = jsonschema.Draft202012Validator(schema)
        self.seen: set[str] = set()
        self.invalid = 0
        self.is_done = False

    def take_report(self, payload: bytes) -> None:
        """One message on `result`."""
        try:
            report = json.loads(payload)
            self.validator.validate(report)
        except (ValueError, jsonschema.ValidationError) as error:
            self.invalid += 1
            reason = error.message if isinstance(error, jsonschema.ValidationError) else str(error)
            say(f"not a valid report, dropped: {reason[:200]}")
            return
        if self.out is not None:
            self.out.write(payload.decode() + "\n")
            self.out.flush()
        if report["result_id"] in self.seen:
            say(f"{report['part']['part_id']}: received again, dropped")
            return
        self.seen.add(report["result_id"])
        say(row_from_report(report))

    def take_state(self, payload: bytes, retained: bool) -> None:
        """One message on `state`; a retained one tells what was before we came."""
        state = json.loads(payload)
        if retained:
            return
        reason = f" ({state['reason']})" if state["reason"] else ""
        say(f"station is {state['state']}{reason}")
        # "connection lost" is the last will: the station may come back and deliver the rest.
        if self.until_offline and state["state"] == "offline" and state["reason"] == "stopped":
            self.is_done = True


def row_from_report(report: dict[str, Any]) -> str:
    """One line of the table."""
    faults = [defect for defect in report["defects"] if defect["severity"] != "ignore"]
    types: dict[str, int] = {}
    for defect in faults:
        types[defect["type"]] = types.get(defect["type"], 0) + 1
    names = ", ".join(f"{count} {name}" if count > 1 else name for name, count in types.items())
    found = f"{len(faults)}: {names}" if types else ", ".join(report["review_reasons"]) or "none"
    if ignored := len(report["defects"]) - len(faults):
        found += f" (+{ignored} ignored)"
    found = found if len(found) <= 42 else found[:41] + "…"
    milliseconds = f"{report['timings_ms']['total']:.0f}" if report["timings_ms"] else "-"
    passes = str(report["passes"]["row_passes"]) if report["passes"] else "-"
    part = report["part"]["part_id"] or report["result_id"]
    return COLUMNS.format(part[-22:], report["disposition"], found, milliseconds, passes)


def say(line: str) -> None:
    """Print at once, also into a pipe."""
    print(line, flush=True)


def main() -> int:
    """Receive until the station says that it stopped (--until-offline) or for ever."""
    parser = argparse.ArgumentParser(description="Print and keep the reports of one orinspect station.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--root", required=True, help="the station's topic root")
    parser.add_argument("--schema", type=Path, required=True, help="report-1.0.json")
    parser.add_argument("--out", type=Path, help="append every report, as received, to this JSON Lines file")
    parser.add_argument("--until-offline", action="store_true", help="end when the station has stopped")
    arguments = parser.parse_args()
    schema = json.loads(arguments.schema.read_text(encoding="utf-8"))
    out = arguments.out.open("a", encoding="utf-8") if arguments.out else None
    consumer = Consumer(arguments.root, schema, out, arguments.until_offline)

    def _on_connect(client: mqtt.Client, data: object, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            sys.exit(f"the broker refused the connection: {reason}")
        client.subscribe([(f"{arguments.root}/result", 1), (f"{arguments.root}/state", 1)])

    def _on_subscribe(*_: object) -> None:
        say(f"listening on {arguments.root}/result and /state")
        say(COLUMNS.format("part", "disposition", "defects", "ms", "passes"))

    def _on_message(client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        if message.topic == f"{arguments.root}/result":
            consumer.take_report(bytes(message.payload))
        else:
            consumer.take_state(bytes(message.payload), message.retain)
        if consumer.is_done:
            client.disconnect()

    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_connect, client.on_subscribe, client.on_message = _on_connect, _on_subscribe, _on_message
    client.connect(arguments.host, arguments.port)
    try:
        client.loop_forever()
    except KeyboardInterrupt:
        return 130
    finally:
        if out is not None:
            out.close()
    return 1 if consumer.invalid else 0


if __name__ == "__main__":
    sys.exit(main())
