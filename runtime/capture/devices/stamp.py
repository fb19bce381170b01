"""Frames of a device or stream: numbered, timed, and with the template that the source names."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import PictureError
from ..folder import template_for
from ..frame import NO_IMAGE, Clock, Frame, FrameFault, Picture
from ..sources import SourceText

PARAMETERS = ("template", "mm_per_px")
"""What every source of this room takes: a golden template for all frames, and the scale."""


class Stamp:
    """Makes the frames of one opening, numbered from 1."""

    def __init__(self, text: SourceText, clock: Clock) -> None:
        template = text.options.get("template")
        if template is not None and not os.path.isfile(template):
            raise text.refused("template", "the path of a picture")
        self._template = None if template is None else Path(template)
        self._golden: Picture | None = None
        self._mm_per_px = text.number("mm_per_px", None)
        self._source, self._clock = text.text, clock
        self._sequence = 0

    def frame(
        self,
        image: Picture,
        *,
        taken_ns: int | None = None,
        sequence: int | None = None,
        part_id: str | None = None,
    ) -> Frame:
        """The frame of a picture, taken at `taken_ns` of the monotonic clock or now."""
        fault, golden = None, None
        if self._template is not None:
            try:
                golden = self._golden_for(image)
            except PictureError as error:
                fault = FrameFault("picture", str(error))
        return self._frame(image, golden, fault, taken_ns, sequence, part_id)

    def broken(self, why: str, *, sequence: int | None = None, part_id: str | None = None) -> Frame:
        """The frame of a picture that came damaged."""
        return self._frame(NO_IMAGE, None, FrameFault("picture", why), None, sequence, part_id)

    def _golden_for(self, image: Picture) -> Picture:
        assert self._template is not None
        if self._golden is None or self._golden.shape != image.shape:
            self._golden = template_for(image, self._template, Path("the camera's picture"))
        return self._golden

    def _frame(
        self,
        image: Picture,
        golden: Picture | None,
        fault: FrameFault | None,
        taken_ns: int | None,
        sequence: int | None,
        part_id: str | None,
    ) -> Frame:
        self._sequence = self._sequence + 1 if sequence is None else sequence
        now_ns = self._clock.monotonic_ns()
        taken_ns = now_ns if taken_ns is None else taken_ns
        return Frame(
            image=image,
            template=golden,
            sequence=self._sequence,
            captured_at=self._clock.unix_s() - (now_ns - taken_ns) / 1e9,
            monotonic_ns=taken_ns,
            source=self._source,
            part_id=part_id,
            mm_per_px=self._mm_per_px,
            fault=fault,
        )
