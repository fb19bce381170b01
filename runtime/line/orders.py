"""What commands do to the line: each answered once, most by the inspection thread between two parts."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..capture.clock import SystemClock
from ..capture.triggers.signal import TriggerSignal
from ..config import InspectionConfig
from ..deliver.commands.desk import Outcome, Reply
from ..deliver.commands.request import RefusedCommand, Request
from ..errors import ConfigError, EngineError, OrinspectError
from .choice import Choice, inspection_from_choice, write_choice
from .condition import Condition
from .intake import Intake
from .station import SelfTest

log = logging.getLogger(__name__)


class Works(Protocol):
    """What orders need of the line; `swap` and `self_test` run in the inspection thread only."""

    @property
    def is_up(self) -> bool:
        """Whether parts are taken: engines and camera are open, and nobody has said stop."""
        ...

    def swap(self, new: InspectionConfig) -> tuple[SelfTest, str | None]:
        """Inspect with other engines or another recipe; why not, and nothing has changed then."""
        ...

    def self_test(self, why: str) -> SelfTest:
        """Run the golden frames and let them decide whether parts may be inspected."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the station is and does, for the answer to `state`."""
        ...


@dataclass(frozen=True)
class Order:
    """Work for the inspection thread, and whoever waits for its outcome."""

    work: Callable[[], Outcome]
    reply: Reply


class Orders:
    """Obeys commands; `act` is called by the thread of the command desk and does not wait for the engines."""

    def __init__(
        self,
        works: Works,
        intake: Intake,
        condition: Condition,
        clock: SystemClock,
        *,
        inspection: InspectionConfig,
        bundles: Path,
        choice: Choice,
        choice_path: Path,
    ) -> None:
        """`inspection`: that of service.toml; `bundles`: the folder whose folders may be activated."""
        self._works, self._intake, self._condition, self._clock = works, intake, condition, clock
        self._inspection, self._bundles = inspection, bundles
        self._choice, self._choice_path = choice, choice_path
        self._mutex = threading.Lock()  # commands choose in their thread and in that of the inspection
        self._waiting: deque[Order] = deque()

    @property
    def are_waiting(self) -> bool:
        """Whether the inspection thread has something to do here."""
        return bool(self._waiting)

    def act(self, request: Request, reply: Reply) -> None:
        """Obey one command; RefusedCommand when it cannot be."""
        if not self._works.is_up and request.name != "state":
            raise RefusedCommand("wrong_state", f"the station is {self._condition.phase}", request.id)
        match request.name:
            case "state":
                reply(Outcome("done", result=self._works.facts()))
            case "inspect":
                reply(self._inspect(request))
            case "pause":
                self._pause(request.arguments.get("reason", "by command"))
                reply(Outcome("done", result=self._works.facts()))
            case "resume":
                self._pause(None)
                reply(Outcome("done", result=self._works.facts()))
            case _:
                self._order(request, reply)

    def do_next(self) -> None:
        """Run the oldest order, in the inspection thread; an engine that fails is raised after the answer."""
        order = self._waiting[0]
        try:
            outcome = order.work()
        except OrinspectError as error:
            order.reply(Outcome("failed", "failed", str(error)))
            if isinstance(error, EngineError):
                raise
            log.error("an order failed: %s", error)
            return
        finally:
            self._waiting.popleft()
        order.reply(outcome)

    def close(self) -> None:
        """Tell those who still wait that the station stops."""
        while self._waiting:
            self._waiting.popleft().reply(Outcome("refused", "wrong_state", "the station is stopping"))

    def _order(self, request: Request, reply: Reply) -> None:
        works = {
            "self-test": lambda: self._self_test(request),
            "recipe/select": lambda: self._swap(request.arguments["recipe"], None),
            "bundle/activate": lambda: self._swap(
                request.arguments.get("recipe"), self._folder(request.arguments["bundle"], request.id)
            ),
        }
        if request.name == "bundle/activate":
            self._folder(request.arguments["bundle"], request.id)  # refused before anything waits
        if self._waiting:
            raise RefusedCommand("busy", "another command is under way; ask again later", request.id)
        self._waiting.append(Order(works[request.name], reply))
        self._intake.wake()

    def _inspect(self, request: Request) -> Outcome:
        if not self._intake.is_triggered:
            raise RefusedCommand(
                "wrong_state",
                "this station inspects every frame of its source; set trigger.kind to command, time or gpio",
                request.id,
            )
        if self._condition.is_paused:
            raise RefusedCommand("wrong_state", "the station is paused; send resume first", request.id)
        given = request.arguments
        acceptance = self._intake.trigger(
            TriggerSignal(
                "command",
                given.get("trigger_id", request.id),
                self._clock.monotonic_ns(),
                self._clock.unix_s(),
                given.get("part_id"),
                given.get("job_id"),
                given.get("lot"),
            )
        )
        names = ("result_id", "boot_id")
        table = {name: getattr(acceptance.trigger, name) for name in names}
        return Outcome("done", result={**table, "sequence": acceptance.sequence})

    def _pause(self, reason: str | None) -> None:
        self._choose(paused=reason)
        self._intake.pause(reason is not None)
        self._condition.pause(reason)

    def _self_test(self, request: Request) -> Outcome:
        test = self._works.self_test("command")
        result = dataclasses.asdict(test)
        if test.is_passed:
            return Outcome("done", result=result)
        return Outcome("failed", "failed", "; ".join(test.wrong), result)

    def _swap(self, recipe: str | None, bundle: str | None) -> Outcome:
        after = dataclasses.replace(self._choice, recipe=recipe, bundle=bundle or self._choice.bundle)
        test, problem = self._works.swap(inspection_from_choice(self._inspection, after, self._bundles))
        if problem is not None:
            return Outcome("failed", "failed", problem, self._works.facts())
        detail = None
        try:
            self._choose(recipe=recipe, bundle=after.bundle)
        except ConfigError as error:
            detail = f"in use until the next start: {error}"
        return Outcome("done", None, detail, {**self._works.facts(), "golden_frames": test.frames})

    def _choose(self, **fields: str | None) -> None:
        """Remember over a restart; ConfigError when the disk refuses, and nothing is remembered then."""
        with self._mutex:
            table = {**dataclasses.asdict(self._choice), **fields}
            choice = Choice(**table)
            write_choice(self._choice_path, choice)
            self._choice = choice

    def _folder(self, name: str, request_id: str) -> str:
        """The name of an installed bundle: one folder below `bundles`, never a path."""
        if name in (".", "..") or Path(name).name != name or not (self._bundles / name).is_dir():
            raise RefusedCommand("failed", f"no bundle {name!r} is installed here", request_id)
        return name
