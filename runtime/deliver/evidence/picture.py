"""What is done to a picture before it is written: private zones first, then the annotation on top."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ...config import PrivacyZone
from ...errors import PictureError
from ...report import Defect, Report

Picture = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]

FILL = 0
CELLS = 6  # a blurred zone keeps at most this many means along its longer side: no letter, no face
BANNER: dict[str, Colour] = {"reject": (0, 0, 190), "review": (0, 110, 200), "pass": (50, 120, 0)}  # BGR
SEVERITY: dict[str, Colour] = {
    "critical": (0, 0, 200),
    "major": (0, 80, 230),
    "minor": (0, 150, 200),
    "ignore": (120, 120, 120),
}


def without_private_zones(image: Picture, zones: Sequence[PrivacyZone]) -> Picture:
    """A copy, uint8 as given, whose zones are filled or blurred beyond recognition.

    PictureError for a zone that lies outside the picture: then the picture is not the one that the zones were
    drawn for, and what must stay private may be anywhere in it.
    """
    image = image.copy()
    height, width = image.shape[:2]
    for zone in zones:
        x1, y1, x2, y2 = zone.x1, zone.y1, min(zone.x2, width), min(zone.y2, height)
        if x1 >= x2 or y1 >= y2:
            raise PictureError(
                f"the privacy zone ({zone.x1}, {zone.y1}, {zone.x2}, {zone.y2}) is outside a picture of"
                f" {width} x {height} pixels; draw [[evidence.zones]] for this camera"
            )
        inside = image[y1:y2, x1:x2]
        inside[:] = FILL if zone.mode == "fill" else _blurred(inside)
    return image


def annotated(image: Picture, report: Report) -> Picture:
    """The picture [H, W, 3] BGR with every defect's box, type and confidence, and a banner above it.

    The banner, added as rows of its own so that it hides nothing, says the verdict, part, time and result.
    """
    colour = image.copy() if image.ndim == 3 else cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    canvas = np.asarray(colour, np.uint8)
    size = max(0.4, min(canvas.shape[:2]) / 1500)
    for defect in sorted(report.defects, key=lambda each: list(SEVERITY)[::-1].index(each.severity)):
        _draw(canvas, defect, size)
    return np.vstack((_banner(canvas.shape[1], report, size), canvas))


def encoded(picture: Picture, form: str) -> bytes:
    """The picture as a file's bytes, `form` png or jpeg; PictureError when OpenCV cannot."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if form == "png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    try:
        done, data = cv2.imencode(".png" if form == "png" else ".jpg", picture, options)
    except cv2.error as error:
        raise PictureError(f"a picture {picture.shape} cannot be written as {form}: {error}") from error
    if not done:
        raise PictureError(f"a picture {picture.shape} cannot be written as {form}")
    return bytes(data)


def _blurred(inside: Picture) -> Picture:
    """Means of a few cells, drawn smoothly over the whole: what was inside cannot be computed back."""
    height, width = inside.shape[:2]
    scale = CELLS / max(height, width)
    small = (max(1, min(width, round(width * scale))), max(1, min(height, round(height * scale))))
    cells = cv2.resize(inside, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(cells, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _draw(canvas: Picture, defect: Defect, size: float) -> None:
    colour = SEVERITY[defect.severity]
    x1, y1, x2, y2 = (round(value) for value in defect.bbox)
    cv2.rectangle(canvas, (x1 - 1, y1 - 1), (x2, y2), colour, max(2, round(size * 3)))
    sure = "" if defect.confidence is None else f" {defect.confidence:.2f}"
    text = f"{defect.type}{sure} {defect.severity}"
    (wide, high), below = _extent(text, size)
    top = y1 - high - below - 5 if y1 - high - below - 5 >= 0 else y2 + 2
    left = max(0, min(x1 - 1, canvas.shape[1] - wide - 4))
    top = max(0, min(top, canvas.shape[0] - high - below - 4))
    cv2.rectangle(canvas, (left, top), (left + wide + 3, top + high + below + 3), colour, -1)
    _write(canvas, text, left + 2, top + high + 2, size)


def _banner(width: int, report: Report, size: float) -> Picture:
    """Rows [h, width, 3] with what the reader of a single file must know, broken into lines that fit."""
    verdict = report.disposition.upper() + (" SIMULATED" if report.is_simulated else "")
    why = ", ".join(report.review_reasons)
    words = [verdict, f"part {report.part.part_id or '?'}", report.captured_at, report.recipe.id, why,
             report.result_id]  # fmt: skip
    lines = [""]
    for word in filter(None, words):
        longer = f"{lines[-1]}   {word}" if lines[-1] else word
        if lines[-1] and _extent(longer, size)[0][0] > width - 8:
            lines.append(word)
        else:
            lines[-1] = longer
    (_, high), below = _extent("Ag", size)
    row = high + below + 4
    banner = np.full((row * len(lines) + 4, width, 3), BANNER[report.disposition], np.uint8)
    for number, line in enumerate(lines):
        _write(banner, line, 4, row * number + high + 4, size)
    return banner


def _extent(text: str, size: float) -> tuple[tuple[int, int], int]:
    (wide, high), below = cv2.getTextSize(_shown(text), cv2.FONT_HERSHEY_SIMPLEX, size, _stroke(size))
    return (int(wide), int(high)), int(below)


def _write(canvas: Picture, text: str, left: int, base: int, size: float) -> None:
    font, stroke = cv2.FONT_HERSHEY_SIMPLEX, _stroke(size)
    cv2.putText(canvas, _shown(text), (left, base), font, size, (255, 255, 255), stroke, cv2.LINE_AA)


def _stroke(size: float) -> int:
    return max(1, round(size * 1.5))


def _shown(text: str) -> str:
    """OpenCV's letters are ASCII."""
    return text.encode("ascii", "replace").decode()
