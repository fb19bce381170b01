"""The finished blocks of one calibration, on disk, so that a run which was killed goes on behind the last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import EngineError
from ..blocks import Block
from ..choice import LinearChoice
from ..sessions import Array
from .block_pass import BlockResult, Seconds, outputs_of
from .confirm import confirmation_passes
from .forecast import Forecast, forecast_of_blocks
from .hidden import Hidden

_KEY = "calibration.key"


class Records:
    """The finished blocks of one calibration, on disk: `<block>.json`, `<block>.npz`, hidden states."""

    def __init__(self, folder: Path, blocks: Sequence[Block], key: str) -> None:
        """Take up what lies in `folder` when it has the same key; else clear it and start over."""
        self.folder, self.blocks, self.key = folder, blocks, key
        self._documents: list[dict[str, Any]] = []
        if folder.exists():
            same = (folder / _KEY).is_file() and (folder / _KEY).read_text(encoding="utf-8") == key
            if same and self._taken_up():
                return
            if not (folder / _KEY).is_file() and any(folder.iterdir()):
                raise EngineError(
                    f"{folder} is no calibration of ours: give another work folder, or remove it"
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        write_whole(folder / _KEY, key)
        self._documents = []

    @property
    def done(self) -> int:
        """How many blocks are finished."""
        return len(self._documents)

    def plan(self, rows: Sequence[int]) -> Forecast | None:
        """The forecast of what is left, measured on the last finished block; None before the first."""
        if not self._documents:
            return None
        return forecast_of_blocks(
            self.blocks[self.done :],
            self.blocks[self.done - 1],
            Seconds(**self._documents[-1]["seconds"]),
            self._file(self.done - 1, "float").stat().st_size / len(rows),
            len(rows),
            confirmation_passes(len(rows)),
        )

    @property
    def hidden(self) -> tuple[Hidden, Hidden] | None:
        """The float and the INT8 stream behind the last finished block; None before the first."""
        if not self._documents:
            return None
        return self._hidden(self.done - 1, "float"), self._hidden(self.done - 1, "int8")

    def add(self, block: Block, result: BlockResult) -> None:
        """Record a finished block; the hidden states that nobody reads any more go away."""
        smoothing = {c.name: c.smoothing for c in result.choices if c.smoothing is not None}
        partial = self.folder / f"{block.name}.npz.partial"
        with partial.open("wb") as file:
            np.savez(file, **smoothing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self.folder / f"{block.name}.npz")
        document = {
            "choices": [choice.to_json() for choice in result.choices],
            "errors": result.errors,
            "seconds": asdict(result.seconds),
            "float": result.float_hidden.places,
            "int8": result.int8_hidden.places,
        }
        write_whole(
            self.folder / f"{block.name}.json", json.dumps(document)
        )  # last: it says that all is there
        self._documents.append(document)
        if self.done > 1 and not outputs_of(self.blocks[self.done - 2]):
            self._drop(self.done - 2, "float")
        if self.done > 1:
            self._drop(self.done - 2, "int8")

    def choices(self) -> list[LinearChoice]:
        """The choices of all finished blocks."""
        found = []
        for block, document in zip(self.blocks, self._documents, strict=False):
            with np.load(self.folder / f"{block.name}.npz", allow_pickle=False) as arrays:
                found += [
                    LinearChoice(**plain, smoothing=arrays.get(plain["name"]))
                    for plain in document["choices"]
                ]
        return found

    def outputs(self, feed: int) -> dict[str, Array]:
        """What the float graph put out for a feed, rows of new_kv left out."""
        return {
            name: self._hidden(place, "float")[feed][name]
            for place, block in enumerate(self.blocks)
            for name in outputs_of(block)
        }

    def _taken_up(self) -> bool:
        """Read the records up to the first missing one; False when hidden states that they need are gone."""
        for block in self.blocks:
            path = self.folder / f"{block.name}.json"
            if not path.is_file():
                break
            self._documents.append(json.loads(path.read_text(encoding="utf-8")))
        needed = [place for place in range(self.done) if outputs_of(self.blocks[place])]
        needed += [self.done - 1] if 0 < self.done < len(self.blocks) else []
        return all(self._file(place, "float").is_file() for place in needed)

    def _hidden(self, place: int, stream: str) -> Hidden:
        return Hidden(self._file(place, stream), self._documents[place][stream])

    def _file(self, place: int, stream: str) -> Path:
        return self.folder / f"{self.blocks[place].name}.{stream}"

    def _drop(self, place: int, stream: str) -> None:
        self._file(place, stream).unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Whole or not at all, also when the machine stops."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
