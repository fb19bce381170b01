"""The TensorRT engines of a bundle on disk: which there are, which are in use, and whether they fit.

    <bundle>.engines/            beside the bundle, which itself never changes
        current                    the name of the set in use; replaced in one step
        <key>-1/built.json         what the set was made from, size and SHA-256 of every plan
        <key>-1/decoder.1of2.plan  ...
        <key>.building/            a set under way; what is finished in it is kept
        timing.cache               measured kernels, kept for the next build
        lock                       held by whoever builds

The key is a hash over model, TensorRT, CUDA, L4T, compute capability, board, shapes and parts: a set under
another key is never loaded. `jetson/engines.py` writes all this; here it is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import BundleError, EngineError
from .profile_choice import FILE_NAME

SCHEMA = "orinspect.engines/1.0"
CURRENT, BUILT = "current", "built.json"
L4T_FILE = Path("/etc/nv_tegra_release")
BOARD_FILE = Path("/proc/device-tree/model")
BUILD_AGAIN = "run: orinspect engines build BUNDLE"


@dataclass(frozen=True)
class BoardFacts:
    """What a plan is bound to. `cuda`: of the driver, as 12.6; `l4t`: as 36.4.3, empty where it is no Jetson;
    `sm`: compute capability, as 8.7.
    """

    library: str
    tensorrt: str
    cuda: str
    l4t: str
    sm: str
    board: str = ""

    def differences(self, other: BoardFacts) -> list[str]:
        """`tensorrt 10.3.0 -> 10.16.1` for each fact that is not the same in `other`."""
        mine, others = dataclasses.asdict(self), dataclasses.asdict(other)
        return [f"{name} {mine[name]} -> {others[name]}" for name in mine if mine[name] != others[name]]


@dataclass(frozen=True)
class PlanFile:
    """One plan; `graph`: the ONNX file it was built from; `layers`: of the decoder, None elsewhere."""

    file: str
    graph: str
    bytes: int
    sha256: str
    layers: int | None = None


@dataclass(frozen=True)
class PlanSet:
    """A complete set of engines: component -> its plans in the order they run."""

    folder: Path
    key: str
    model: str
    facts: BoardFacts
    parts: int
    components: Mapping[str, tuple[PlanFile, ...]]

    @classmethod
    def read(cls, folder: Path) -> PlanSet:
        """The set in `folder`; EngineError when it is broken or not of this version."""
        place = folder / BUILT
        try:
            table = json.loads(place.read_text(encoding="utf-8"))
            if table["schema"] != SCHEMA:
                raise ValueError(f"schema {table['schema']!r}, expected {SCHEMA!r}")
            components = {
                name: tuple(PlanFile(**plan) for plan in plans) for name, plans in table["components"].items()
            }
            facts = BoardFacts(**table["facts"])
            found = cls(folder, table["key"], table["model"], facts, int(table["parts"]), components)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineError(f"{place} cannot be read ({error!r}); {BUILD_AGAIN}") from error
        for plan in (plan for plans in components.values() for plan in plans):
            path = folder / plan.file
            size = path.stat().st_size if path.is_file() else -1
            if size != plan.bytes:
                have = "missing" if size < 0 else f"{size} bytes, expected {plan.bytes}"
                raise EngineError(f"{path} is {have}; {BUILD_AGAIN}")
        return found

    def to_table(self) -> dict[str, Any]:
        """What `read` reads."""
        return {
            "schema": SCHEMA,
            "key": self.key,
            "model": self.model,
            "facts": dataclasses.asdict(self.facts),
            "parts": self.parts,
            "components": {
                name: [dataclasses.asdict(plan) for plan in plans] for name, plans in self.components.items()
            },
        }

    def plans(self, component: str) -> tuple[PlanFile, ...]:
        """The plans of one component; EngineError names those that there are."""
        if component not in self.components:
            known = ", ".join(self.components)
            raise EngineError(f"{self.folder} has no engine {component!r}, only {known}; {BUILD_AGAIN}")
        return self.components[component]

    def check(self, model: str, facts: BoardFacts) -> None:
        """EngineError unless the set was built from this model, on this board, with this software."""
        if self.model != model:
            raise EngineError(f"{self.folder} was built from another bundle; {BUILD_AGAIN}")
        changed = self.facts.differences(facts)
        if changed:
            raise EngineError(
                f"{self.folder} was built elsewhere or before an update ({', '.join(changed)}), and TensorRT "
                f"plans do not move; {BUILD_AGAIN}"
            )


def plans_folder(bundle: Path) -> Path:
    """The default place of a bundle's engines: beside the folder that the path leads to."""
    real = bundle.resolve()
    return real.with_name(f"{real.name}.engines")


def current_set(folder: Path) -> PlanSet:
    """The set in use; EngineError when there is none."""
    try:
        key = (folder / CURRENT).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EngineError(f"{folder} has no engines ({error.strerror}); {BUILD_AGAIN}") from error
    if not re.fullmatch(r"[0-9a-f]{16}-\d+", key):
        raise EngineError(f"{folder / CURRENT} holds {key!r}, which names no set; {BUILD_AGAIN}")
    return PlanSet.read(folder / key)


def model_hash(files: Mapping[str, Mapping[str, Any]]) -> str:
    """Hash over what the engines are made from, of the manifest's `files`: the TensorRT graphs, their weights
    and the profiles. A bundle with another prompt alone has the same.
    """
    made_from = {
        name: entry["sha256"]
        for name, entry in files.items()
        if ".tensorrt." in name or name.endswith(".weights") or name == FILE_NAME
    }
    if FILE_NAME not in made_from:
        raise BundleError(
            f"the bundle has no {FILE_NAME}: it was exported without TensorRT graphs; export it again with "
            "this version of orinspect"
        )
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()


def plan_key(model: str, facts: BoardFacts, parts: int) -> str:
    """16 signs that change when anything changes that a plan is bound to."""
    bound = {"model": model, "facts": dataclasses.asdict(facts), "parts": parts}
    return hashlib.sha256(json.dumps(bound, sort_keys=True).encode()).hexdigest()[:16]


def l4t_from_text(text: str) -> str:
    """`36.4.3` of the first line of /etc/nv_tegra_release, `# R36 (release), REVISION: 4.3, ...`."""
    found = re.match(r"#\s*R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text)
    return f"{found[1]}.{found[2]}" if found else ""


def l4t_of_this_board(place: Path = L4T_FILE) -> str:
    """The Jetson Linux release, empty where there is none."""
    try:
        return l4t_from_text(place.read_text(encoding="utf-8"))
    except OSError:
        return ""


def name_of_this_board(place: Path = BOARD_FILE) -> str:
    """As the device tree has it, `NVIDIA Jetson Orin Nano ...`; empty on any other machine."""
    try:
        return place.read_text(encoding="utf-8").strip("\0 \n")
    except OSError:
        return ""
