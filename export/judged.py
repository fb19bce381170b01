"""The stage after the gate: what the bundle's confidences are worth, from the labelled pictures of the gate.

The gate's pictures are none that anybody scores on. Without labels among them only the novelty is known; a
later `orinspect calibrate confidence` replaces both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..evaluation.gate.pictures import GateRows
from ..evaluation.labelled.confidence import sections_from_rows
from ..runtime.infer.bundle import Bundle
from ..runtime.infer.judgement import JUDGEMENT, JudgementFile
from .bundle import write_manifest
from .inputs import Job


def write_judgement(job: Job, folder: Path, rows: Mapping[str, GateRows]) -> dict[str, Any]:
    """judgement.json of the bundle in `folder`, from the rows of each recipe, and its report in the manifest.

    The report: recipe -> what its confidences rest on, with ECE before and after on pictures held out.
    """
    bundle = Bundle.open(folder, verify=False)
    sections = {}
    for recipe_id, own in rows.items():
        sections[recipe_id] = sections_from_rows(
            bundle,
            recipe_id,
            (*own.calibration, *own.validation),
            own.validation_source,
            threads=job.threads,
            progress=lambda done, total, what: job.say(f"confidence: {what}", done, total),
        )
    (folder / JUDGEMENT).write_text(JudgementFile(sections).to_json(), encoding="utf-8")
    report = {recipe_id: one["confidence"]["report"] for recipe_id, one in sections.items()}
    write_manifest(folder, {**bundle.manifest, "judgement": report})
    return report
