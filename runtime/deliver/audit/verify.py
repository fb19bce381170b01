"""`orinspect audit verify`: does the chain hold, and which line breaks it first."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from ...errors import UsageError
from .chain import Verification, files_of, verified

EXAMPLE = "orinspect audit verify audit --anchor 3f0c..."


def add_audit(commands: Any) -> None:
    """Add `audit verify` to the command line's subparsers."""
    what = "the hash-chained record of changes and commands"
    audit = commands.add_parser("audit", help=what, description=what, epilog=f"example: {EXAMPLE}")
    actions = audit.add_subparsers(title="actions", required=True, metavar="verify")
    checks = "follow the chain; exit 1 when a line breaks it, and name the first"
    action = actions.add_parser("verify", help=checks, description=checks, epilog=f"example: {EXAMPLE}")
    action.set_defaults(run=_verify)
    action.add_argument("place", type=Path, metavar="FILE|DIR", help="one file, or the folder of [audit]")
    action.add_argument("--anchor", metavar="HASH", help="a head that `health` once published: must be in it")
    action.add_argument("--json", action="store_true", help="print what was found as one JSON object")


def _verify(arguments: argparse.Namespace) -> int:
    place: Path = arguments.place
    if not place.exists():
        raise UsageError(f"{place} does not exist; give an audit file or its folder")
    files = files_of(place)
    if not files:
        raise UsageError(f"{place} holds no audit-*.jsonl; give the folder of [audit]")
    found = verified(files, anchor=arguments.anchor)
    missing = arguments.anchor is not None and found.anchor_n is None
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(found), "holds": found.broken is None and not missing}))
    else:
        print("\n".join(_sentences(found, arguments.anchor)))
    return int(found.broken is not None or missing)


def _sentences(found: Verification, anchor: str | None) -> list[str]:
    """What was found, for a person."""
    said = []
    if found.broken is not None:
        broken = found.broken
        said.append(f"BROKEN: {broken.file}, line {broken.line}: {broken.why}")
    held = f"{found.lines} lines in {found.files} files hold"
    said.append(f"{held}; the last is number {found.end.n}, {found.end.hash}")
    if found.first_n > 1:
        said.append(f"it begins with line {found.first_n}: what was before it cannot be verified here")
    if found.torn:
        said.append(f"{found.torn} torn by a power cut, each owned up to by a marker line")
    if found.unfinished_bytes and found.broken is None:
        said.append(f"behind it {found.unfinished_bytes} bytes of a line that is being written, or was torn")
    if anchor is not None:
        where = "is NOT in it" if found.anchor_n is None else f"is line {found.anchor_n}"
        said.append(f"the anchor {anchor} {where}")
    return said
