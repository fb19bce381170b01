"""The text that names a camera: `kind:path?name=value&name=value`, and the pace that frames keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar
from urllib.parse import parse_qsl

from ..errors import CaptureError

Default = TypeVar("Default", int, float, None)


# How a kind that can start over knows what it has given before; live cameras never do and are not here.
RESUMED_BY: Mapping[str, Literal["sequence", "key"]] = {
    "scenes": "sequence",
    "video": "sequence",
    "folder": "key",
    "watch": "key",
}
LIVE = ("v4l2", "csi", "rtsp")
"""Kinds that go on whether anybody looks or not: their newest frame counts, and none can be had again."""


class SourceError(CaptureError):
    """The source text is wrong: an unknown kind or parameter, an impossible value, a folder that is none."""


@dataclass(frozen=True)
class Resume:
    """What a source that starts over leaves out: captures numbered up to `after`, or with these keys."""

    after: int = 0
    keys: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SourceText:
    """A camera source taken apart; every complaint quotes the whole text."""

    text: str
    kind: str
    path: str
    options: Mapping[str, str]

    @classmethod
    def of(cls, text: str) -> SourceText:
        """Take `text` apart; SourceError when it has no kind or a parameter is malformed or given twice."""
        kind, colon, rest = text.partition(":")
        if not colon or not kind:
            raise SourceError(f"camera.source is {text!r}: write KIND:PATH, for instance scenes:pcb?seed=1")
        path, _, query = rest.partition("?")
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
        except ValueError:
            raise SourceError(f"camera.source is {text!r}: write parameters as ?a=1&b=2") from None
        options: dict[str, str] = {}
        for name, value in pairs:
            if name in options:
                raise SourceError(f"camera.source is {text!r}: {name} is given twice; keep one")
            options[name] = value
        return cls(text, kind, path, options)

    @property
    def is_live(self) -> bool:
        """Whether the source goes on by itself, so that it can stop, freeze and be late."""
        return self.kind in LIVE

    @property
    def may_be_silent(self) -> bool:
        """Whether no frame for any time is nothing unusual."""
        return self.kind == "watch"

    @property
    def resumed_by(self) -> Literal["sequence", "key"] | None:
        """What tells the captures of this source apart over a restart; None for a live camera."""
        return RESUMED_BY.get(self.kind)

    def allow(self, names: Sequence[str]) -> None:
        """SourceError when a parameter is none of `names`."""
        for name in self.options:
            if name not in names:
                raise SourceError(f"camera.source is {self.text!r}: it has no parameter {name!r}; "
                                  f"known are {', '.join(names)}")

    def whole(self, name: str, least: int, default: Default) -> int | Default:
        """The parameter as a whole number of at least `least`; `default` when it is not given."""
        if name not in self.options:
            return default
        value = self.options[name]
        if not (value.isascii() and value.isdigit() and int(value) >= least):
            raise self.refused(name, f"a whole number from {least}")
        return int(value)

    def number(self, name: str, default: Default, zero: bool = False) -> float | Default:
        """The parameter as a finite number above 0 (or 0 itself when `zero`); `default` when not given."""
        if name not in self.options:
            return default
        try:
            value = float(self.options[name])
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            raise self.refused(name, "a number from 0" if zero else "a number above 0")
        return value

    def refused_path(self, why: str) -> SourceError:
        """The complaint about what stands behind the kind."""
        return SourceError(f"camera.source is {self.text!r}: {why}")

    def refused(self, name: str, wanted: str) -> SourceError:
        """The complaint about a parameter's value."""
        value = self.options[name]
        return SourceError(f"camera.source is {self.text!r}: {name} is {value!r}; give {wanted}")


class Pace:
    """Holds a source to `fps` frames a second, counted from the first, so that no delay adds up.

    A frame that is late is given at once, and the pace goes on from it: nobody wants a burst after a pause.
    """

    def __init__(self, fps: float | None, monotonic_ns: Callable[[], int],
                 sleep: Callable[[float], None]) -> None:
        self._period_ns = None if fps is None else 1e9 / fps
        self._monotonic_ns = monotonic_ns
        self._sleep = sleep
        self._due_ns: float | None = None

    def wait(self) -> None:
        """Return when the next frame is due."""
        if self._period_ns is None:
            return
        now = float(self._monotonic_ns())
        if self._due_ns is not None and now < self._due_ns:
            self._sleep((self._due_ns - now) / 1e9)
            now = self._due_ns
        self._due_ns = now + self._period_ns
