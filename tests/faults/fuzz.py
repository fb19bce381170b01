"""Fuzzing: valid documents, damaged in their structure, read by the code that the device reads them with.

No case may leave other than by a result or an OrinspectError, take over a second, or touch a file outside
its folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import cv2

from orinspect.examples.mes.contract import Contract, InvalidError
from orinspect.examples.mes.database import Database
from orinspect.examples.mes.store import Message, Store
from orinspect.runtime.capture.frame import Frame, camera_from_source, read_picture
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.config import CommandsConfig, load_config
from orinspect.runtime.deliver.ack import result_ids_from_ack
from orinspect.runtime.deliver.audit.chain import Link, line_from_record, verified
from orinspect.runtime.deliver.commands.request import ARGUMENTS, RefusedCommand, request_from_payload
from orinspect.runtime.deliver.commands.seal import Seal, SeenCommands, signature_of
from orinspect.runtime.infer.bundle import Bundle, manifest_digest, sha256_of_file
from orinspect.runtime.infer.guide import answer_from_text
from orinspect.runtime.infer.judgement import judgement_of
from orinspect.runtime.judge.assessment import Trigger
from orinspect.runtime.judge.scale import PixelScale, read_scale, scale_id, scale_problem
from orinspect.runtime.recipe import Recipe, load_recipe
from orinspect.tests.faults.means.boxed import failures_of_cases
from orinspect.tests.faults.means.campaign import Campaign, Tally
from orinspect.tests.faults.means.mutations import json_bytes, mutated_bytes, mutated_tree, toml_bytes
from orinspect.tests.faults.means.recorded import recorded_payload
from orinspect.tests.faults.means.service_table import service_table
from orinspect.tests.report_cases import SCHEMA, trigger
from orinspect.tests.small_bundle import RECIPE, write_small_bundle

CASES = 2_000
SECRET = b"fuzz" * 8
MOMENT_S = 1767225600.0  # 2026-01-01
SERVICE = service_table()
SOURCES = (
    "scenes:pcb?seed=1&fps=5&style=grey&parts=12&size_px=128", "scenes:metal?seed=1&surface=brushed&parts=3",
    "folder:pictures?template=a.png&fps=2&mm_per_px=0.02", "folder:pictures",
)  # fmt: skip
CONTRACT = Contract(SCHEMA.parent)
ENDINGS = (".png", ".jpg", ".bmp", ".tiff", ".webp")


@dataclass(frozen=True)
class Ground:
    """What every case may read: a valid bundle, pictures by ending, recipes as tables, a scale."""

    folder: Path
    bundle: Path
    manifest: bytes
    pictures: dict[str, bytes]
    recipes: tuple[dict[str, object], ...]
    scale: dict[str, object]


def prepare(folder: Path) -> Ground:
    """Write the valid documents."""
    bundle = write_small_bundle(folder).path
    shutil.rmtree(folder / "checkpoint")
    scene = pcb_scene(5, size_px=128)
    pictures = {ending: cv2.imencode(ending, scene.image)[1].tobytes() for ending in ENDINGS}
    (folder / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (folder / "pictures" / name).write_bytes(pictures[".png"])
    recipes = tuple(json.loads(load_recipe(path).to_json()) for path in sorted(RECIPE.parent.glob("*.toml")))
    plane = ((0.25, 0.0, 0.0), (0.0, 0.25, 0.0), (1e-6, 0.0, 1.0))
    scale = PixelScale(
        0.25, 0.001, homography=plane, calibrated_at="2026-01-01T00:00:00.000Z", picture_wh=(128, 128),
        expires_at="2027-01-01T00:00:00.000Z", camera_id="cam0",
    )  # fmt: skip
    return Ground(
        folder,
        bundle,
        (bundle / "manifest.json").read_bytes(),
        pictures,
        recipes,
        json.loads(scale.to_json()),
    )


def config_case(ground: Ground, random: Random) -> None:
    """service.toml or .json."""
    ending, write = random.choice(((".json", json_bytes), (".toml", toml_bytes)))
    path = ground.folder / f"service{ending}"
    path.write_bytes(write(mutated_tree(SERVICE, random), random))
    load_config(path)


def recipe_case(ground: Ground, random: Random) -> None:
    """recipe.toml, and recipe.json as it stands in a bundle."""
    tree = mutated_tree(random.choice(ground.recipes), random)
    if random.random() < 0.5:
        path = ground.folder / "recipe.toml"
        path.write_bytes(toml_bytes(tree, random))
        recipe = load_recipe(path)
    else:
        recipe = Recipe.from_json(json_bytes(tree, random).decode("utf-8", errors="replace"))
    assert Recipe.from_json(recipe.to_json()) == recipe, "it does not come back from its own JSON"


def bundle_case(ground: Ground, random: Random) -> None:
    """manifest.json, or another file of a bundle with the manifest made to fit."""
    place = ground.bundle
    manifest = json.loads(ground.manifest)
    changed: Path | None = None
    content = b""
    if random.random() < 0.5:
        manifest = mutated_tree(manifest, random)
    else:
        names = [name for name in manifest["files"] if not name.endswith((".onnx", ".data", ".weights"))]
        changed = place / random.choice(sorted(names))
        content = changed.read_bytes()
        if changed.suffix == ".json":
            changed.write_bytes(json_bytes(mutated_tree(json.loads(content), random), random))
        else:
            changed.write_bytes(mutated_bytes(content, random))
        entry = {"bytes": changed.stat().st_size, "sha256": sha256_of_file(changed)}
        manifest["files"][str(changed.relative_to(place))] = entry
    if isinstance(manifest, dict) and random.random() < 0.8:
        with contextlib.suppress(TypeError, ValueError):
            manifest["manifest_sha256"] = manifest_digest(manifest)
    try:
        (place / "manifest.json").write_bytes(json_bytes(manifest, random))
        bundle = Bundle.open(place)
        compiled = bundle.recipe()
        judgement_of(bundle, compiled.recipe.id)
        _ = bundle.components, bundle.dense_types, bundle.embeddings.shape, bundle.precision
    finally:
        (place / "manifest.json").write_bytes(ground.manifest)
        if changed is not None:
            changed.write_bytes(content)


def picture_case(ground: Ground, random: Random) -> None:
    """A picture's file."""
    ending = random.choice(ENDINGS)
    path = ground.folder / f"picture{random.choice(ENDINGS)}"
    path.write_bytes(mutated_bytes(ground.pictures[ending], random))
    picture = read_picture(path)
    Frame(picture, None, 1, 0.0, 0, "picture")


