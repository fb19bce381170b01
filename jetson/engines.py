"""`orinspect engines build|verify`: a bundle's TensorRT engines, made on the device that will run them.

Every plan is built in a child process of its own, from file, after a look at the memory that is free. A set
of plans is complete before anything points to it, is held against the golden frames, and only then replaces
the set in use, in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..runtime.errors import EngineError
from ..runtime.infer.bundle import Bundle, sha256_of_file
from ..runtime.infer.engines.plans import (
    BUILD_AGAIN,
    BoardFacts,
    PlanFile,
    PlanSet,
    current_set,
    model_hash,
    plan_key,
    plans_folder,
)
from ..runtime.infer.engines.tensorrt_builder import BuiltPlan, PlanOrder
from .board import BoardMemory, memory_of_this_board
from .checks import check_library, counts_table, facts_in_child, plan_in_child, report_in_child
from .child import run_in_child
from .fit import WORKSPACE_BYTES
from .layers import int8_counts, layers_from_text
from .plan_store import (
    BUILDING,
    TIMING,
    activate,
    altered_plan,
    building_folder,
    complete,
    finished_plan,
    only_builder,
    record_plan,
    set_in_use,
)
from .plan_work import PlanWork, check_disk, check_memory, plan_works

Say = Callable[[str], None]


def build_engines(
    bundle_path: Path,
    folder: Path | None = None,
    *,
    parts: int = 1,
    library: str = "tensorrt",
    compute_capability: str | None = None,
    memory: Callable[[], BoardMemory] = memory_of_this_board,
    say: Say = print,
) -> dict[str, Any]:
    """Build what is missing of a bundle's engines, verify it, put it in use; what was done, as a table.

    `folder`: where engines stand, None for the default beside the bundle; `parts`: of the decoder. With
    `compute_capability` it is a trial on a machine without that GPU: built and counted, never put in use.
    EngineError when memory or disk do not suffice, a build fails, or a golden frame does not come out right;
    the engines in use before then stay in use.
    """
    check_library(library, compute_capability)
    bundle = Bundle.open(bundle_path)
    folder = folder or plans_folder(bundle.path)
    works = plan_works(bundle, parts)
    facts: BoardFacts = run_in_child(
        facts_in_child, library, compute_capability, heard=_unheard, what=f"the look at {library}"
    )
    model = model_hash(bundle.manifest["files"])
    key = plan_key(model, facts, parts)
    in_use = set_in_use(folder, key)
    if in_use is not None and compute_capability is None:
        say(f"the engines in {in_use.folder} are up to date; remove that folder to build them anew")
        return _table(in_use, built=0, in_use=True)
    missing = [work for work in works if finished_plan(folder / f"{key}{BUILDING}", work.plan) is None]
    check_memory(missing, memory())
    with only_builder(folder):
        place = building_folder(folder, key)
        check_disk(missing, place)
        empty = PlanSet(place, key, model, facts, parts, {})
        made, counts, built = _built_set(bundle, works, empty, folder, compute_capability, memory, say)
        if compute_capability is not None:
            return _table(made, built=built, in_use=False) | {"int8": counts}
        report = _verified(bundle.path, made, say)
        if report["wrong"]:
            raise EngineError(
                f"the new engines are not put in use: {'; '.join(report['wrong'])}; those in use before stay."
                f" Remove {place} and {folder / TIMING} to build them from the start; if it stays so report "
                "this, and until then use the backend onnxruntime, or export with --precision float16"
            )
        return _table(activate(folder, made), built=built, in_use=True) | report


def verify_engines(bundle_path: Path, folder: Path | None = None, *, say: Say = print) -> dict[str, Any]:
    """Hold the engines in use against their hashes, the golden frames and the list of INT8 linears.

    The table has `wrong` (sentences, empty when all is well), `golden`, and `int8`: plan -> profile -> how
    many linears run in INT8 and the names of those that TensorRT runs in float. EngineError when there are no
    engines, or they were altered or do not load here.
    """
    bundle = Bundle.open(bundle_path)
    chosen = current_set(folder or plans_folder(bundle.path))
    altered = altered_plan(chosen)
    if altered is not None:
        raise EngineError(f"{altered} was altered: its SHA-256 is another; {BUILD_AGAIN}")
    return _table(chosen, built=0, in_use=True) | _verified(bundle.path, chosen, say)


def report_text(table: dict[str, Any]) -> str:
    """The table of `build_engines` and `verify_engines` for a terminal."""
    lines = [f"engines: {table['folder']}"]
    lines += [f"  {name}: {size / 1e6:.1f} MB" for name, size in table["plans"].items()]
    for plan, profiles in table.get("int8", {}).items():
        for profile, count in profiles.items():
            lines.append(f"  {plan}, {profile}: {count['int8']} of {count['intended']} linears in INT8")
            lines += [f"    in float: {name}" for name in count["in_float"]]
    if "golden" in table:
        frames, out = table["golden"]["frames"], table["golden"]["out_of_tolerance"]
        lines.append(f"golden frames: {frames}, outputs out of tolerance: {len(out)}")
        lines += [f"  {sentence}" for sentence in out]
        if not frames:
            lines.append("  the bundle has none: that these engines are right was not checked")
    if not table["in_use"]:
        lines.append("a trial: not put in use")
    return "\n".join(lines)


def _built_set(
    bundle: Bundle,
    works: tuple[PlanWork, ...],
    empty: PlanSet,
    folder: Path,
    compute_capability: str | None,
    memory: Callable[[], BoardMemory],
    say: Say,
) -> tuple[PlanSet, dict[str, Any], int]:
    """All plans of a set, missing ones built now; the set, the counts of a trial, and how many were built."""
    plans: dict[str, list[PlanFile]] = {}
    counts: dict[str, Any] = {}
    built = 0
    for number, work in enumerate(works, 1):
        plan = finished_plan(empty.folder, work.plan)
        if plan is None:
            say(f"{number}/{len(works)} {work.plan}")
            check_memory([work], memory())  # the board may have become busy since
            order = PlanOrder(
                empty.facts.library,
                bundle.path / work.graph,
                empty.folder / work.plan,
                work.component.profiles(None, work.layers),
                folder / TIMING if compute_capability is None else None,
                WORKSPACE_BYTES,
                compute_capability,
            )
            done: BuiltPlan = run_in_child(
                plan_in_child, order, heard=_progress(say), what=f"the build of {work.plan}"
            )
            plan = PlanFile(work.plan, work.graph, done.bytes, sha256_of_file(order.plan), work.layers)
            record_plan(empty.folder, plan)
            built += 1
            if done.layers and work.int8_linears:
                names = [profile.name for profile in order.profiles]
                found = int8_counts(layers_from_text(done.layers), names, work.int8_linears)
                counts[work.plan] = counts_table(found)
        plans.setdefault(work.component.name, []).append(plan)
    components = {name: tuple(rows) for name, rows in plans.items()}
    made = PlanSet(empty.folder, empty.key, empty.model, empty.facts, empty.parts, components)
    complete(made)
    return made, counts, built


def _verified(bundle: Path, plans: PlanSet, say: Say) -> dict[str, Any]:
    report: dict[str, Any] = run_in_child(
        report_in_child, bundle, plans.folder, heard=say, what="the check of the engines"
    )
    return report


def _table(plans: PlanSet, *, built: int, in_use: bool) -> dict[str, Any]:
    return {
        "folder": str(plans.folder),
        "key": plans.key,
        "facts": asdict(plans.facts),
        "parts": plans.parts,
        "plans": {plan.file: plan.bytes for rows in plans.components.values() for plan in rows},
        "built": built,
        "in_use": in_use,
        "wrong": [],
    }


def _progress(say: Say) -> Callable[..., None]:
    def heard(phase: str, step: int, steps: int) -> None:
        say(f"    {phase} {step}/{steps}" if steps else f"    {phase}")

    return heard


def _unheard(*_: object) -> None:
    """The look at the board tells nothing on its way."""
