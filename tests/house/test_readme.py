"""The README cannot drift: its commands exist, its paths exist, its table of extras is the real one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from orinspect.cli import _parser

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL_LINES = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip() and not line.startswith("#")
]


def test_the_shell_lines_are_found() -> None:
    assert len(SHELL_LINES) >= 7


@pytest.mark.parametrize("line", [line for line in SHELL_LINES if line.startswith("orinspect ")])
def test_a_command_is_accepted_as_it_stands(line: str) -> None:
    assert callable(_parser().parse_args(shlex.split(line)[1:]).run)


def test_every_make_target_it_names_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(makefile.partition(".PHONY: ")[2].splitlines()[0].split())
    in_text = {word for code in re.findall(r"`make ([a-z -]+)`", README) for word in code.split()}
    in_blocks = {line.split()[1] for line in SHELL_LINES if line.startswith("make ")}
    assert in_text | in_blocks <= targets


def test_the_two_commands_come_first() -> None:
    assert [line.split()[:2] for line in SHELL_LINES[:2]] == [["make", "demo"], ["make", "test"]]


def test_the_map_names_folders_that_exist() -> None:
    (block,) = re.findall(r"^```\n(cli\.py.*?)^```", README, re.DOTALL | re.M)
    room = ROOT
    for line in block.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        if indent == 0:
            assert (ROOT / name).exists(), name
            room = ROOT / name
        elif indent == 2 and name.endswith("/"):
            assert (room / name).exists(), f"{room.name}/{name}"


def test_the_extras_it_lists_are_those_of_the_package() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    assert set(re.findall(r"^(\w+) = \[", table, re.M)) == set(re.findall(r"`\.\[(\w+)\]`", README))
