"""Hash-chained lines: how one is written, and how files of them are verified.

A line is canonical JSON (sorted keys, no spaces, ASCII). Its `hash` is SHA-256 over the hash of the line
before it, as 64 hexadecimal digits, followed by the canonical JSON of its record without `previous` and
`hash`. Whoever changes, removes or inserts a line must write every line behind it anew; docs/audit.md says
what that proves and what not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENESIS = "0" * 64
TORN = "torn_line"
"""The event that owns up to bytes which are no line: what a power cut left of the last one."""
PATTERN = "audit-[0-9]*.jsonl"


@dataclass(frozen=True)
class Link:
    """The end of a chain: the number of its last line (0: none yet) and that line's hash."""

    n: int = 0
    hash: str = GENESIS


@dataclass(frozen=True)
class Broken:
    """The first line that does not continue the chain."""

    file: str
    line: int
    why: str


@dataclass(frozen=True)
class Verification:
    """What `verified` found: lines counted until the first broken one.

    `first_n`: number of the first line seen, above 1 when older files are not here. `torn`: broken lines that
    a marker owns up to. `unfinished_bytes`: behind the last line of the last file, a line that was being
    written. `anchor_n`: the number of the line whose hash was asked for.
    """

    files: int
    lines: int
    first_n: int
    end: Link
    torn: int = 0
    unfinished_bytes: int = 0
    broken: Broken | None = None
    anchor_n: int | None = None


def canonical(value: Any) -> str:
    """The one JSON text of a value; ValueError for a number that is none."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)


def line_from_record(record: Mapping[str, Any], before: Link) -> tuple[bytes, Link]:
    """The line of a record (without n, previous, hash) behind `before`, and the new end of the chain."""
    record = json.loads(canonical({**record, "n": before.n + 1}))  # as a reader will see it
    end = Link(before.n + 1, _hash(record, before.hash))
    return (canonical({**record, "previous": before.hash, "hash": end.hash}) + "\n").encode(), end


def torn_facts(segment: bytes) -> dict[str, Any]:
    """What the marker of a torn segment says about it."""
    return {"bytes": len(segment), "sha256": hashlib.sha256(segment).hexdigest()}


def read_line(raw: bytes, before: Link | None) -> tuple[dict[str, Any] | None, Link, str]:
    """(record, end, "") of a line that continues `before`, else (None, before, why).

    `before` None: any line may come. `raw` includes the line break.
    """
    stay = before or Link()
    try:
        record = json.loads(raw)
        previous, stated, n = record.pop("previous"), record.pop("hash"), record["n"]
        whole = canonical({**record, "previous": previous, "hash": stated}) + "\n"
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None, stay, "it is no audit line"
    if whole.encode() != raw or not isinstance(n, int) or not isinstance(previous, str):
        return None, stay, "it is not written the way an audit line is"
    if before is not None and n != before.n + 1:
        return None, stay, f"it is number {n} and {before.n + 1} was expected"
    if (before is not None and previous != before.hash) or (n == 1 and previous != GENESIS):
        return None, stay, "it does not continue the line before it"
    if stated != _hash(record, previous):
        return None, stay, "its content does not have its hash"
    return record, Link(n, stated), ""


def files_of(place: Path) -> list[Path]:
    """The files of a chain in order: `place` itself, or all of the folder's."""
    return sorted(place.glob(PATTERN)) if place.is_dir() else [place]


def verified(paths: Iterable[Path], *, before: Link | None = None, anchor: str | None = None) -> Verification:
    """Follow the chain through files in order; OSError when one cannot be read.

    `before` is what the first line must continue (None: anything), `anchor` a hash that must occur.
    """
    walk = _Walk(before, anchor)
    paths = list(paths)
    for path in paths:
        if walk.broken is None:
            walk.follow(path, is_last=path == paths[-1])
    found = walk.broken
    return Verification(
        len(paths), walk.lines, walk.first_n, walk.end or Link(), walk.torn, len(walk.segment), found,
        walk.anchor_n,
    )  # fmt: skip


class _Walk:
    """One pass over the files."""

    def __init__(self, before: Link | None, anchor: str | None) -> None:
        self.end, self.lines, self.first_n, self.torn = before, 0, 0, 0
        self.segment = b""  # bytes that are no line, until a marker owns up to them
        self.broken: Broken | None = None
        self.anchor_n: int | None = None
        self._anchor = anchor

    def follow(self, path: Path, *, is_last: bool) -> None:
        """One file; a segment without a marker at its end is broken unless a line is being written there."""
        suspect: Broken | None = None
        with path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                record, end, why = read_line(raw, self.end)
                if record is None:
                    suspect = suspect or Broken(path.name, number, why)
                    self.segment += raw
                    continue
                if suspect is not None:
                    if record.get("event") != TORN or record.get("facts") != torn_facts(self.segment):
                        self.broken = suspect
                        return
                    suspect, self.segment = None, b""
                    self.torn += 1
                self._count(end)
        if suspect is not None and not (is_last and _is_unfinished(self.segment)):
            self.broken = suspect

    def _count(self, end: Link) -> None:
        self.end = end
        self.lines += 1
        self.first_n = self.first_n or end.n
        if end.hash == self._anchor:
            self.anchor_n = end.n


def _is_unfinished(segment: bytes) -> bool:
    """Whether bytes at the very end may be what a power cut left: no whole JSON with a line break, as a line
    that somebody altered is."""
    for raw in segment.splitlines(keepends=True):
        with contextlib.suppress(ValueError, RecursionError):
            json.loads(raw)
            return not raw.endswith(b"\n")
    return True


def _hash(record: Mapping[str, Any], previous: str) -> str:
    return hashlib.sha256((previous + canonical(record)).encode()).hexdigest()
