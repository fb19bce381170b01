"""Folders of pictures without labels: to calibrate and to compare two precisions on."""

from __future__ import annotations

from pathlib import Path

from ...runtime.capture.folder import pairs_in_folder, template_for
from ...runtime.capture.frame import read_picture
from ...runtime.errors import CaptureError, DataSetError, PictureError
from .example import Example, Row


def plain_rows(folder: Path, clip_frames: int = 1) -> list[Row]:
    """Rows of a folder of pictures, in natural order, nobody having said what is on them.

    `X_test` beside `X_temp` is a pair; any other picture is its own template. With `clip_frames` more than 1,
    so many pictures that follow each other are one row, and a shorter rest is left out.
    """
    try:
        pairs = pairs_in_folder(folder)
    except CaptureError as error:
        raise DataSetError(str(error)) from error
    starts = range(0, len(pairs) - clip_frames + 1, clip_frames)
    if not starts:
        raise DataSetError(f"{folder} holds {len(pairs)} pictures, too few for clips of {clip_frames} frames")
    return [_plain_row([part for part, _ in pairs[at : at + clip_frames]], pairs[at][1]) for at in starts]


def _plain_row(frames: list[Path], template: Path | None) -> Row:
    """One part or clip; its pictures are read when the row is."""
    name, group = frames[-1].name, frames[-1].parent.name

    def read() -> Example:
        try:
            *earlier, image = (read_picture(frame) for frame in frames)
            golden = image if template is None else template_for(image, template, frames[-1])
        except PictureError as error:
            raise DataSetError(str(error)) from error
        return Example(name, group, image, golden, (), is_labelled=False, earlier=tuple(earlier))

    return Row(name, group, read)
