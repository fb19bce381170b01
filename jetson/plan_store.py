"""The folder of engines, written so that a power cut at any step leaves a set that works.

What is finished of a set under way is listed in its `done.json` and not built again.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..runtime.errors import EngineError
from ..runtime.infer.bundle import sha256_of_file
from ..runtime.infer.engines.plans import BUILT, CURRENT, PlanFile, PlanSet, current_set
from ..runtime.infer.engines.tensorrt_builder import sync_folder, write_whole

BUILDING, DONE, TIMING, LOCK = ".building", "done.json", "timing.cache", "lock"
_SET = re.compile(r"[0-9a-f]{16}(-\d+|\.building)")


@contextmanager
def only_builder(folder: Path) -> Iterator[None]:
    """Nobody else builds in `folder` meanwhile; EngineError when somebody does. Ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("wb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise EngineError(
                f"another orinspect engines build works in {folder} ({error.strerror}); wait until it ends"
            ) from error
        yield


def set_in_use(folder: Path, key: str) -> PlanSet | None:
    """The set in use when it is whole, to the byte, and was made under this key."""
    try:
        found = current_set(folder)
    except EngineError:
        return None
    return found if found.key == key and altered_plan(found) is None else None


def altered_plan(plans: PlanSet) -> Path | None:
    """The first plan whose bytes are not those that were built; None when all are."""
    for plan in (plan for rows in plans.components.values() for plan in rows):
        path = plans.folder / plan.file
        if sha256_of_file(path) != plan.sha256:
            return path
    return None


def building_folder(folder: Path, key: str) -> Path:
    """Where a set under this key is built; made when it is not there."""
    place = folder / f"{key}{BUILDING}"
    place.mkdir(parents=True, exist_ok=True)
    return place


def finished_plan(place: Path, name: str) -> PlanFile | None:
    """A plan that an earlier build finished and that is still what it was then."""
    entry = _done(place).get(name)
    path = place / name
    if entry is None or not path.is_file() or sha256_of_file(path) != entry["sha256"]:
        return None
    return PlanFile(**entry)


def record_plan(place: Path, plan: PlanFile) -> None:
    """List a plan as finished."""
    write_whole(place / DONE, json.dumps(_done(place) | {plan.file: asdict(plan)}, indent=1).encode())


def complete(made: PlanSet) -> None:
    """Write `built.json` of a set whose plans are all there."""
    write_whole(made.folder / BUILT, json.dumps(made.to_table(), indent=1).encode())


def activate(folder: Path, made: PlanSet) -> PlanSet:
    """Put a complete set in use, then remove the others."""
    number = 1
    while (folder / f"{made.key}-{number}").exists():
        number += 1
    chosen = folder / f"{made.key}-{number}"
    made.folder.rename(chosen)
    sync_folder(folder)
    write_whole(folder / CURRENT, f"{chosen.name}\n".encode())
    for other in folder.iterdir():
        if other.is_dir() and other != chosen and _SET.fullmatch(other.name):
            shutil.rmtree(other, ignore_errors=True)
    return PlanSet.read(chosen)


def _done(place: Path) -> dict[str, dict[str, Any]]:
    try:
        table: dict[str, dict[str, Any]] = json.loads((place / DONE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table
