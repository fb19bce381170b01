"""Template and part swapped, on the trained reference checkpoint: what was missing is now too much.

The two are frames of one patch and nothing in the prompt says which is which; a model that only saw that they
differ would say the same both ways.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("tokenizers")

from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.runtime.capture.frame import Frame
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.inspector import Inspection, Inspector

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"
MISSING = {"open", "mousebite", "pin-hole"}  # copper that the part lacks; the other types are too much of it


def type_at(inspection: Inspection, x: float, y: float) -> str | None:
    """The type of the first defect around a point."""
    for defect in inspection.defects:
        x1, y1, x2, y2 = defect.bbox_xyxy
        if x1 <= x < x2 and y1 <= y < y2:
            return defect.type
    return None


@pytest.mark.slow
def test_what_is_missing_becomes_what_is_too_much(tmp_path: Path) -> None:
    recipe = REFERENCE / "pcb-compare.toml"
    export_checkpoint(
        REFERENCE / "reference", [recipe], "never read", tmp_path / "b", precision="float32", threads=1
    )
    pairs: list[tuple[str, str]] = []
    with Inspector(Bundle.open(tmp_path / "b"), threads=1) as inspector:
        for seed in range(100, 104):
            scene = pcb_scene(seed, defects=6, misregistration_px=0)
            frame = Frame(scene.image, scene.template, 1, 0.0, 0, "test")
            there = inspector.inspect(frame)
            back = inspector.inspect(dataclasses.replace(frame, image=scene.template, template=scene.image))
            for defect in scene.defects:
                x, y = ((defect.bbox_xyxy[i] + defect.bbox_xyxy[i + 2]) / 2 for i in (0, 1))
                types = type_at(there, x, y), type_at(back, x, y)
                if None not in types:
                    pairs.append((str(types[0]), str(types[1])))
    assert len(pairs) >= 16
    turned = [(first in MISSING) != (second in MISSING) for first, second in pairs]
    assert sum(turned) >= 0.9 * len(pairs), pairs
