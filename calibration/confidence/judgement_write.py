"""Puts a section into a bundle's `judgement.json`: the whole bundle anew beside it, then swapped by rename.

The new folder shares every other file by hard link, so that gigabytes are neither copied nor touched, and a
service that runs from the old one keeps what it opened. Whatever goes wrong before the swap leaves the bundle
as it was; its manifest, and with it the bundle's id in reports, is another one afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...runtime.errors import BundleError, RecipeError
from ...runtime.infer.bundle import MANIFEST, Bundle, manifest_digest, sha256_of_file
from ...runtime.infer.judgement import JUDGEMENT, JudgementFile, judgement_file

SECTIONS = ("confidence", "novelty", "quality")


def write_section(bundle: Path, recipe_id: str, section: str, document: Mapping[str, Any]) -> None:
    """Replace one section of one recipe. BundleError when the folder is no bundle or the disk refuses,
    RecipeError for a recipe that it does not have, ValueError for another section.
    """
    write_sections(bundle, recipe_id, {section: document})


def write_sections(bundle: Path, recipe_id: str, sections: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace some sections of one recipe at once; the others stay. Errors as `write_section`."""
    unknown = set(sections).difference(SECTIONS)
    if unknown:
        raise ValueError(f"section is {min(unknown)!r}; judgement.json has {', '.join(SECTIONS)}")
    bundle = bundle.resolve()  # a link to a bundle stays one
    opened = Bundle.open(bundle, verify=False)
    if recipe_id not in opened.recipe_ids:
        raise RecipeError(
            f"bundle {bundle.name} has no recipe {recipe_id!r}; it has {', '.join(opened.recipe_ids)}"
        )
    recipes = judgement_file(opened).recipes
    changed = {**recipes, recipe_id: {**recipes.get(recipe_id, {}), **sections}}
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{bundle.name}.", suffix=".part", dir=bundle.parent))
        _linked(bundle, temporary)
        (temporary / JUDGEMENT).write_text(JudgementFile(changed).to_json(), encoding="utf-8")
        _write_manifest(temporary, opened.manifest)
        for place in (temporary / JUDGEMENT, temporary / MANIFEST, temporary):
            _sync(place)
        temporary.chmod(bundle.stat().st_mode & 0o777)
        _swap(temporary, bundle)
    except OSError as error:
        raise BundleError(
            f"{bundle} cannot be written anew ({error}); it is as it was, see to the disk"
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _linked(bundle: Path, folder: Path) -> None:
    """Every file but the two that change, as a link where the file system has them, else as a copy."""
    for path in sorted(bundle.rglob("*")):
        name = path.relative_to(bundle)
        if path.is_dir():
            (folder / name).mkdir(exist_ok=True)
        elif name.as_posix() not in (MANIFEST, JUDGEMENT):
            try:
                os.link(path, folder / name)
            except OSError:
                shutil.copy2(path, folder / name)


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    place = folder / JUDGEMENT
    entry = {"bytes": place.stat().st_size, "sha256": sha256_of_file(place)}
    files = {**manifest["files"], JUDGEMENT: entry}
    table: dict[str, Any] = {**manifest, "files": dict(sorted(files.items()))}
    table["manifest_sha256"] = manifest_digest(table)
    (folder / MANIFEST).write_text(json.dumps(table, indent=1), encoding="utf-8")


def _swap(temporary: Path, bundle: Path) -> None:
    """The new folder takes the bundle's name; the old one comes back when that fails."""
    aside = temporary.with_suffix(".old")
    os.rename(bundle, aside)
    try:
        os.rename(temporary, bundle)
    except BaseException:  # Ctrl-C too: for this moment there is no bundle
        os.rename(aside, bundle)
        raise
    _sync(bundle.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
