"""Machined and painted metal in colour with known defects: one picture, no template."""

from __future__ import annotations

from .scene import METAL_TYPES, SurfaceScene, metal_scene
from .surfaces import SURFACES, Surface

__all__ = ["METAL_TYPES", "SURFACES", "Surface", "SurfaceScene", "metal_scene"]
