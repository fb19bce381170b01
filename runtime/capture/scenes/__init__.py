"""Simulated parts with known truth; numpy and OpenCV only."""

from __future__ import annotations

from .pcb import MM_PER_PX, pcb_scene
from .truth import DEFECT_TYPES, STYLES, Scene, SceneDefect, Style

__all__ = ["DEFECT_TYPES", "MM_PER_PX", "STYLES", "Scene", "SceneDefect", "Style", "pcb_scene"]
