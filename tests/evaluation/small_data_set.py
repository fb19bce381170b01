"""Writes a DeepPCB folder of simulated boards: the layout and lists of the real one, no file of it."""

from __future__ import annotations

from pathlib import Path

import cv2

from orinspect.evaluation.sets.deeppcb import DEEPPCB_TYPES
from orinspect.evaluation.sets.scene_rows import truth_from_scene
from orinspect.runtime.capture.scenes import pcb_scene


def write_deeppcb(folder: Path, boards: dict[str, int], *, size_px: int = 192, defects: int = 2) -> Path:
    """`folder`/PCBData with `boards` = {group name: pairs}; returns `folder`."""
    lines = []
    for number, (group, pairs) in enumerate(boards.items()):
        name = group.removeprefix("group")
        for kind in (name, f"{name}_not"):
            (folder / "PCBData" / group / kind).mkdir(parents=True)
        for index in range(pairs):
            scene = pcb_scene(1000 * number + index, size_px=size_px, defects=defects)
            stem = f"{name}{index:03d}"
            place = folder / "PCBData" / group
            cv2.imwrite(str(place / name / f"{stem}_test.jpg"), scene.image)
            cv2.imwrite(str(place / name / f"{stem}_temp.jpg"), scene.template)
            truth = [(*map(round, box.bbox_xyxy), DEEPPCB_TYPES.index(box.type) + 1)
                     for box in truth_from_scene(scene, 10)]
            rows = [" ".join(map(str, row)) for row in truth]
            (place / f"{name}_not" / f"{stem}.txt").write_text("\n".join(rows) + "\n", encoding="utf-8")
            lines.append(f"{group}/{name}/{stem}.jpg {group}/{name}_not/{stem}.txt")
    (folder / "PCBData" / "trainval.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
