"""What a block passed on for every feed: float32 values in one file, mapped when they are asked for."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TypeAlias

import numpy as np

from ..sessions import Array, Floats

HiddenPlaces: TypeAlias = list[dict[str, list[int]]]
"""For each feed: value name -> its offset in the file, in bytes, and its shape."""

_ALIGNMENT = 64


@dataclass(frozen=True)
class Hidden:
    """What a block passed on, one mapping of float32 values a feed, read from `path` when asked for."""

    path: Path | None
    places: HiddenPlaces

    def __getitem__(self, feed: int) -> dict[str, Array]:
        return {name: self._mapped(*place) for name, place in self.places[feed].items()}

    def _mapped(self, offset: int, *shape: int) -> Floats:
        if self.path is None or math.prod(shape) == 0:
            return np.zeros(shape, np.float32)
        return np.memmap(self.path, np.float32, "r", offset, shape)

    @classmethod
    def nothing(cls, feeds: int) -> Hidden:
        """What stands before the first block."""
        return cls(None, [{} for _ in range(feeds)])


class HiddenWriter:
    """Appends the values of one feed after the other; the file takes its name when the block ends well."""

    def __init__(self, path: Path) -> None:
        self._path, self._partial = path, path.with_name(path.name + ".partial")
        self._file: BinaryIO = self._partial.open("wb")
        self._places: HiddenPlaces = []

    def add(self, values: Mapping[str, Array]) -> None:
        """The values of the next feed, float32."""
        places = {}
        for name, value in values.items():
            self._file.write(b"\0" * (-self._file.tell() % _ALIGNMENT))
            places[name] = [self._file.tell(), *value.shape]
            self._file.write(np.ascontiguousarray(value, np.float32).data)
        self._places.append(places)

    def hidden(self) -> Hidden:
        """The finished file."""
        return Hidden(self._path, self._places)

    def __enter__(self) -> HiddenWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)
