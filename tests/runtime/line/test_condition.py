"""One state out of phase, pause, troubles and fault; each change is said once."""

from __future__ import annotations

from orinspect.runtime.line.condition import Condition


def _condition() -> tuple[Condition, list[tuple[str, str | None]]]:
    said: list[tuple[str, str | None]] = []
    return Condition(lambda state, reason: said.append((state, reason))), said


def test_phases_are_said_once_each() -> None:
    condition, said = _condition()
    for phase in ("self_test", "self_test", "ready", "running", "running", "stopping"):
        condition.enter(phase)
    assert said == [("self_test", None), ("ready", None), ("running", None), ("stopping", None)]


def test_a_trouble_degrades_and_goes_away() -> None:
    condition, said = _condition()
    condition.enter("running")
    condition.trouble("camera", "it is opened again")
    condition.trouble("disk", "it is nearly full")
    condition.enter("ready")
    condition.trouble("camera", None)
    condition.trouble("disk", None)
    assert said == [
        ("running", None),
        ("degraded", "it is opened again"),
        ("degraded", "it is opened again; it is nearly full"),
        ("degraded", "it is nearly full"),
        ("ready", None),
    ]


def test_a_pause_is_ready_with_a_reason_and_hides_troubles() -> None:
    condition, said = _condition()
    condition.enter("running")
    condition.pause("cleaning")
    condition.trouble("camera", "dark")
    assert condition.is_paused
    condition.pause(None)
    assert said == [("running", None), ("ready", "paused: cleaning"), ("degraded", "dark")]


def test_a_fault_hides_everything_also_the_stop() -> None:
    condition, said = _condition()
    condition.enter("running")
    condition.fail("self_test", "golden frames: vision")
    condition.pause("x")
    condition.trouble("camera", "dark")
    condition.enter("stopping")
    assert said == [("running", None), ("fault", "golden frames: vision")]
    assert condition.is_fault
    condition.fail("self_test", None)
    assert condition.state == ("stopping", None)
