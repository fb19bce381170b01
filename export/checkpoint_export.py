"""A checkpoint and recipes to a bundle: the order of the export; each step lives in a file of its own.

checkpoint, recipes -> what fits together         inputs.py
the stages below, one after the other             stages.py
checkpoint -> float graphs, embeddings            graph/
recipe     -> prompt ids, guide, prefix KV        prompt.py, recipe_compile.py
pictures   -> tiles, answers, feeds               calibration_feeds.py
feeds      -> how each linear runs                calibration/, block by block
choices    -> INT8 or float16 graphs              int8.py, tensorrt/
float and INT8 on pictures -> pass or fail        evaluation/gate/
the bundle on labelled pictures -> judgement.json judged.py
all of it  -> bundle                              golden.py, bundle.py

What takes long is kept in `<bundle>.work` part by part (work_folder.py): the same command goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..calibration.choice import LinearChoice
from ..calibration.ranges import Progress
from ..runtime.recipe import Recipe
from .bundle import bundle_folder
from .inputs import job_from_arguments
from .judged import write_judgement
from .stages import (
    answered_tiles,
    check_kept_float,
    measured_choices,
    move_graphs,
    pass_gate,
    prefixed,
    write_float_graphs,
    write_golden_frames,
    write_rest,
    write_rounded,
)
from .work_folder import WorkFolder


def export_checkpoint(
    checkpoint: str | Path,
    recipes: Sequence[str | Path | Recipe],
    calibration: str | Mapping[str, str],
    out: str | Path,
    *,
    precision: str = "int8",
    validation: str | Mapping[str, str] | None = None,
    keep_float: Sequence[str] = (),
    threads: int = 2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the bundle `out` and return its accuracy report as plain JSON values.

    `calibration` is a DeepPCB folder, a folder of pictures, or scenes:pcb?seed=...; it is not read for
    `float32`. `validation` is another such source for the gate; None takes parts of `calibration` that were
    not used. Both may map recipe ids to sources of their own. `keep_float` names linears. AccuracyError: INT8
    or float16 is below the recipe's limits. Other OrinspectErrors say what is wrong; `out` is then as it was,
    and long work is kept beside it.
    """
    started = time.monotonic()
    job = job_from_arguments(
        checkpoint, recipes, calibration, Path(out), precision, validation, keep_float, threads, progress
    )
    report: dict[str, Any] = {
        "precision": precision,
        "frame_difference": round(job.inputs.frame_difference, 4),
    }
    with WorkFolder(job.out, job.made_from) as work, bundle_folder(job.out) as folder:
        if work.is_resumed or work.has_dropped:
            kept = (
                "going on with the work kept there" if work.is_resumed else "work from other inputs dropped"
            )
            job.say(f"{work.path.name}: {kept}", 1, 1)
        files = write_float_graphs(job, work)
        check_kept_float(job, files)
        compiled = prefixed(job, files)
        choices: dict[str, tuple[LinearChoice, ...]] = {}
        if precision == "float32":
            move_graphs(files, folder, work)
        else:
            tiles = answered_tiles(job, compiled, files, work)
            if precision == "int8":
                choices, report["calibration"] = measured_choices(job, files, tiles, work)
            report |= write_rounded(job, files, compiled, choices, folder)
            report["golden"] = write_golden_frames(job, files, tiles, folder)
        write_rest(job, folder, files, compiled, report)
        if precision != "float32":
            report["gate"], rows = pass_gate(job, files, compiled, choices, folder)
            report["judgement"] = write_judgement(job, folder, rows)
        job.say("bundle", 1, 1)
    return report | {"bundle": str(out), "seconds": round(time.monotonic() - started, 1)}
