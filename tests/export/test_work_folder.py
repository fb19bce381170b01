"""The work folder of an export: what it remembers, what it forgets, and whom it refuses."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orinspect.export.work_folder import STATE, WorkFolder
from orinspect.runtime.errors import BundleError


def broken_off(out: Path, made_from: dict[str, object], *parts: str) -> None:
    """An export that finishes `parts` and then fails."""

    def export() -> None:
        with WorkFolder(out, made_from) as work:
            for part in parts:
                (work.folder("graphs") / part).write_text(part)
                work.finish(part, {"name": part})
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        export()


def test_the_same_inputs_go_on_behind_the_last_part(tmp_path: Path) -> None:
    broken_off(tmp_path / "b", {"seed": 1}, "vision", "decoder")
    with WorkFolder(tmp_path / "b", {"seed": 1}) as work:
        assert work.is_resumed
        assert work.has("vision") and work.has("decoder") and not work.has("head")
        assert work.facts("decoder") == {"name": "decoder"}
        assert (work.folder("graphs") / "decoder").read_text() == "decoder"
    assert not list(tmp_path.iterdir())


def test_other_inputs_start_over(tmp_path: Path) -> None:
    broken_off(tmp_path / "b", {"seed": 1}, "vision")
    with WorkFolder(tmp_path / "b", {"seed": 2}) as work:
        assert not work.is_resumed and not work.has("vision")
        assert not list(work.folder("graphs").iterdir())


def test_parts_that_move_away_are_forgotten_first(tmp_path: Path) -> None:
    broken_off(tmp_path / "b", {"seed": 1}, "vision")

    def export() -> None:
        with WorkFolder(tmp_path / "b", {"seed": 1}) as work:
            work.forget()
            assert not (work.path / STATE).exists()  # also for a kill that comes now
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError):
        export()
    assert not list(tmp_path.iterdir())


def test_an_error_before_the_first_part_leaves_nothing(tmp_path: Path) -> None:
    broken_off(tmp_path / "b", {"seed": 1})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["", "{", '{"parts": {}}', "[]"])
def test_a_damaged_state_starts_over(tmp_path: Path, damage: str) -> None:
    broken_off(tmp_path / "b", {"seed": 1}, "vision")
    (tmp_path / "b.work" / STATE).write_text(damage)
    with WorkFolder(tmp_path / "b", {"seed": 1}) as work:
        assert not work.is_resumed


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "b.work").mkdir()
    (tmp_path / "b.work" / "thesis.tex").write_text("years")
    with pytest.raises(BundleError, match="no work folder"), WorkFolder(tmp_path / "b", {}):
        pass
    assert (tmp_path / "b.work" / "thesis.tex").read_text() == "years"


_KILLED = """
import os, signal, sys
from pathlib import Path
from orinspect.export.bundle import bundle_folder
from orinspect.export.work_folder import WorkFolder
out = Path(sys.argv[1])
with WorkFolder(out, {"seed": 1}) as work, bundle_folder(out) as folder:
    (folder / "decoder.weights").write_bytes(b"large")
    work.finish("vision")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_export_is_gone_on_with_and_holds_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(tmp_path / "b")]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    of_another = tmp_path / ".b.c.abcd1234.part"
    of_another.mkdir()
    assert len(list(tmp_path.glob("*.part"))) == 2
    with WorkFolder(tmp_path / "b", {"seed": 1}) as work:
        assert work.has("vision")
        assert list(tmp_path.glob("*.part")) == [of_another]


def test_two_exports_of_one_bundle_do_not_mix(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "b", {}) as work:
        work.finish("vision")
        with pytest.raises(BundleError, match="another export"), WorkFolder(tmp_path / "b", {}):
            pass
        assert work.path.exists()
