"""The rooms of the design: who may import whom, who owns each heavy library, what a bare import loads."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

# room -> the other rooms it may import (design, section 1, rules 1 and 2)
MAY_IMPORT = {
    "runtime": {"runtime"},
    "jetson": {"jetson", "runtime"},
    "calibration": {"calibration", "runtime"},
    "evaluation": {"evaluation", "calibration", "runtime"},
    "export": {"export", "evaluation", "calibration", "runtime"},
}
# Inside the runtime, from left to right: a room imports the rooms before it, and the files that all share.
RUNTIME_ROOMS = ("capture", "infer", "judge", "deliver", "line")
RUNTIME_SHARED = {"report", "recipe", "errors", "config", "limits", "tables", "tolerance", "bell", "uuid7"}

# room -> libraries that its files may import beside the standard library
LIBRARIES = {
    "runtime": {"numpy", "cv2", "paho", "onnxruntime", "tensorrt", "pycuda", "cuda", "tomllib", "tomli"}
    | {"gpiod", "gi", "pylibdmtx"},
    "jetson": set(),
    "calibration": {"numpy", "cv2", "onnxruntime", "onnx"},
    "evaluation": {"numpy", "cv2", "onnxruntime", "rich", "jsonschema", "amqtt"},
    "export": {"numpy", "cv2", "onnx", "onnxruntime", "safetensors", "tokenizers", "rich"},
}
# A peer may be measured against: the one file outside tests/ and examples/ that may know torch.
PEER_FILE, PEERS = "evaluation/bench.py", {"torch", "transformers"}

# library -> the only files of the five rooms that import it (rule 4)
OWNERS = {
    "tensorrt": {"runtime/infer/engines/tensorrt_engine.py"},
    "pycuda": {"runtime/infer/engines/cuda.py"},
    "cuda": {"runtime/infer/engines/cuda.py"},
    "onnxruntime": {"runtime/infer/engines/onnxruntime_engine.py", "calibration/sessions.py"},
    "gpiod": {"runtime/capture/triggers/gpio.py"},
    "paho": {"runtime/deliver/mqtt.py"},
    "sqlite3": {
        "runtime/deliver/outbox.py",
        *(f"runtime/deliver/store/{name}.py" for name in ("file", "schema", "rescue", "intake", "tally")),
        "runtime/deliver/statistics/counters.py",
        "runtime/deliver/statistics/figures.py",
    },
    "gi": {"runtime/capture/devices/gstreamer.py"},
    "pylibdmtx": {"runtime/capture/part_id.py"},
}


class Import(NamedTuple):
    """One import statement: `target` is dotted, and below `orinspect` when `is_own`."""

    target: str
    is_own: bool
    place: str


def _files(*rooms: str) -> list[Path]:
    return [path for room in rooms for path in sorted((ROOT / room).rglob("*.py"))]


def _is_module(dotted: str) -> bool:
    place = ROOT.joinpath(*dotted.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


@cache
def _imports(path: Path) -> tuple[Import, ...]:
    """Every import statement of a file, inside functions too; relative ones are resolved."""
    return tuple(_read_imports(path))


def _read_imports(path: Path) -> Iterator[Import]:
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - (node.level - 1)]
            start = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:  # `from . import tiles` names a module, `from .tiles import x` not
                inner = f"{start}.{alias.name}".lstrip(".")
                yield Import(inner if _is_module(inner) else start, True, where)
            continue
        else:
            continue
        for name in names:
            is_own = name.split(".")[0] == "orinspect"
            yield Import(name.partition(".")[2] if is_own else name, is_own, where)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_the_rooms_it_may(room: str) -> None:
    wrong = [
        f"{found.place} imports {found.target or 'the package itself'}"
        for path in _files(room)
        for found in _imports(path)
        if found.is_own and found.target and found.target.split(".")[0] not in MAY_IMPORT[room]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", RUNTIME_ROOMS)
def test_a_runtime_room_never_imports_a_room_to_its_right(room: str) -> None:
    allowed = RUNTIME_SHARED | set(RUNTIME_ROOMS[: RUNTIME_ROOMS.index(room) + 1])
    wrong = [
        f"{found.place} imports {found.target}"
        for path in _files(f"runtime/{room}")
        for found in _imports(path)
        if found.is_own and found.target.split(".")[1:2] not in [[name] for name in allowed]
    ]
    assert not wrong, "\n".join(wrong)


def test_service_alone_joins_the_runtime_rooms() -> None:
    """With the room `line`, right of all others.

    Shared files (report, recipe, errors, config) stand left of every room and import none of them.
    """
    wrong = [
        f"{found.place} imports {found.target}"
        for path in sorted((ROOT / "runtime").glob("*.py"))
        if path.name != "service.py"
        for found in _imports(path)
        if found.is_own and found.target.split(".")[1:2] and found.target.split(".")[1] in RUNTIME_ROOMS
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", LIBRARIES)
def test_a_room_imports_only_its_libraries(room: str) -> None:
    wrong = []
    for path in _files(room):
        extra = PEERS if str(path.relative_to(ROOT)) == PEER_FILE else set()
        for found in _imports(path):
            top = found.target.split(".")[0]
            if not found.is_own and top not in sys.stdlib_module_names | LIBRARIES[room] | extra:
                wrong.append(f"{found.place} imports {found.target}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("library", OWNERS)
def test_a_heavy_library_has_one_owner(library: str) -> None:
    owners = {
        found.place.split(":")[0]
        for path in _files(*MAY_IMPORT)
        for found in _imports(path)
        if not found.is_own and found.target.split(".")[0] == library
    }
    assert owners <= OWNERS[library], f"{library} is imported by {sorted(owners)}"


def test_the_video_capture_of_opencv_has_one_owner() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in _files(*MAY_IMPORT)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "VideoCapture"
    }
    assert len(users) <= 1, users
    assert all(user.startswith("runtime/capture/") for user in users), users


def test_the_command_line_is_composition_only() -> None:
    """cli.py may know every room, but only inside its functions: `--help` loads no library."""
    path = ROOT / "cli.py"
    source = path.read_text(encoding="utf-8")
    assert len(source.splitlines()) < 250
    for node in ast.parse(source).body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            own = isinstance(node, ast.ImportFrom) and node.level > 0
            assert own or (module or "").split(".")[0] in sys.stdlib_module_names, ast.unparse(node)
            assert not own or module in (None, "runtime.errors"), ast.unparse(node)


_LOADED = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before - {"__mp_main__"}})))
"""


