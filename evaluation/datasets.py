"""The old address of the data sets: they live in `sets`."""

from __future__ import annotations

from .sets.deeppcb import DEEPPCB_TYPES, VALIDATION_BOARDS, deeppcb_root
from .sets.example import Example, Row
from .sets.scene_rows import SCENE_PREFIX, truth_from_scene
from .sets.source import rows_from_source, training_rows, warped_row

__all__ = ["DEEPPCB_TYPES", "SCENE_PREFIX", "VALIDATION_BOARDS", "Example", "Row", "deeppcb_root",
           "rows_from_source", "training_rows", "truth_from_scene", "warped_row"]
