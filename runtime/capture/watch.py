"""The camera that waits for pictures to arrive in a folder: `watch:PATH?after=move&settle_s=0.5`.

A file is taken when it is whole: its size and time have not changed for `settle_s`, and it decodes; one that
never becomes a picture is a frame with the fault `picture` after `give_up_s`. The folder is listed every
`poll_s`: inotify says nothing of files that arrive over a network mount. `after` says what becomes of a file
once its part is written down: `keep` leaves it, `move` puts it into the folder `done` inside (and one that
could not be read into `failed`), `delete` removes it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from ..errors import CaptureError
from .folder import SUFFIXES, file_key, name_as_text, natural_key, pictures_of
from .frame import Clock, Frame
from .sources import Resume, SourceText

_PARAMETERS = ("template", "mm_per_px", "after", "settle_s", "give_up_s", "poll_s")
AFTER = ("keep", "move", "delete")
_MOST_KEYS = 200_000

log = logging.getLogger(__name__)


@dataclass
class _Arrival:
    """A file on its way: how it looked last, since when, and since when it was known."""

    key: str
    steady_ns: int
    known_ns: int


class WatchCamera:
    """Every whole picture that arrives, once, oldest first; what lies there at the start has arrived too.

    CaptureError while the folder is not there: a mount may come back.
    """

    def __init__(
        self, text: SourceText, clock: Clock, sleep: Callable[[float], None], resume: Resume
    ) -> None:
        text.allow(_PARAMETERS)
        self._after = text.options.get("after", "keep")
        if self._after not in AFTER:
            raise text.refused("after", " or ".join(AFTER))
        if not text.path:
            raise text.refused_path("name a folder")
        self._source, self._clock, self._sleep = text.text, clock, sleep
        self._folder = Path(text.path)
        template = text.options.get("template")
        self._template = None if template is None else self._template_at(template, text)
        self._mm_per_px = text.number("mm_per_px", None)
        self._settle_ns = int(text.number("settle_s", 0.5, zero=True) * 1e9)
        self._give_up_ns = int(text.number("give_up_s", 10.0) * 1e9)
        self._poll_s = text.number("poll_s", 0.2)
        self._mutex = threading.Lock()  # `accepted` comes from another thread
        self._done = set(resume.keys)
        self._given: dict[str, tuple[Path, bool]] = {}  # key -> file, whether it was a picture
        self._arrivals: dict[Path, _Arrival] = {}
        self._sequence = 0
        self._closed = threading.Event()

    def __enter__(self) -> WatchCamera:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End `frames` at its next step."""
        self._closed.set()

    def frames(self) -> Iterator[Frame]:
        """Frames as files arrive, for ever."""
        while not self._closed.is_set():
            given = self._sequence
            for path, key in self._look():
                if self._closed.is_set():
                    return
                frame = self._frame(path, key)
                if frame is not None:
                    yield frame
            if self._sequence == given:
                self._sleep(self._poll_s)

    def accepted(self, key: str) -> None:
        """The part with this key is written down: its file may go where `after` says."""
        with self._mutex:
            path, is_picture = self._given.pop(key, (None, True))
        if path is not None:
            self._put_away(path, key, is_picture)

    def _look(self) -> list[tuple[Path, str]]:
        """Files that became whole since the last look, by time of change, with their keys."""
        try:
            found = [
                Path(entry.path)
                for entry in os.scandir(self._folder)
                if entry.is_file()
                and Path(entry.name).suffix.lower() in SUFFIXES
                and not entry.name.startswith(".")
            ]
        except OSError as error:
            raise CaptureError(
                f"the folder {self._folder} cannot be listed: {error.strerror}; check the mount"
            ) from None
        now = self._clock.monotonic_ns()
        whole: list[tuple[Path, str]] = []
        keys = set()
        for path in found:
            if self._template is not None and path.name == self._template.name:
                continue
            key = file_key(path)
            keys.add(key)
            if key in self._done:
                self._finish_old(path, key)
                continue
            arrival = self._arrivals.get(path)
            if arrival is None or arrival.key != key:
                arrival = _Arrival(key, now, now if arrival is None else arrival.known_ns)
                self._arrivals[path] = arrival
            if now - arrival.steady_ns >= self._settle_ns:
                whole.append((path, key))
        self._forget(set(found), keys)
        return sorted(whole, key=lambda each: (_changed_ns(each[0]), natural_key(each[0].name)))

    def _frame(self, path: Path, key: str) -> Frame | None:
        """The file's frame; None while it may still become a picture, or when it has gone."""
        image, golden, fault = pictures_of(path, self._template)
        now = self._clock.monotonic_ns()
        if file_key(path) != key:
            return None  # it has grown or gone while it was read: the next look sees it anew
        if fault is not None and now - self._arrivals[path].steady_ns < self._give_up_ns:
            return None
        del self._arrivals[path]
        self._sequence += 1
        with self._mutex:
            self._done.add(key)
            self._given[key] = path, fault is None
        return Frame(
            image=image,
            template=golden,
            sequence=self._sequence,
            captured_at=self._clock.unix_s(),
            monotonic_ns=now,
            source=self._source,
            part_id=name_as_text(path.stem),
            mm_per_px=self._mm_per_px,
            key=key,
            fault=fault,
        )

    def _finish_old(self, path: Path, key: str) -> None:
        """A part that was accepted before this start, whose file a crash left lying."""
        with self._mutex:
            is_waiting = key in self._given
        if not is_waiting:
            self._put_away(path, key, True)

    def _put_away(self, path: Path, key: str, is_picture: bool) -> None:
        if self._after == "keep" or file_key(path) != key:  # another picture has come under its name
            return
        try:
            if self._after == "delete":
                path.unlink()
            else:
                target = self._folder / ("done" if is_picture else "failed")
                target.mkdir(exist_ok=True)
                path.replace(_free_name(target / path.name))
        except OSError as error:
            log.warning("%s cannot be put away: %s; it stays, and is not inspected again", path, error)

    def _forget(self, found: set[Path], keys: set[str]) -> None:
        """Files that are gone need no memory; keys do for long: an unmounted folder looks empty too."""
        for path in self._arrivals.keys() - found:
            del self._arrivals[path]
        with self._mutex:
            if len(self._done) > _MOST_KEYS:
                self._done &= keys
            for key in self._given.keys() - keys:
                del self._given[key]

    def _template_at(self, name: str, text: SourceText) -> Path:
        golden = next((path for path in (self._folder / name, Path(name)) if os.path.isfile(path)), None)
        if golden is None:
            raise text.refused("template", f"a file in {self._folder} or a path")
        return golden


def _changed_ns(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


def _free_name(path: Path) -> Path:
    """`path`, or the first of `stem.1.png`, `stem.2.png` ... that is not taken."""
    number, free = 0, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}.{number}{path.suffix}")
    return free