def _loaded_by(*names: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after these imports, the standard library left out."""
    command = [sys.executable, "-c", _LOADED, *names]
    out = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.anchor)
    assert out.returncode == 0, out.stderr
    known = set(sys.stdlib_module_names) | {"orinspect"}
    # the standard library's own note of how this Python was built (zoneinfo reads it) has a name of its own
    return {name for name in json.loads(out.stdout) if not name.startswith("_sysconfigdata")} - known


@pytest.mark.parametrize("name", ["orinspect.cli", "orinspect.runtime.errors", "orinspect.runtime.recipe"])
def test_a_fresh_interpreter_needs_nothing_installed_for(name: str) -> None:
    assert not _loaded_by(name)


def test_the_whole_runtime_loads_the_lean_list_only() -> None:
    """Engines are chosen while running: all of the device but their owner files needs numpy, cv2 and paho."""
    engines = OWNERS["onnxruntime"] | OWNERS["tensorrt"] | OWNERS["cuda"]
    names = [
        ".".join(("orinspect", *path.relative_to(ROOT).with_suffix("").parts))
        for path in _files("runtime")
        if path.name not in ("__init__.py", "__main__.py") and str(path.relative_to(ROOT)) not in engines
    ]
    assert _loaded_by(*names) <= {"numpy", "cv2", "paho"}
