"""What pip installs: the wheel's contents, the lean install on the Pythons of JetPack 6 and 7, any clone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROOMS = ("runtime", "jetson", "calibration", "evaluation", "export")

# The import names of what `pip install orinspect` brings; paho-mqtt is paho, opencv-python-headless is cv2.
LEAN = {"orinspect", "numpy", "cv2", "paho", "tomli"}

TINY_TEST = """
from orinspect.runtime.errors import OrinspectError, UsageError
import orinspect, pathlib, sys


def test_the_clone_is_what_was_imported():
    here = pathlib.Path(__file__).resolve().parents[1]
    assert pathlib.Path(orinspect.__file__).resolve() == here / "__init__.py"
    assert issubclass(UsageError, OrinspectError)
    assert "runtime.errors" not in sys.modules
"""

IMPORT_SERVICE = """
import json, sys
before = set(sys.modules)
import orinspect.runtime.service
loaded = {name.split(".")[0] for name in set(sys.modules) - before - {"__mp_main__"}}
# zoneinfo reads how its Python was built: that module is the standard library's, and not in its list of names
loaded = {name for name in loaded if not name.startswith("_sysconfigdata_")}
print(json.dumps(sorted(loaded - sys.stdlib_module_names)))
"""


def _run(command: Sequence[str | Path], cwd: Path) -> str:
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _copy_of_checkout(target: Path) -> Path:
    """The files that git knows or would add, so that no build litter reaches this checkout."""
    listed = _run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], ROOT)
    for name in filter(None, listed.split("\0")):
        source = ROOT / name
        if source.is_file() and source.stat().st_size < 2_000_000:  # weights are not packaged
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target / name)
    return target


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = _copy_of_checkout(tmp_path_factory.mktemp("checkout") / "x-1")
    dist = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    _run([*pip, "--wheel-dir", dist, source], dist)
    (built,) = dist.glob("*.whl")
    return built


def test_the_wheel_is_pure_python(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")


def test_the_wheel_holds_every_room_and_the_schemas(wheel: Path) -> None:
    """Packages are listed by hand in pyproject.toml: one not listed would be missing on the device."""
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = {p for room in ROOMS for p in (ROOT / room).rglob("*") if p.suffix in (".py", ".json", ".yaml")}
    names = {f"orinspect/{p.relative_to(ROOT).as_posix()}" for p in wanted if "__pycache__" not in p.parts}
    assert names | {"orinspect/__init__.py", "orinspect/cli.py", "orinspect/py.typed"} <= held


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    held = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[1] for name in held if name.startswith("orinspect/")}
    assert tops == {*ROOMS, "__init__.py", "cli.py", "py.typed"}
    assert all(name.startswith(("orinspect/", "orinspect-")) for name in held)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.12"])
def test_a_lean_install_loads_only_the_lean_list(version: str, wheel: Path, tmp_path: Path) -> None:
    """`pip install .` without extras on the Python of a JetPack, then the service: nothing heavy comes."""
    find = subprocess.run([ROOT / ".ci/find-python", version], capture_output=True, text=True, check=False)
    if find.returncode != 0:
        pytest.skip(f"no Python {version} with venv on this machine")
    _run([find.stdout.strip(), "-m", "venv", tmp_path / "venv"], tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], tmp_path)
    assert set(json.loads(_run([python, "-c", IMPORT_SERVICE], tmp_path))) <= LEAN
    assert "usage: orinspect" in _run([tmp_path / "venv" / "bin" / "orinspect", "--help"], tmp_path)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The checkout in a folder that is no Python name, its tests replaced by one; conftest.py stays."""
    folder = _copy_of_checkout(tmp_path / "x-1")
    shutil.rmtree(folder / "tests")
    (folder / "tests").mkdir()
    for name in ("conftest.py", "programs.py", "rtsp_streams.py"):  # conftest asks the other two
        shutil.copy2(ROOT / "tests" / name, folder / "tests")
    (folder / "tests" / "test_tiny.py").write_text(TINY_TEST, encoding="utf-8")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "orinspect").symlink_to(folder, target_is_directory=True)
    return folder


def _pytest(clone: Path) -> subprocess.CompletedProcess[str]:
    start = "import sys, pytest; sys.path.insert(0, sys.argv.pop(1)); sys.exit(pytest.main())"
    command = [sys.executable, "-c", start, str(clone.parent / "site"), "-q", "-p", "no:cacheprovider"]
    return subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)


def test_a_clone_in_a_folder_that_is_no_python_name_runs_tests(clone: Path) -> None:
    """Relative imports and importlib mode: neither the folder's name nor its place matters."""
    done = _pytest(clone)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_file_under_two_module_names_fails_the_run(clone: Path) -> None:
    """Otherwise `except OrinspectError` would miss the other copy of the class, and nobody would know why."""
    double = "import sys\n\n\ndef test_double():\n    sys.path.insert(0, '.')\n    import runtime.errors\n"
    (clone / "tests" / "test_double.py").write_text(double, encoding="utf-8")
    done = _pytest(clone)
    assert done.returncode == 1, done.stdout
    assert "runtime/errors.py is loaded under two names" in done.stdout
