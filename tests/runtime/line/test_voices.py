"""Alarms and what they make of the station's state, over a real publisher and a real outbox."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

from orinspect.runtime.capture.frame import FaultName
from orinspect.runtime.capture.recovery import CameraTrouble
from orinspect.runtime.config import MqttConfig
from orinspect.runtime.deliver.link.alarm import ALARMS
from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.publisher import Publisher, StationState
from orinspect.runtime.line.voices import Voices

RUNTIME = Path(__file__).parents[3] / "runtime"


class Audit:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def write(self, event: str, **facts: object) -> bool:
        self.events.append((event, facts))
        return True


def _publisher(outbox: Outbox) -> Publisher:
    facts = StationState("", None, None, "d", "s", "boot")
    config = MqttConfig("127.0.0.1", "a/b", port=1)
    return Publisher(outbox, config, facts, on_failure=lambda: None, random=lambda: 0.5)


def _state(voices: Voices) -> tuple[str, str | None]:
    return voices.condition.state


def test_an_alarm_from_before_the_publisher_is_raised_when_it_is_there(tmp_path: Path) -> None:
    voices, audit = Voices(), Audit()
    voices.audit = audit
    voices.condition.enter("ready")
    voices.alarm("outbox.damaged", "it was cut off")
    assert voices.alarms() == {}
    with Outbox(tmp_path / "o.sqlite") as outbox:
        voices.connect(_publisher(outbox))
        assert voices.alarms() == {"outbox.damaged": "it was cut off"}
        assert _state(voices) == ("degraded", "outbox.damaged: it was cut off")
        assert ("alarm", {"code": "outbox.damaged", "text": "it was cut off"}) in audit.events
        voices.alarm("outbox.damaged", None)
        assert _state(voices) == ("ready", None)


def test_a_warning_leaves_the_state_alone_and_a_fault_of_the_outbox_is_one(tmp_path: Path) -> None:
    voices = Voices()
    voices.condition.enter("running")
    with Outbox(tmp_path / "o.sqlite") as outbox:
        voices.connect(_publisher(outbox))
        voices.alarm("evidence.not_written", "the disk is full")
        assert _state(voices) == ("running", None)
        voices.outbox_level("full", "64 MiB are left")
        assert _state(voices) == ("degraded", "outbox.full: 64 MiB are left")
        voices.outbox_level("fault", "nothing can be written")
        assert _state(voices) == ("fault", "nothing can be written")
        voices.outbox_level("ok", "there is room again")
        assert _state(voices) == ("running", None)
        assert list(voices.alarms()) == ["evidence.not_written"]


def test_one_alarm_of_the_camera_stands_at_a_time_and_ends_with_good_frames(tmp_path: Path) -> None:
    voices = Voices()
    voices.condition.enter("running")
    with Outbox(tmp_path / "o.sqlite") as outbox:
        voices.connect(_publisher(outbox))
        voices.camera(CameraTrouble("camera_failed", "the cable is out", False, "reopen", 1))
        assert _state(voices)[0] == "degraded"
        assert voices.alarms() == {"camera.failed": "the cable is out; attempt 1: reopen"}
        voices.camera(CameraTrouble("camera_died", "exit code -9", False, "restart", 2))
        assert list(voices.alarms()) == ["camera.died"]
        voices.camera(CameraTrouble("camera_died", "good again", True))
        assert (_state(voices), voices.alarms()) == (("running", None), {})


def test_every_alarm_of_the_camera_is_on_the_list() -> None:
    faults = [f"camera.{name}" for name in get_args(FaultName) if name != "no_picture"]
    assert {"camera.failed", "camera.stopped", "camera.died", *faults} <= set(ALARMS)


def test_every_alarm_that_the_line_raises_is_on_the_list() -> None:
    named = set()
    for path in (RUNTIME / "line").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("_alarm", ".alarm")):
                named |= {each.value for each in node.args[:1] if isinstance(each, ast.Constant)}
    assert named
    assert named <= set(ALARMS)
