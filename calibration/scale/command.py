"""`orinspect calibrate scale`: which way the scale is found, the checks before it, and the file behind it."""

from __future__ import annotations

import argparse
from typing import Any

from ...runtime.errors import ScaleError


def calibrate_scale(arguments: argparse.Namespace) -> dict[str, Any]:
    """Calibrate, write the file atomically, and give its table; ScaleError when the fit is too bad."""
    raise ScaleError("`calibrate scale` is not there yet")


def scale_text(table: dict[str, Any]) -> str:
    """A short table of a calibration for the terminal."""
    return "\n".join(f"{name}: {value}" for name, value in table.items())
