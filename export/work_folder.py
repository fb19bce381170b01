"""What an export has done so far, kept beside the bundle until the bundle is whole.

An export of a real checkpoint takes hours. Its parts (graphs, answers, ranges) are finished one by one in
`<bundle>.work`; `state.json` there says which, and from what. The same command run again goes on behind the
last finished part; a command with other inputs starts over. Small errors before the first part leave nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ..runtime.errors import BundleError
from .bundle import drop_unfinished, sync_tree

STATE = "state.json"
_LOCK = "lock"


def work_path(out: Path) -> Path:
    """Where the export of the bundle `out` keeps its long work."""
    return out.absolute().parent / f"{out.name}.work"


class WorkFolder:
    """A context manager; leaving it removes the folder after success, and after an error without a part."""

    def __init__(self, out: Path, made_from: Mapping[str, Any]) -> None:
        """`out` is the bundle to be; `made_from` (JSON values) is everything that the finished parts rest on.

        BundleError when another export writes the same bundle, or when the place is somebody else's folder.
        """
        self._out, self.path = out.absolute(), work_path(out)
        self._digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()
        self._parts: dict[str, Any] = {}
        self._lock: int | None = None
        self.is_resumed = self.has_dropped = False

    def has(self, part: str) -> bool:
        """Whether this part is finished, here or by an export before that was broken off."""
        return part in self._parts

    def facts(self, part: str) -> Any:
        """What `finish` noted about a finished part."""
        return self._parts[part]

    def finish(self, part: str, facts: Any = None) -> None:
        """Note that a part is whole on disk; `facts` are JSON values. Survives a power cut."""
        self._parts[part] = facts
        sync_tree(self.path)  # the part before the word that it is there
        temporary = self.path / f"{STATE}.partial"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"made_from": self._digest, "parts": self._parts}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path / STATE)

    def forget(self) -> None:
        """Give up all finished parts, before their files are moved away: a next try starts over."""
        self._parts = {}
        (self.path / STATE).unlink(missing_ok=True)

    def folder(self, name: str) -> Path:
        """A folder inside, made when it is not there yet."""
        place = self.path / name
        place.mkdir(exist_ok=True)
        return place

    def __enter__(self) -> WorkFolder:
        exists = self.path.exists()
        if exists and not (self.path / _LOCK).exists() and any(self.path.iterdir()):
            raise BundleError(
                f"{self.path} exists and is no work folder of an export; give another -o, or remove it"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            self._lock = None
            raise BundleError(
                f"another export is writing {self.path}; wait for it, or give another -o"
            ) from None
        drop_unfinished(self._out)  # of an export that was killed; under the lock it is nobody's
        self._parts = self._parts_on_disk()
        self.is_resumed = bool(self._parts)
        if not self.is_resumed:
            self.has_dropped = (self.path / STATE).exists()
            self._clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None or not self._parts:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _parts_on_disk(self) -> dict[str, Any]:
        """Finished parts of an export from the same inputs; none when there is no such."""
        try:
            state = json.loads((self.path / STATE).read_text(encoding="utf-8"))
            parts = state["parts"] if state["made_from"] == self._digest else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(parts)

    def _clear(self) -> None:
        """Remove what an export from other inputs left; the lock stays."""
        for place in self.path.iterdir():
            if place.name == _LOCK:
                continue
            if place.is_dir():
                shutil.rmtree(place)
            else:
                place.unlink()
