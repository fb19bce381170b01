"""A missing program skips a test with its reason, and fails it where ORINSPECT_REQUIRE names the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orinspect.tests.programs import PROBES, lack_of, required_from

ROOT = Path(__file__).resolve().parents[2]
ONE_LACKS = """
import pytest
from orinspect.tests import programs
programs.PROBES.update(there=lambda: None, absent=lambda: "absent is not installed")


@pytest.fixture
def costly():
    raise AssertionError("a fixture of a test that cannot run")


@pytest.mark.requires("there", "absent")
def test_by_mark(costly): ...


def test_in_the_middle():
    programs.require("there")
    programs.require("absent")
    raise AssertionError("unreachable")


@pytest.mark.requires("there")
def test_that_runs(): ...
"""


def _run(folder: Path, required: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_lacking.py").write_text(ONE_LACKS)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "--color=no"]
    command += ["-p", "no:cacheprovider", "-p", "orinspect.tests.conftest", str(folder / "test_lacking.py")]
    environment = {**os.environ, "ORINSPECT_REQUIRE": required}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def test_elsewhere_the_summary_says_what_did_not_run(tmp_path: Path) -> None:
    done = _run(tmp_path, "")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 2 skipped" in done.stdout
    assert "absent is not installed" in done.stdout.partition("short test summary")[2]


def test_where_it_is_required_the_run_fails(tmp_path: Path) -> None:
    done = _run(tmp_path, "all")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 1 passed, 1 error" in done.stdout  # the mark fails before the test begins
    assert "absent is not installed, and ORINSPECT_REQUIRE says" in done.stdout


def test_a_requirement_that_nobody_knows_is_wrong_usage(tmp_path: Path) -> None:
    done = _run(tmp_path, "mosqitto")
    assert done.returncode == 4
    assert "ORINSPECT_REQUIRE names mosqitto; known are all, mosquitto" in done.stderr


@pytest.mark.parametrize(
    ("text", "names"), [("", set()), (" mosquitto, ", {"mosquitto"}), ("all", set(PROBES))]
)
def test_the_variable_is_a_list_of_names(text: str, names: set[str]) -> None:
    assert required_from({"ORINSPECT_REQUIRE": text}) == names


def test_a_mark_that_nobody_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="no program 'mosqitto'"):
        lack_of("mosqitto")