def scale_case(ground: Ground, random: Random) -> None:
    """A file of `orinspect calibrate scale`, its id made to fit or not."""
    tree = mutated_tree(ground.scale, random)
    if isinstance(tree, dict) and random.random() < 0.8:
        tree.pop("id", None)
        with contextlib.suppress(TypeError, ValueError):
            tree = {"id": scale_id(tree), **tree}
    path = ground.folder / "scale.json"
    path.write_bytes(json_bytes(tree, random))
    scale = read_scale(path)
    scale_problem(scale, unix_s=1.7e9, camera_id="cam0", picture_wh=(128, 128))
    scale.length_mm((1.0, 2.0), (30.0, 40.0))
    scale.mm_per_px_at(64.0, 64.0)


def trigger_case(ground: Ground, random: Random) -> None:
    """An accepted part as the outbox keeps it."""
    tree = mutated_tree(json.loads(trigger().to_json()), random)
    Trigger.from_json(json_bytes(tree, random).decode("utf-8", errors="replace"))


def answer_case(ground: Ground, random: Random) -> None:
    """What a model may write."""
    tree = mutated_tree([{"bbox_2d": [1, 2, 30, 40], "label": "open"}] * random.randrange(3), random)
    answer_from_text(json_bytes(tree, random).decode("utf-8", errors="replace"))


def source_case(ground: Ground, random: Random) -> None:
    """A camera's line of configuration; the camera is opened, no frame is taken."""
    text = mutated_bytes(random.choice(SOURCES).encode(), random).decode("utf-8", errors="replace")
    here = os.getcwd()
    os.chdir(ground.folder)
    try:
        with camera_from_source(text):
            pass
    finally:
        os.chdir(here)


def ack_case(ground: Ground, random: Random) -> None:
    """What the MES says on `ack`."""
    tree = {"schema": "orinspect.ack/1.0", "result_ids": ["r1", "r2"], "result_id": "r3"}
    result_ids_from_ack(json_bytes(mutated_tree(tree, random), random))


