"""Writing a bundle: whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orinspect.export.bundle import bundle_folder, write_manifest, write_vocabulary
from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.bundle import manifest_digest, sha256_of_file


def fill(folder: Path, text: str = "one") -> None:
    (folder / "recipes" / "r").mkdir(parents=True)
    (folder / "recipes" / "r" / "recipe.json").write_text(text, encoding="utf-8")
    write_manifest(folder, {"precision": "float32", "pair": (1, 2)})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_finished_bundle_stands_under_its_name_alone(tmp_path: Path) -> None:
    with bundle_folder(tmp_path / "b") as folder:
        assert folder.parent == tmp_path
        fill(folder)
        assert not (tmp_path / "b").exists()
    assert names(tmp_path) == ["b"]
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text(encoding="utf-8"))
    entry = manifest["files"]["recipes/r/recipe.json"]
    assert entry == {"bytes": 3, "sha256": sha256_of_file(tmp_path / "b" / "recipes" / "r" / "recipe.json")}
    assert manifest["schema"] == "orinspect.bundle/1.0"
    assert manifest["manifest_sha256"] == manifest_digest(manifest)


def test_every_file_and_folder_is_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, rename = os.fsync, os.rename

    def recorded_fsync(handle: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        fsync(handle)

    def recorded_rename(source: Path, target: Path) -> None:
        seen.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "rename", recorded_rename)
    with bundle_folder(tmp_path / "b") as folder:
        fill(folder)
        temporary = folder.name
    before, after = seen[: seen.index("rename")], seen[seen.index("rename") :]
    assert set(before) == {"recipe.json", "r", "recipes", "manifest.json", temporary}
    assert after == ["rename", tmp_path.name]


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_an_error_while_filling_leaves_nothing(tmp_path: Path, stop: type[BaseException]) -> None:
    def broken() -> None:
        with bundle_folder(tmp_path / "b") as folder:
            fill(folder)
            raise stop

    with pytest.raises(stop):
        broken()
    assert names(tmp_path) == []


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with bundle_folder(tmp_path / "b") as folder:
        fill(folder, "old")
    real_rename = os.rename

    def full(*arguments: object) -> None:
        # the old bundle may step aside and come back; only the new one's rename fails
        if call == "rename" and not str(arguments[0]).endswith(".part"):
            real_rename(*arguments)  # type: ignore[arg-type]
            return
        raise OSError(errno.ENOSPC, "No space left on device")

    def broken() -> None:
        with bundle_folder(tmp_path / "b") as folder:
            fill(folder, "new")
            monkeypatch.setattr(os, call, full)

    with pytest.raises(BundleError, match=r"/b cannot be written .*No space"):
        broken()
    monkeypatch.undo()
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "recipes" / "r" / "recipe.json").read_text(encoding="utf-8") == "old"


def test_a_bundle_is_replaced_by_the_next_one(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with bundle_folder(tmp_path / "b") as folder:
            fill(folder, text)
    assert names(tmp_path) == ["b"]
    assert (tmp_path / "b" / "recipes" / "r" / "recipe.json").read_text(encoding="utf-8") == "new"


def test_somebodys_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    (tmp_path / "text").write_bytes(b"x")
    for name in ("photos", "text"):
        with pytest.raises(BundleError, match="exists and is not a bundle"), bundle_folder(tmp_path / name):
            pass
    assert names(tmp_path) == ["photos", "text"]
    assert (tmp_path / "photos" / "one.jpg").read_bytes() == b"x"


def test_a_file_in_the_way_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(BundleError, match="cannot be written"), bundle_folder(tmp_path / "file" / "b"):
        pass
    assert names(tmp_path) == ["file"]


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with bundle_folder(tmp_path / "b") as folder:
        fill(folder)
    assert (tmp_path / "b" / "manifest.json").is_file()


def test_kill_while_writing_leaves_no_bundle_under_its_name(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from orinspect.export.bundle import bundle_folder, write_manifest\n"
        f"with bundle_folder({str(tmp_path / 'b')!r}) as folder:\n"
        "    write_manifest(folder, {})\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdin is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdin.close()
    child.stdout.close()
    assert not (tmp_path / "b").exists()


def test_the_vocabulary_keeps_every_byte(tmp_path: Path) -> None:
    everything = {number: bytes([number, 255 - number]) for number in range(256)}
    write_vocabulary(tmp_path, everything)
    table = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert {int(key): text.encode("latin-1") for key, text in table.items()} == everything
