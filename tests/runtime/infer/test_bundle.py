"""Opening a bundle: what is read back, and every way in which a copy can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("tokenizers")

from orinspect.runtime.errors import BundleError, RecipeError
from orinspect.runtime.infer.bundle import Bundle, manifest_digest, sha256_of_file
from orinspect.runtime.infer.guide import answer_from_text, text_from_ids
from orinspect.tests.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("small")).path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def every_file(bundle: Path) -> list[str]:
    return sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file())


def change_manifest(bundle: Path, **entries: object) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8")) | entries
    manifest["manifest_sha256"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def test_a_bundle_gives_back_what_the_device_needs(written: Path) -> None:
    bundle = Bundle.open(written)
    compiled = bundle.recipe()
    assert bundle.recipe_ids == ("pcb-compare",)
    assert set(bundle.components) == {"vision", "attributes", "decoder", "head_schema.pcb-compare"}
    assert bundle.dense_types == compiled.recipe.types
    assert bundle.shape.tile_px == compiled.recipe.tiling.tile_px
    assert compiled.prefix_kv.shape == (
        bundle.shape.layers, 2, bundle.shape.kv_heads, len(compiled.prefix_ids), bundle.shape.head_dim,
    )  # fmt: skip
    assert compiled.next_position == len(compiled.prefix_ids)
    assert compiled.kept_ids.tolist() == sorted(compiled.vocabulary)
    assert bundle.embeddings.shape == (bundle.shape.vocab, bundle.shape.hidden)
    assert isinstance(bundle.embeddings.base, np.memmap) or isinstance(bundle.embeddings, np.memmap)
    assert bundle.graph("decoder").is_file()
    assert bundle.id == bundle.sha256[:16]


def test_the_vocabulary_of_a_bundle_writes_an_answer(written: Path) -> None:
    compiled = Bundle.open(written).recipe()
    guide, ids, state = compiled.guide, [], compiled.guide.start
    while state != guide.terminal:  # always the last edge: it opens the list and names the last label
        token, state = list(guide.states[state].items())[-1]
        ids.append(token)
    answer = answer_from_text(text_from_ids(ids, compiled.vocabulary))
    assert answer and answer[0]["label"] in compiled.recipe.types


def test_a_cut_file_is_refused_by_its_name(written: Path, tmp_path: Path) -> None:
    for name in every_file(written):
        broken = Path(shutil.copytree(written, tmp_path / "broken"))
        data = (broken / name).read_bytes()
        (broken / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(BundleError, match=Path(name).name.replace(".", r"\.")) as caught:
            Bundle.open(broken, verify=False)
        assert "\n" not in str(caught.value)
        shutil.rmtree(broken)


def test_one_changed_byte_is_refused_by_its_file(written: Path, tmp_path: Path) -> None:
    for name in every_file(written):
        broken = Path(shutil.copytree(written, tmp_path / "broken"))
        data = bytearray((broken / name).read_bytes())
        data[len(data) // 2] ^= 1
        (broken / name).write_bytes(bytes(data))
        with pytest.raises(BundleError, match=Path(name).name.replace(".", r"\.")):
            Bundle.open(broken)
        shutil.rmtree(broken)


def test_a_missing_file_is_named(written: Path, tmp_path: Path) -> None:
    for name in every_file(written):
        broken = Path(shutil.copytree(written, tmp_path / "broken"))
        (broken / name).unlink()
        with pytest.raises(BundleError, match=Path(name).name.replace(".", r"\.")):
            Bundle.open(broken, verify=False)
        shutil.rmtree(broken)


def test_a_folder_or_a_file_that_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        Bundle.open(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"not a bundle: it has no manifest\.json"):
        Bundle.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"schema": "webapp/3"}', encoding="utf-8")
    with pytest.raises(BundleError, match="its schema is 'webapp/3'"):
        Bundle.open(tmp_path)


def test_a_newer_major_version_is_refused_and_a_newer_minor_one_read(copy: Path) -> None:
    change_manifest(copy, schema="orinspect.bundle/2.0")
    with pytest.raises(BundleError, match=r"orinspect\.bundle/2\.0.*update orinspect"):
        Bundle.open(copy)
    change_manifest(copy, schema="orinspect.bundle/1.7", added_later=True)
    assert Bundle.open(copy).recipe_ids == ("pcb-compare",)


@pytest.mark.parametrize("schema", ["orinspect.bundle/", "orinspect.bundle/one", "orinspect.bundle/10.0"])
def test_a_schema_that_only_looks_alike_is_refused(copy: Path, schema: str) -> None:
    change_manifest(copy, schema=schema)
    with pytest.raises(BundleError, match="schema"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_manifest_cannot_name_files_outside(copy: Path, name: str) -> None:
    files = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["files"]
    change_manifest(copy, files=files | {name: {"bytes": 1, "sha256": "0"}})
    with pytest.raises(BundleError, match="outside the bundle"):
        Bundle.open(copy)


@pytest.mark.parametrize("key", ["files", "model", "recipes", "precision"])
def test_a_manifest_without_an_entry_is_refused(copy: Path, key: str) -> None:
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest[key]
    manifest["manifest_sha256"] = manifest_digest(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BundleError, match=key):
        Bundle.open(copy)


@pytest.mark.parametrize("entry", [None, [], 5, {"bytes": "9", "sha256": "x"}, {"bytes": 9}])
def test_a_file_listed_without_its_size_and_hash_is_refused_by_its_name(copy: Path, entry: object) -> None:
    change_manifest(copy, files={"vision.onnx": entry})
    with pytest.raises(BundleError, match=r"lists 'vision.onnx' with"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocabulary.json", b'{"5": []}'),
        ("recipes/pcb-compare/prefix_kv.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'(\n\n"),
        ("recipes/pcb-compare/prefix_kv.npy", b""),
        ("recipes/pcb-compare/prompt.json", b"[" * 100_000),
        ("recipes/pcb-compare/guide.json", b"[" * 100_000),
        ("recipes/pcb-compare/recipe.json", b"[" * 100_000),
    ],
)
def test_a_file_whose_hash_fits_and_whose_content_does_not_is_refused(
    copy: Path, name: str, content: bytes
) -> None:
    (copy / name).write_bytes(content)
    files = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["files"]
    files[name] = {"bytes": len(content), "sha256": sha256_of_file(copy / name)}
    change_manifest(copy, files=files)
    with pytest.raises((BundleError, RecipeError)):
        Bundle.open(copy).recipe()


def test_a_name_that_no_file_can_have_is_a_missing_file(copy: Path) -> None:
    change_manifest(copy, files={"x" * 5000: {"bytes": 1, "sha256": "0"}})
    with pytest.raises(BundleError, match="missing"):
        Bundle.open(copy)


@pytest.mark.parametrize("entries", [{"recipes": [["x"]]}, {"recipes": ["../x"]}, {"dense_types": 5}])
def test_a_list_of_something_else_than_names_is_refused(copy: Path, entries: dict[str, object]) -> None:
    change_manifest(copy, **entries)
    with pytest.raises(BundleError, match=next(iter(entries)).rstrip("s")):
        Bundle.open(copy)


def test_what_a_bundle_does_not_hold_is_named_with_what_it_holds(written: Path) -> None:
    bundle = Bundle.open(written)
    with pytest.raises(RecipeError, match=r"no recipe 'metal'; it has pcb-compare"):
        bundle.recipe("metal")
    with pytest.raises(BundleError, match=r"no graph 'head_full'; it has attributes"):
        bundle.graph("head_full")


def test_a_pickle_is_never_loaded(copy: Path) -> None:
    path = copy / "embeddings.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    files = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["files"]
    entry = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    change_manifest(copy, files=files | {"embeddings.npy": entry})
    bundle = Bundle.open(copy)
    with pytest.raises(BundleError, match=r"embeddings\.npy is not an array"):
        _ = bundle.embeddings


def test_a_bundle_of_one_picture_from_before_there_were_several_still_opens(copy: Path) -> None:
    path = copy / "recipes" / "pcb-compare" / "prompt.json"
    prompt = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(prompt | {"between_ids": [1020, 1019]}), encoding="utf-8")
    files = json.loads((copy / "manifest.json").read_text(encoding="utf-8"))["files"]
    files["recipes/pcb-compare/prompt.json"] = {
        "bytes": path.stat().st_size,
        "sha256": sha256_of_file(path),
    }
    change_manifest(copy, files=files)
    assert Bundle.open(copy).recipe().between_ids == ()