def command_case(ground: Ground, random: Random) -> None:
    """A command: obeyed once, and only when it was signed as it came."""
    name = random.choice(list(ARGUMENTS))
    arguments = dict.fromkeys(ARGUMENTS[name], "x")
    tree = {"id": "c-1", "issued_at": "2026-01-01T00:00:00Z", "arguments": arguments}
    tree = mutated_tree(tree, random) if random.random() < 0.8 else tree
    is_signed = random.random() < 0.5 and isinstance(tree, dict)
    if is_signed:
        with contextlib.suppress(TypeError, ValueError):
            tree["signature"] = signature_of(f"a/b/cmd/{name}", tree, SECRET)
    payload = json_bytes(tree, random)
    (ground.folder / "secret").write_bytes(SECRET + b"\n")
    config = CommandsConfig(tuple(ARGUMENTS), ground.folder / "secret", ())
    seen = ground.folder / "seen"
    seen.unlink(missing_ok=True)
    seal = Seal(config, SeenCommands(seen, 60.0))
    request = request_from_payload(name, payload, most_bytes=4096)
    seal.check(request, f"a/b/cmd/{name}", unix_s=MOMENT_S, is_synchronised=True)
    assert is_signed, f"a command without a signature was obeyed: {payload!r}"
    again = Seal(config, SeenCommands(seen, 60.0))
    with contextlib.suppress(RefusedCommand):
        again.check(request, f"a/b/cmd/{name}", unix_s=MOMENT_S, is_synchronised=True)
        raise AssertionError(f"a command was obeyed twice: {payload!r}")


def report_case(ground: Ground, random: Random) -> None:
    """What an MES gets on `result`: stored, or put aside with a sentence."""
    tree = json.loads(recorded_payload("019b7750-ce00-7000-8000-0000000000aa", 7, random))
    payload = json_bytes(mutated_tree(tree, random), random)
    with contextlib.suppress(InvalidError):
        CONTRACT.checked(payload)
    with Database(f"sqlite:{ground.folder / 'mes.sqlite'}", create=True) as database:
        (stored,) = Store(database, CONTRACT).take(
            [Message("a/b/result", payload, "2026-01-01T00:00:00.000Z")]
        )
        assert stored.outcome


def audit_case(ground: Ground, random: Random) -> None:
    """The chain of audit lines: what was changed breaks it, and is found."""
    lines, end = [], Link()
    for number in range(random.randrange(1, 6)):
        line, end = line_from_record({"n": number + 1, "event": "start", "facts": {"x": number}}, end)
        lines.append(line)
    whole = b"".join(lines)
    damaged = mutated_bytes(whole, random)
    if random.random() < 0.5:
        number = random.randrange(len(lines))
        tree = mutated_tree(json.loads(lines[number]), random)
        damaged = b"".join([*lines[:number], json_bytes(tree, random) + b"\n", *lines[number + 1 :]])
    path = ground.folder / "audit-000001.jsonl"
    path.write_bytes(damaged)
    verified([path], anchor=random.choice((None, end.hash, "x")))


TARGETS: dict[str, Callable[[Ground, Random], None]] = {
    "config": config_case, "recipe": recipe_case, "bundle": bundle_case, "picture": picture_case,
    "scale": scale_case, "trigger": trigger_case, "answer": answer_case, "source": source_case,
    "ack": ack_case, "command": command_case, "report": report_case, "audit": audit_case,
}  # fmt: skip


def run_fuzz(seed: int, folder: Path, cases: int = CASES) -> Tally:
    """`cases` cases, the targets in turns; each case has a seed of its own."""
    ground = prepare(folder)
    names = list(TARGETS)

    def case(number: int) -> tuple[str, Callable[[], None]]:
        name = names[number % len(names)]
        random = Random(f"fuzz {seed} {number}")
        return f"case {number} ({name})", lambda: TARGETS[name](ground, random)

    return Tally(cases, tuple(failures_of_cases([case(number) for number in range(cases)], folder)))


CAMPAIGN = Campaign(
    name="fuzz",
    promise="damaged documents and pictures: a result or one sentence, under 1 s, no file outside the folder",
    point="cases",
    target=100_000,
    run=run_fuzz,
)
