"""The station's condition: what it is doing, what troubles it, and the one state that follows."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Condition:
    """Phase, pause, troubles and fault, from any thread; each change of the state is announced once.

    A fault hides everything but the reason. A trouble makes `degraded` of `ready` and `running`. A pause is
    `ready` with its reason: the station could work and is told not to.
    """

    def __init__(self, announce: Callable[[str, str | None], None]) -> None:
        """`announce` takes state and reason; it must not wait."""
        self._announce = announce
        self._mutex = threading.Lock()
        self._phase = "starting"
        self._pause: str | None = None
        self._faults: dict[str, str] = {}
        self._troubles: dict[str, str] = {}
        self._said: tuple[str, str | None] | None = None

    @property
    def state(self) -> tuple[str, str | None]:
        """State and reason, as on the topic `state`."""
        with self._mutex:
            return self._state()

    @property
    def phase(self) -> str:
        """What was entered last."""
        with self._mutex:
            return self._phase

    @property
    def is_paused(self) -> bool:
        """Whether somebody paused the station."""
        with self._mutex:
            return self._pause is not None

    @property
    def is_fault(self) -> bool:
        """Whether no part may be inspected."""
        with self._mutex:
            return bool(self._faults)

    def enter(self, phase: str) -> None:
        """starting, building_engines, self_test, ready, running or stopping."""
        self._change(_phase=phase)

    def pause(self, reason: str | None) -> None:
        """Paused for this reason; None goes on."""
        self._change(_pause=reason)

    def fail(self, name: str, reason: str | None) -> None:
        """A fault, by name, that forbids inspecting; None ends it."""
        self._note(self._faults, name, reason)

    def trouble(self, name: str, sentence: str | None) -> None:
        """Something works worse than it should, by name; None: not any more."""
        self._note(self._troubles, name, sentence)

    def _note(self, notes: dict[str, str], name: str, sentence: str | None) -> None:
        with self._mutex:
            if sentence is None:
                notes.pop(name, None)
            else:
                notes[name] = sentence
        self._change()

    def _change(self, **fields: str | None) -> None:
        with self._mutex:
            for name, value in fields.items():
                setattr(self, name, value)
            state = self._state()
            if state != self._said:
                self._said = state
                self._announce(*state)  # under the lock: states must go out in the order in which they came

    def _state(self) -> tuple[str, str | None]:
        if self._faults:
            return "fault", "; ".join(self._faults.values())
        if self._phase not in ("ready", "running"):
            return self._phase, None
        if self._pause is not None:
            return "ready", f"paused: {self._pause}"
        if self._troubles:
            return "degraded", "; ".join(self._troubles.values())
        return self._phase, None
