"""What a reader may count on: one page a function, one subject a file, few files a room, no machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("runtime", "jetson", "calibration", "evaluation", "export")
FILES = sorted(p for room in ROOMS for p in (ROOT / room).rglob("*.py"))
FOLDERS = sorted({p.parent for room in (*ROOMS, "examples") for p in (ROOT / room).rglob("*.py")})
MOST_FILES = 12

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:work|root|home|farm|tmp)/\w")


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_one_subject(path: Path) -> None:
    assert path.stem not in NAMES_THAT_SAY_NOTHING
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    long = [
        f"{node.name}: {length} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 60
    ]
    assert not long


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_room_has_at_most_twelve_files(folder: Path) -> None:
    """Design, section 1, rule 5: `__init__.py` and the folders inside do not count, tables do."""
    files = sorted(p.name for p in folder.iterdir() if p.is_file() and p.name != "__init__.py")
    assert len(files) <= MOST_FILES, f"{len(files)} files, merge what is one subject: {', '.join(files)}"


def test_no_tracked_text_names_a_place_on_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    wrong = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > 1_000_000 or path == Path(__file__):
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        wrong += [f"{name}:{number}" for number, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert not wrong
