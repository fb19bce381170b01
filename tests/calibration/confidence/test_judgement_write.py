"""A section is written whole or not at all, and everything else of the bundle stays what it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from orinspect.calibration.confidence.judgement_write import write_section, write_sections
from orinspect.runtime.errors import BundleError, RecipeError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.judgement import JUDGEMENT, judgement_file
from orinspect.tests.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("written")).path


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "bundle"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_sections_are_added_and_replaced_one_by_one(bundle: Path) -> None:
    recipe = Bundle.open(bundle).recipe_ids[0]
    before, identity = files_of(bundle), Bundle.open(bundle).id
    write_section(bundle, recipe, "quality", {"limits": 1})
    write_sections(bundle, recipe, {"confidence": {"a": 1}, "novelty": {"b": 2}})
    write_section(bundle, recipe, "quality", {"limits": 2})
    opened = Bundle.open(bundle)
    expected = {"quality": {"limits": 2}, "confidence": {"a": 1}, "novelty": {"b": 2}}
    assert judgement_file(opened).recipes == {recipe: expected}
    assert opened.id != identity
    after = files_of(bundle)
    assert set(after) - set(before) == {JUDGEMENT}
    assert [name for name in before if after[name] != before[name]] == ["manifest.json"]
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_link_to_a_bundle_stays_one(bundle: Path) -> None:
    """A site switches bundles by a link `current`; the bundle behind it is what changes."""
    link = bundle.parent / "current"
    link.symlink_to(bundle)
    before = Bundle.open(bundle).id
    write_section(link, Bundle.open(bundle).recipe_ids[0], "quality", {"limits": 1})
    assert link.is_symlink() and Bundle.open(bundle).id == Bundle.open(link).id != before
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle", "current"]


def test_large_files_are_shared_not_copied(bundle: Path) -> None:
    weights = next(bundle.glob("*.onnx"))
    place = weights.stat().st_ino
    write_section(bundle, Bundle.open(bundle).recipe_ids[0], "quality", {})
    assert weights.stat().st_ino == place


def test_a_file_system_without_links_gets_copies(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(source: object, target: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuses)
    before = files_of(bundle)
    write_section(bundle, Bundle.open(bundle).recipe_ids[0], "quality", {})
    after = files_of(bundle)
    assert all(after[name] == text for name, text in before.items() if name != "manifest.json")


@pytest.mark.parametrize("failing", [1, 2])
def test_a_disk_that_refuses_the_swap_leaves_the_bundle_as_it_was(
    bundle: Path, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, calls = files_of(bundle), os.rename, [0]

    def rename(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == failing:
            raise OSError("read-only file system")
        real(source, target)

    recipe = Bundle.open(bundle).recipe_ids[0]
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(BundleError, match="it is as it was"):
        write_section(bundle, recipe, "quality", {})
    assert files_of(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_what_is_not_there_is_refused(bundle: Path, tmp_path: Path) -> None:
    before = files_of(bundle)
    with pytest.raises(RecipeError, match="no recipe 'other'"):
        write_section(bundle, "other", "quality", {})
    with pytest.raises(ValueError, match="'mood'"):
        write_section(bundle, Bundle.open(bundle).recipe_ids[0], "mood", {})
    with pytest.raises(BundleError, match="no such folder"):
        write_section(tmp_path / "nowhere", "r", "quality", {})
    assert files_of(bundle) == before


def test_a_key_pressed_in_the_midst_of_the_swap_leaves_the_bundle_in_its_place(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real, calls = files_of(bundle), os.rename, [0]

    def rename(source: Path, target: Path) -> None:
        calls[0] += 1
        if calls[0] == 2:
            raise KeyboardInterrupt
        real(source, target)

    recipe = Bundle.open(bundle).recipe_ids[0]
    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        write_section(bundle, recipe, "quality", {})
    assert files_of(bundle) == before
