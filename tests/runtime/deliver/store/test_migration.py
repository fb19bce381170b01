"""A file that version 1 wrote (tests/golden/outbox-1.sqlite) becomes one of this version, or stays whole."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from orinspect.runtime.deliver.outbox import Outbox
from orinspect.runtime.deliver.store.schema import SCHEMA_VERSION, VERSIONS

VERSION_1 = Path(__file__).resolve().parents[3] / "golden" / "outbox-1.sqlite"
WAITING = ["r6", "r7", "r9", "r10", "r11"]


def _check(path: Path) -> None:
    """Everything that version 1 knew, and it works on."""
    with Outbox(path) as outbox:
        assert outbox.rescued == 0
        assert outbox.counts() == {"accepted": 2, "committed": 5, "published": 3, "acknowledged": 2}
        assert [row.result_id for row in outbox.waiting(9)] == WAITING
        assert [(row.result_id, row.sequence) for row in outbox.abandoned()] == [("r8", 8), ("r12", 4)]
        assert len(outbox.waiting(1)[0].payload) > 5000
        assert outbox.accept("r13", "boot-b", "cam", 13, "{}") == 5
        outbox.commit("r13", "{}")
        outbox.mark_published(*WAITING, "r13")
        assert outbox.counts()["published"] == 9
    with Outbox(path) as outbox:
        assert outbox.accept("r14", "boot-b", "cam", 14, "{}") == 6


def test_a_file_of_version_1_is_migrated_with_all_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    shutil.copy(VERSION_1, path)
    _check(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    connection.close()


_KILLED = """
import os, signal, sys
from pathlib import Path
from orinspect.runtime.deliver.store import schema
path, step = Path(sys.argv[1]), int(sys.argv[2])
def statements(whole):
    for number, statement in enumerate(whole):
        if number == step:
            os.kill(os.getpid(), signal.SIGKILL)
        yield statement
schema.VERSIONS[2] = statements(schema.VERSIONS[2])
connection = schema.open_database(path)
os.kill(os.getpid(), signal.SIGKILL)  # committed, and never closed
"""


def _killed(path: Path, step: int) -> None:
    shutil.copy(VERSION_1, path)
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path), str(step)], check=False)
    assert done.returncode == -9


@pytest.mark.parametrize("step", [0, 4, len(tuple(VERSIONS[2])) - 1])
def test_a_migration_that_is_killed_in_its_midst_begins_again(tmp_path: Path, step: int) -> None:
    _killed(tmp_path / "o.sqlite", step)
    _check(tmp_path / "o.sqlite")


@pytest.mark.slow
def test_a_power_cut_leaves_version_1_or_version_2_at_every_length_of_the_log(tmp_path: Path) -> None:
    """The log as it was after the commit, cut anywhere: what the disk had not taken yet is missing."""
    source = tmp_path / "source.sqlite"
    _killed(source, 99)
    log = Path(f"{source}-wal").read_bytes()
    assert len(log) > 5 * 4096
    for number, length in enumerate([0, 31, *range(32, len(log), 2999), len(log)]):
        path = tmp_path / f"{number}.sqlite"
        shutil.copy(source, path)
        Path(f"{path}-wal").write_bytes(log[:length])
        _check(path)
