"""Pictures of the gate: calibration and validation never share one, held-out boards never come."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.evaluation.gate.pictures import gate_rows
from orinspect.evaluation.sets.deeppcb import VALIDATION_BOARDS
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.small_data_set import write_deeppcb

SCENES = "scenes:pcb?seed=77&parts=6&style=grey"
BOARDS = {"group00041": 2, "group20085": 3, "group92000": 1}


def test_scenes_are_validated_on_other_scenes_of_the_same_kind() -> None:
    used = {row.name for row in rows_from_source(SCENES)[:4]}
    rows = gate_rows(SCENES, used, parts=(3, 3))
    assert [row.name for row in rows.calibration] == [f"scenes-77-000{i}" for i in (0, 2, 3)]
    assert rows.validation_source == "scenes:pcb?seed=40077&parts=3&style=grey"
    assert [row.name for row in rows.validation] == [f"scenes-40077-000{i}" for i in range(3)]


def test_a_folder_is_validated_on_what_calibration_left(tmp_path: Path) -> None:
    folder = write_deeppcb(tmp_path, BOARDS)
    names = [row.name for row in rows_from_source(str(folder), split="train")]
    rows = gate_rows(str(folder), names[:1])
    assert [row.name for row in rows.calibration] == names[:1]
    assert [row.name for row in rows.validation] == names[1:]
    groups = {row.group for row in (*rows.calibration, *rows.validation)}
    assert groups and not groups & set(VALIDATION_BOARDS)


def test_a_folder_used_up_asks_for_another_source(tmp_path: Path) -> None:
    folder = str(write_deeppcb(tmp_path, BOARDS))
    names = [row.name for row in rows_from_source(folder, split="train")]
    with pytest.raises(DataSetError, match=r"used all of its \d+ parts, .* --validation"):
        gate_rows(folder, names)
    rows = gate_rows(folder, names, validation=SCENES)
    assert len(rows.validation) == 6 and rows.validation_source == SCENES


def test_another_spelling_of_the_same_pictures_leaks_none(tmp_path: Path) -> None:
    folder = write_deeppcb(tmp_path, BOARDS)
    names = [row.name for row in rows_from_source(str(folder), split="train")]
    for spelling in (f"{folder}/", f"{folder}/../{folder.name}"):
        rows = gate_rows(str(folder), names[:1], validation=spelling)
        assert [row.name for row in rows.validation] == names[1:]
    used = ["scenes-77-0000", "scenes-77-0003"]
    rows = gate_rows(SCENES, used, validation="scenes:pcb?style=grey&parts=6&seed=77")
    assert [row.name for row in rows.validation] == [f"scenes-77-000{i}" for i in (1, 2, 4, 5)]


def test_a_folder_of_plain_pictures_needs_no_labels(tmp_path: Path) -> None:
    for index in range(5):
        cv2.imwrite(str(tmp_path / f"part{index}.png"), np.full((32, 32), 40 * index, np.uint8))
    rows = gate_rows(str(tmp_path), ["part0.png", "part3.png"])
    assert [row.name for row in rows.validation] == ["part1.png", "part2.png", "part4.png"]
    assert not rows.validation[0].read().truth
    clips = gate_rows(str(tmp_path), ["part1.png"], clip_frames=2)
    assert [row.name for row in clips.validation] == ["part3.png"]
