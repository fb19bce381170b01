"""Files of a data set, read or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ....runtime.capture.folder import SUFFIXES
from ....runtime.capture.frame import read_picture
from ....runtime.errors import DataSetError, PictureError

Picture = npt.NDArray[np.uint8]


def text_from_file(path: Path) -> str:
    """A list's or annotation's text; DataSetError when it is not readable text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataSetError(f"{path} cannot be read as text: {error}") from None


def json_from_file(path: Path) -> Any:
    """The JSON value in a file; DataSetError with line and column when it is damaged or cut."""
    try:
        return json.loads(text_from_file(path))
    except ValueError as error:
        raise DataSetError(f"{path} is not whole JSON: {error}") from None


def picture_from_file(path: Path) -> Picture:
    """A picture as the camera sees it: turned upright by its EXIF flag, as OpenCV does. DataSetError."""
    try:
        return read_picture(path)
    except PictureError as error:
        raise DataSetError(str(error)) from error


def pixels_from_file(path: Path) -> Picture:
    """The stored numbers of a mask, uint8 [H, W], nothing turned; DataSetError when it is not that.

    A mask with colours is taken by its first channel only where all channels are equal.
    """
    data = np.fromfile(path, np.uint8) if path.is_file() else np.zeros(0, np.uint8)
    try:
        pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error:
        pixels = None
    if pixels is None or pixels.dtype != np.uint8:
        raise DataSetError(f"{path} ({data.size} bytes) is not a mask of 8 bit; give a whole PNG")
    if pixels.ndim == 3:
        colours = pixels[..., :3]
        if (colours != colours[..., :1]).any():
            raise DataSetError(f"{path} is a mask in colours; give one value a class, 0 for the background")
        pixels = colours[..., 0]
    return np.ascontiguousarray(pixels, np.uint8)


def grey(picture: Picture) -> Picture:
    """[H, W] from [H, W] or [H, W, 3], for sets that are grey whatever their JPEGs were saved as."""
    return picture if picture.ndim == 2 else np.ascontiguousarray(picture.mean(axis=2).astype(np.uint8))


def is_picture_file(path: Path) -> bool:
    """Whether the name is one of a picture."""
    return path.suffix.lower() in SUFFIXES and path.is_file()
