"""The id of a part from the code on it: QR codes and barcodes by OpenCV, DataMatrix by a binding.

DataMatrix needs the package pylibdmtx and the library libdmtx (apt libdmtx0b); without them a picture with no
other code has no id, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2

from .frame import Picture

MOST_CHARACTERS = 128
"""Longer texts are no ids; they would stand in every report."""

DATAMATRIX_MS = 200
"""How long the search for a DataMatrix may take: it looks everywhere."""


@dataclass(frozen=True)
class PartId:
    """The id, or None and why there is none (for the report's `null_reasons`). kind: what carried it."""

    value: str | None
    reason: str | None
    kind: str | None = None


def part_id_from_picture(image: Picture) -> PartId:
    """The id that the codes in `image` (uint8 [H, W] or [H, W, 3] BGR) agree on.

    Codes of all kinds are read; two different texts are no id: nobody can say which part was meant.
    """
    found: dict[str, str] = {}
    for kind, read in (("qr", _qr_codes), ("barcode", _barcodes)):
        for text in read(image):
            found.setdefault(text, kind)
    lack = None
    if not found:
        texts, lack = _datamatrix_codes(image)
        found = dict.fromkeys(texts, "datamatrix")
    return _part_id(found, lack)


def _part_id(found: dict[str, str], lack: str | None) -> PartId:
    """The one usable text among `found` {text: kind}."""
    if not found:
        return PartId(None, "no_code_in_picture" if lack is None else f"no_code_in_picture; {lack}")
    if len(found) > 1:
        return PartId(None, f"{len(found)}_different_codes_in_picture")
    ((text, kind),) = found.items()
    value = text.strip()
    if not value.isprintable() or not 0 < len(value) <= MOST_CHARACTERS:
        return PartId(None, f"the_code_in_the_picture_is_no_id ({len(text)} characters)")
    return PartId(value, None, kind)


def _qr_codes(image: Picture) -> list[str]:
    try:
        is_found, texts, _, _ = cv2.QRCodeDetector().detectAndDecodeMulti(image)
    except cv2.error:  # some pictures without a code make the detector of some versions throw
        return []
    return [text for text in texts if text] if is_found else []


def _barcodes(image: Picture) -> list[str]:
    module: Any = getattr(cv2, "barcode", None)
    if module is None:  # a build of OpenCV without it
        return []
    detector = module.BarcodeDetector()
    try:
        found = detector.detectAndDecodeMulti(image)
    except cv2.error:
        return []
    return [text for text in found[1] if text] if found[0] else []


def _datamatrix_codes(image: Picture) -> tuple[list[str], str | None]:
    """(texts, why DataMatrix cannot be read here or None)."""
    decode = _datamatrix_decoder()
    if decode is None:
        return [], "DataMatrix is not read: pylibdmtx is not installed"
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    found = decode(grey, timeout=DATAMATRIX_MS)
    return [each.data.decode("utf-8", "replace") for each in found], None


def _datamatrix_decoder() -> Callable[..., list[Any]] | None:
    try:
        from pylibdmtx.pylibdmtx import decode
    except (ImportError, OSError):  # the package, or the library that it loads
        return None
    return decode  # type: ignore[no-any-return]
