"""The desk where commands arrive: one thread that reads, authorises, hands on, answers and records them."""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ...config import CommandsConfig
from ...errors import OrinspectError
from ...report import timestamp
from ..link.mail import Command
from .request import RefusedCommand, Request, request_from_payload
from .seal import Seal

SCHEMA = "orinspect.answer/1.0"
MOST_WAITING = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a command ended; `reason` is one of request.REASONS unless it was done."""

    outcome: Literal["done", "refused", "failed"]
    reason: str | None = None
    detail: str | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


Reply = Callable[[Outcome], None]
Act = Callable[[Request, Reply], None]
"""Obeys a command and replies once, at once or later from another thread; RefusedCommand when it cannot."""


class Audit(Protocol):
    """Where every command is recorded."""

    def write(self, event: str, **facts: Any) -> bool:
        """Record an event; it must not wait long."""
        ...


class Clock(Protocol):
    """The time that a command is judged by."""

    def unix_s(self) -> float:
        """Seconds since 1970, UTC."""
        ...

    def synchronised(self) -> bool:
        """Whether that can be trusted."""
        ...


class CommandDesk:
    """A context manager around the thread; `receive` is called by the delivery thread and never waits."""

    def __init__(
        self,
        config: CommandsConfig,
        root: str,
        seal: Seal,
        answer: Callable[[Command, str], None],
        *,
        audit: Audit | None,
        clock: Clock,
        act: Act | None = None,
    ) -> None:
        """`root`: of all topics; `act` obeys, and may be set later; `answer` publishes an answer."""
        self.act = act or _starting
        self._config, self._root, self._seal = config, root, seal
        self._publish, self._audit, self._clock = answer, audit, clock
        self._waiting: queue.Queue[Command | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)
        self._lost = 0

    def __enter__(self) -> CommandDesk:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join(5.0)

    def receive(self, message: Command) -> None:
        """Take a message under `cmd/`; of a flood the rest is lost, and logged."""
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            self._lost += 1
            if self._lost & (self._lost - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
                log.warning("commands come faster than they can be judged: %d lost so far", self._lost)

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                self._judge(message)
            except Exception:  # the next command must find somebody at the desk
                log.exception("a command could not be judged")

    def _judge(self, message: Command) -> None:
        command_id: str | None = None

        def reply(outcome: Outcome) -> None:
            self._answer(message, command_id, outcome)

        try:
            if message.is_retained:
                raise RefusedCommand(
                    "retained", "a retained command is not obeyed; publish it without retain"
                )
            request = request_from_payload(message.name, message.payload, most_bytes=self._config.most_bytes)
            command_id = request.id
            self._seal.check(
                request,
                f"{self._root}/cmd/{message.name}",
                unix_s=self._clock.unix_s(),
                is_synchronised=self._clock.synchronised(),
            )
            self.act(request, reply)
        except RefusedCommand as refused:
            command_id = refused.command_id or command_id
            reply(Outcome("refused", refused.reason, str(refused)))
        except OrinspectError as error:  # the disk, above all
            reply(Outcome("failed", "failed", str(error)))

    def _answer(self, message: Command, command_id: str | None, outcome: Outcome) -> None:
        """Record first, then answer: nobody hears of what is not written down."""
        if self._audit is not None:
            self._audit.write(
                "command",
                command=message.name[:64],
                command_id=command_id,
                outcome=outcome.outcome,
                reason=outcome.reason,
                detail=outcome.detail,
                payload_bytes=len(message.payload),
            )
        log.info("command %s %s: %s %s", message.name[:64], command_id, outcome.outcome, outcome.detail or "")
        answer = {
            "schema": SCHEMA,
            "command": message.name[:64],
            "id": command_id,
            "outcome": outcome.outcome,
            "reason": outcome.reason,
            "detail": outcome.detail,
            "at": timestamp(self._clock.unix_s()),
            "result": dict(outcome.result),
        }
        self._publish(message, json.dumps(answer, ensure_ascii=False))


def _starting(request: Request, reply: Reply) -> None:
    """What is said while there is no line yet."""
    raise RefusedCommand("wrong_state", "the station is starting", request.id)
