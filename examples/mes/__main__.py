"""The consumer's command line; `python -m mes run --help` in the folder above this one."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from .contract import Contract
from .database import Database, DownError
from .receive import Broker, Receiver
from .reconcile import reconciliation, text_from, yields
from .screen import Screen
from .store import Store

SCHEMAS = Path(__file__).resolve().parents[2] / "runtime" / "schema"


def main() -> int:
    """Run one sub-command; the exit code is 1 when a person must look."""
    arguments = _parser().parse_args()
    try:
        with Database(arguments.database, create=arguments.command == "run") as database:
            return int(arguments.work(arguments, database))
    except DownError as error:
        print(f"mes: {error}", file=sys.stderr)
        return 1


def run(arguments: argparse.Namespace, database: Database) -> int:
    """Receive until a signal, or with --until-offline until the station says that it stopped."""
    screen = Screen()
    tls = {"ca_certs": arguments.ca_file, "certfile": arguments.cert_file, "keyfile": arguments.key_file}
    broker = Broker(
        arguments.host,
        arguments.port,
        arguments.client_id,
        arguments.protocol,
        arguments.session_expiry_s,
        arguments.username,
        arguments.password_file and arguments.password_file.read_text(encoding="utf-8").split("\n", 1)[0],
        tls if arguments.ca_file else None,
    )

    def take_state(state: dict[str, Any], is_retained: bool) -> None:
        screen.take_state(state, is_retained)
        # "connection lost" is the last will: the station may come back and deliver the rest.
        stopped = (state["state"], state["reason"]) == ("offline", "stopped")
        if arguments.until_offline and stopped and not is_retained:
            receiver.stop()

    store = Store(database, Contract(arguments.schemas))
    receiver = Receiver(
        database,
        store,
        broker,
        arguments.root,
        on_stored=screen.take_stored,
        on_state=take_state,
        say=screen.say,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: receiver.stop())
    receiver.run()
    return 1 if receiver.invalid else 0


def show_reconciliation(arguments: argparse.Namespace, database: Database) -> int:
    """Print what is missing or contradicts itself."""
    found = reconciliation(database)
    print(json.dumps(found, indent=2) if arguments.json else text_from(found))
    return 0 if found["is_complete"] else 1


def show_yields(arguments: argparse.Namespace, database: Database) -> int:
    """Print the yield of every shift, one JSON object a line."""
    for row in yields(database):
        print(json.dumps(row))
    return 0


def dump(arguments: argparse.Namespace, database: Database) -> int:
    """Print every stored report as received, one a line."""
    for payload in Store(database, Contract(arguments.schemas)).payloads(copies=arguments.copies):
        print(payload)
    return 0


def _parser() -> argparse.ArgumentParser:
    text = "Receive and keep the reports of orinspect stations."
    parser = argparse.ArgumentParser(prog="mes", description=text)
    parser.add_argument("--schemas", type=Path, default=SCHEMAS, help="folder of the JSON Schemas")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, work, text in (
        ("run", run, "receive, store, acknowledge"),
        ("reconcile", show_reconciliation, "gaps, copies and contradictions by station and boot"),
        ("yield", show_yields, "yield by shift"),
        ("dump", dump, "all reports as received, one a line"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--database", required=True, help="sqlite:PATH or postgresql://user@host/name")
        command.set_defaults(work=work)
        if name == "reconcile":
            command.add_argument("--json", action="store_true", help="for a machine")
        if name == "dump":
            command.add_argument("--copies", action="store_true", help="each as often as it was received")
        if name == "run":
            _add_broker(command)
    return parser


def _add_broker(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=1883)
    command.add_argument("--root", required=True, help="topic root of the stations; + stands for any level")
    command.add_argument("--client-id", default="mes-orinspect", help="names the session in the broker")
    command.add_argument("--protocol", choices=("5", "3.1.1"), default="5")
    command.add_argument("--session-expiry-s", type=int, default=7 * 24 * 3600)
    command.add_argument("--username")
    command.add_argument("--password-file", type=Path)
    for name in ("--ca-file", "--cert-file", "--key-file"):
        command.add_argument(name, help="TLS")
    command.add_argument("--until-offline", action="store_true", help="end when the station has stopped")


if __name__ == "__main__":
    sys.exit(main())
