"""A camera that fails in every way, and comes back step by step: real child processes, no waiting."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orinspect.runtime.capture.frame import Frame, camera_from_source
from orinspect.runtime.capture.process import ProcessCamera
from orinspect.runtime.capture.recovery import CameraTrouble, SteadyCamera, steady_camera
from orinspect.runtime.capture.sources import Resume, SourceError, SourceText
from orinspect.runtime.config import (
    CameraConfig,
    DeviceConfig,
    InspectionConfig,
    MqttConfig,
    OutboxConfig,
    RecoveryConfig,
    ServiceConfig,
    TruthConfig,
)
from orinspect.tests.planned_camera import opened_as_planned

QUICK = RecoveryConfig(retry_least_s=1.0, retry_most_s=5.0, faulty_frames=2, good_frames=2)


class Case:
    """A steady camera over a plan, and everything that it said and did."""

    def __init__(
        self,
        folder: Path,
        kind: str,
        *openings: str,
        timeout_s: float = 60.0,
        truth: TruthConfig | None = None,
        chance: Callable[[], float] = lambda: 1.0,
        config: RecoveryConfig = QUICK,
        stop_after_pauses: int | None = None,
    ) -> None:
        self.path = folder / "plan"
        self.path.write_text("\n".join(openings))
        self.troubles: list[CameraTrouble] = []
        self.pauses: list[float] = []
        self.resets: list[bool] = []
        self._most_pauses = stop_after_pauses
        source = f"{kind}:{self.path}"
        live = SourceText.of(source).is_live

        def open_process(resume: Resume, reset: bool) -> ProcessCamera:
            self.resets.append(reset)
            return ProcessCamera(
                source, opened_as_planned, timeout_s=timeout_s, resume=resume, newest=live, truth=truth
            )

        self.camera = SteadyCamera(
            source,
            open_process,
            config,
            resume=Resume,
            tell=self.troubles.append,
            random=chance,
            pause=self._pause,
        )

    def _pause(self, seconds: float) -> bool:
        self.pauses.append(seconds)
        if self._most_pauses is not None and len(self.pauses) >= self._most_pauses:
            self.camera.stop()
        return False

    def take(self, count: int) -> list[Frame]:
        with self.camera:
            return list(itertools.islice(self.camera.frames(), count))

    @property
    def openings(self) -> list[tuple[int, int, list[str]]]:
        """(process id, `after`, `keys`) of every opening."""
        return [tuple(json.loads(line)) for line in Path(f"{self.path}.openings").read_text().splitlines()]

    @property
    def steps(self) -> list[tuple[str, str | None, bool]]:
        return [(each.alarm, each.step, each.is_over) for each in self.troubles]


def test_a_source_goes_on_behind_its_last_frame_when_it_fails(tmp_path: Path) -> None:
    case = Case(tmp_path, "scenes", "4,4,fail", "4,4")
    assert [frame.sequence for frame in case.take(9)] == [1, 2, 3, 4]
    assert case.steps == [("camera_failed", "reopen", False), ("camera_failed", None, True)]
    assert "the driver is upset" in case.troubles[0].why
    (first, after_0, _), (second, after_2, _) = case.openings
    assert first == second, "the child that can still answer opens the camera again itself"
    assert (after_0, after_2) == (0, 2)


def test_a_folder_leaves_out_the_files_that_it_gave(tmp_path: Path) -> None:
    case = Case(tmp_path, "folder", "4,4,fail", "4")
    case.take(9)
    assert [keys for _, _, keys in case.openings] == [[], ["key1", "key2"]]


def test_the_steps_are_reopen_reset_and_then_a_new_process_each_time(tmp_path: Path) -> None:
    case = Case(tmp_path, "rtsp", "fail", "fail", "fail", "fail", "live", chance=lambda: 0.0)
    frames = case.take(2)
    assert [frame.sequence for frame in frames] == [1, 2]
    assert [step for _, step, is_over in case.steps if not is_over] == [
        "reopen",
        "reset",
        "restart",
        "restart",
    ]
    assert [trouble.attempt for trouble in case.troubles] == [1, 2, 3, 4, 0]
    processes = [process for process, _, _ in case.openings]
    assert processes[0] == processes[1] == processes[2] != processes[3] != processes[4]
    assert case.resets == [False, True, True], "a new process resets the device first"
    assert case.pauses == [0.5, 1.0, 2.0, 2.5], "doubling to the most, half of it by chance"


@pytest.mark.slow
def test_a_hanging_driver_is_killed_and_started_anew(tmp_path: Path) -> None:
    case = Case(tmp_path, "rtsp", "4,stuck", "live", timeout_s=10.0)
    frames = case.take(3)
    assert [frame.sequence for frame in frames] == [1, 2, 3], "a live camera counts on"
    assert case.steps[0] == ("camera_stopped", "restart", False)
    assert "no frame in 10 s" in case.troubles[0].why
    processes = [process for process, _, _ in case.openings]
    assert processes[0] != processes[-1]
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], 0)


def test_a_driver_that_crashes_is_started_anew(tmp_path: Path) -> None:
    case = Case(tmp_path, "scenes", "4,die", "4")
    assert [frame.sequence for frame in case.take(9)] == [1, 2]
    assert case.steps == [("camera_died", "restart", False), ("camera_died", None, True)]
    assert "exit code -11" in case.troubles[0].why


def test_a_frozen_camera_is_opened_again_and_its_frames_are_told(tmp_path: Path) -> None:
    case = Case(tmp_path, "rtsp", "frozen", "live", truth=TruthConfig())
    frames = case.take(6)
    faults = [None if frame.fault is None else frame.fault.name for frame in frames]
    first = faults.index("frozen")
    assert faults[first : first + 3] == ["frozen", "frozen", None]
    assert [frame.sequence for frame in frames] == [1, 2, 3, 4, 5, 6]
    assert case.steps[:2] == [("camera_frozen", "reopen", False), ("camera_frozen", None, True)]


def test_a_dark_camera_is_an_alarm_that_ends_with_the_light_and_opens_nothing(tmp_path: Path) -> None:
    case = Case(tmp_path, "rtsp", "dark", truth=TruthConfig())
    faults = []
    with case.camera as camera:
        for frame in camera.frames():
            faults.append(None if frame.fault is None else frame.fault.name)
            if case.troubles and case.troubles[-1].is_over:
                break
            if case.troubles:
                Path(f"{case.path}.light").touch()
    assert faults[0] == "black" and faults[-1] is None and set(faults) == {"black", None}
    assert case.steps == [("camera_black", None, False), ("camera_black", None, True)]
    assert "1 of the picture is black; at most 0.9999 may be" in case.troubles[0].why
    assert case.pauses == [] and len(case.openings) == 1


def test_after_good_frames_the_next_failure_is_a_first_one(tmp_path: Path) -> None:
    case = Case(tmp_path, "scenes", "4,fail", "4,fail", "4,4,fail", "4")
    case.take(9)
    assert [step for _, step, is_over in case.steps if not is_over] == ["reopen", "reset", "reopen"]


def test_stop_ends_a_camera_that_cannot_be_had(tmp_path: Path) -> None:
    case = Case(tmp_path, "rtsp", *["fail"] * 5, stop_after_pauses=3)
    assert case.take(1) == []
    assert len(case.pauses) == 3


def config_of(source: str) -> ServiceConfig:
    return ServiceConfig(
        DeviceConfig("d", "s"),
        CameraConfig(source),
        InspectionConfig(Path("none")),
        MqttConfig("h", "r"),
        OutboxConfig(Path("none")),
        recovery=QUICK,
    )


def test_a_wrong_source_is_an_error_at_once(tmp_path: Path) -> None:
    troubles: list[CameraTrouble] = []
    for source in ("folder:nowhere", "scenes:steel", "usb:0", "v4l2:/dev/video0?colour=red"):
        steady = steady_camera(config_of(source), resume=Resume, tell=troubles.append, random=lambda: 0.5)
        with steady as camera, pytest.raises(SourceError):
            list(camera.frames())
    assert troubles == []


def test_the_camera_of_a_configuration_is_checked_and_gives_what_the_source_gives() -> None:
    source = "scenes:pcb?seed=3&parts=3&size_px=160"
    with camera_from_source(source) as direct:
        expected = [frame.part_id for frame in direct.frames()]
    dark = ServiceConfig(
        **{**vars(config_of(source)), "truth": TruthConfig(most_glare_share=0.01)}  # any board is too bright
    )
    with steady_camera(dark, resume=lambda: Resume(after=1), tell=print, random=lambda: 0.5) as camera:
        frames = list(camera.frames())
    assert [frame.part_id for frame in frames] == expected[1:]
    assert {frame.fault.name for frame in frames if frame.fault} <= {"saturated"}
