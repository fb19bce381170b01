"""The station's own pixel scale: read when the service starts, and what its log says about it."""

from __future__ import annotations

import logging
from pathlib import Path

from ..report import Report
from .scale import PixelScale, read_scale, scale_problem

log = logging.getLogger(__name__)


class SiteScale:
    """The scale of `[scale] file`, or none; a refusal is logged once, not for each part."""

    def __init__(self, file: Path | None, camera_id: str, *, unix_s: float, is_synchronised: bool) -> None:
        """Read the file; ScaleError when that fails.

        One that has expired or belongs to another camera is only logged: parts are inspected without sizes,
        and their reports say why.
        """
        self.scale: PixelScale | None = None if file is None else read_scale(file)
        self._said: str | None = None
        if self.scale is None:
            return
        problem = scale_problem(self.scale, unix_s=unix_s, camera_id=camera_id)
        if problem is not None:
            self._say(problem)
        elif self.scale.expires_at is not None and not is_synchronised:
            log.warning(
                "the clock is not synchronised: whether the calibration %s has expired (%s) is judged by this"
                " clock, and by the calibration's own date where that is later",
                self.scale.calibration_id,
                self.scale.expires_at,
            )

    def follow(self, report: Report) -> None:
        """Log why the scale was refused for this part, when the last part's reason was another one."""
        if self.scale is not None:
            self._say(report.null_reasons.get("scale.mm_per_px"))

    def _say(self, problem: str | None) -> None:
        if problem is not None and problem != self._said:
            log.warning("sizes are not measured: %s", problem)
        self._said = problem
