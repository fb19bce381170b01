"""The camera that replays a folder of pictures: `folder:PATH?template=FILE&fps=2&mm_per_px=0.02`.

A folder with `X_test` beside `X_temp` (as DeepPCB names them) gives pairs. Any other gives every picture,
with the one `template` when it is named, else alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from ..errors import PictureError
from .frame import NO_IMAGE, Clock, Frame, FrameFault, Picture, read_picture
from .sources import Pace, Resume, SourceError, SourceText

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_PARAMETERS = ("template", "fps", "mm_per_px")


class FolderCamera:
    """Every part of a folder once, in natural order (part 2 before part 10).

    A part whose file is no picture is a frame with the fault `picture`: the others go on.
    """

    def __init__(self, text: SourceText, clock: Clock, sleep: Callable[[float], None],
                 resume: Resume) -> None:
        text.allow(_PARAMETERS)
        folder = Path(text.path)
        if not os.path.isdir(folder):  # unlike Path.is_dir also for a name that no folder can have
            raise text.refused_path(f"{text.path!r} is not a folder; give one with pictures")
        self._source, self._clock = text.text, clock
        self._mm_per_px = text.number("mm_per_px", None)
        self._pace = Pace(text.number("fps", None), clock.monotonic_ns, sleep)
        self._pairs = pairs_in_folder(folder, text.options.get("template"))
        self._done = resume.keys
        self._closed = False

    def __enter__(self) -> FolderCamera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End `frames` at its next step."""
        self._closed = True

    def frames(self) -> Iterator[Frame]:
        """One frame a part, less those with a key of `resume`; `sequence` is the place in the folder."""
        for index, (part, template) in enumerate(self._pairs):
            if self._closed:
                return
            key = file_key(part)
            if key in self._done:
                continue
            image, golden, fault = pictures_of(part, template)
            self._pace.wait()
            yield Frame(
                image=image, template=golden, sequence=index + 1, captured_at=self._clock.unix_s(),
                monotonic_ns=self._clock.monotonic_ns(), source=self._source,
                part_id=re.sub(r"_test$", "", name_as_text(part.stem)), mm_per_px=self._mm_per_px, key=key,
                fault=fault,
            )


def name_as_text(name: str) -> str:
    """A file's name as text that anybody can store: bytes that are no UTF-8 are written \\xff."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def file_key(path: Path) -> str:
    """What tells a file from another that had or will have its name: name, size and time of change.

    A place in the sorted folder would not do: a file that comes later and sorts earlier moves all the rest.
    """
    try:
        facts = path.stat()
    except OSError:  # taken away meanwhile
        return name_as_text(path.name)
    return f"{name_as_text(path.name)}/{facts.st_size}/{facts.st_mtime_ns}"


def pictures_of(part: Path, template: Path | None) -> tuple[Picture, Picture | None, FrameFault | None]:
    """(image, template, fault) of a part; NO_IMAGE with a fault when a file is no picture or does not fit."""
    try:
        image = read_picture(part)
        return image, None if template is None else template_for(image, template, part), None
    except PictureError as error:
        return NO_IMAGE, None, FrameFault("picture", str(error))


def pairs_in_folder(folder: Path, template: str | None = None) -> list[tuple[Path, Path | None]]:
    """Part and template of every part in `folder`, in natural order.

    `template` is a file for all parts, from the folder or from the current directory. SourceError when the
    folder has no pictures, when a part lacks its template, or when the template is missing.
    """
    pictures = sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES),
                      key=lambda path: natural_key(path.name))
    if template is not None:
        golden = next((path for path in (folder / template, Path(template)) if os.path.isfile(path)), None)
        if golden is None:
            raise SourceError(f"the template {template!r} is neither in {folder} nor a path; name a file")
        parts = [path for path in pictures if path.resolve() != golden.resolve()]
        pairs: list[tuple[Path, Path | None]] = [(path, golden) for path in parts]
    elif any(path.stem.endswith("_test") for path in pictures):
        templates = {path.stem: path for path in pictures}
        pairs = []
        for path in pictures:
            if not path.stem.endswith("_test"):
                continue
            mate = templates.get(path.stem.removesuffix("_test") + "_temp")
            if mate is None:
                wanted = path.stem.removesuffix("_test") + "_temp" + path.suffix
                raise SourceError(f"{path} has no template {wanted} beside it; add it or name ?template=")
            pairs.append((path, mate))
    else:
        pairs = [(path, None) for path in pictures]
    if not pairs:
        raise SourceError(f"{folder} holds no pictures of parts; supported are {', '.join(SUFFIXES)}")
    return pairs


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """A sorting key that counts numbers inside names as numbers."""
    pieces = re.split(r"([0-9]+)", name.lower())
    return [(1, int(piece), "") if piece.isdigit() else (0, 0, piece) for piece in pieces], name


def template_for(image: Picture, template: Path, part: Path) -> Picture:
    """The template in the part's colours; PictureError when their sizes differ."""
    golden = read_picture(template)
    if golden.shape[:2] != image.shape[:2]:
        raise PictureError(f"{part} is {image.shape[1]} x {image.shape[0]} pixels and its template "
                           f"{template} {golden.shape[1]} x {golden.shape[0]}; give pictures of one size")
    if golden.ndim == image.ndim:
        return golden
    wanted = cv2.COLOR_GRAY2BGR if image.ndim == 3 else cv2.COLOR_BGR2GRAY
    return np.asarray(cv2.cvtColor(golden, wanted), np.uint8)
