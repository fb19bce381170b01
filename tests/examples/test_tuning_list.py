"""The rows on which confidences of `reference-deeppcb` are fitted: unseen, and never scored on."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("cv2")

from orinspect.examples.reference.training.tuning_list import tuning_list


def test_every_twentieth_pair_of_the_training_boards(tmp_path: Path) -> None:
    for group, count in (("group00041", 30), ("group13000", 41)):
        folder = tmp_path / "PCBData" / group / group[5:]
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{group[5:]}{index:03d}_test.jpg").touch()
    assert tuning_list(tmp_path) == [
        f"group13000/13000/13000{index:03d}.jpg group13000/13000_not/13000{index:03d}.txt"
        for index in (0, 20, 40)
    ]
