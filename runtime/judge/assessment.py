"""From what the engines found to the report: the one place where frame, inspection and verdict meet.

`orinspect run` and `orinspect inspect` both report through here, so that a picture inspected by hand and a
part on the line carry the same fields.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import DeliveryError
from ..recipe import Recipe
from ..report import (
    BundleIdentity,
    ClockReading,
    Identity,
    Image,
    Part,
    Report,
    ReportScale,
    TimingsMs,
    View,
    timestamp,
)
from .disposition import verdict_from_candidates

if TYPE_CHECKING:
    from ..capture.frame import Frame
    from ..infer.inspector import Inspection


@dataclass(frozen=True)
class Setup:
    """What is the same for every part until the service is started again."""

    device_id: str
    station_id: str
    boot_id: str
    recipe: Recipe
    configuration: Identity
    bundle: BundleIdentity

    @property
    def recipe_identity(self) -> Identity:
        """The recipe as the report names it."""
        return Identity(self.recipe.id, self.recipe.version, self.recipe.sha256)


@dataclass(frozen=True)
class Trigger:
    """A part that was accepted: all that a report needs when the part could not be inspected."""

    result_id: str
    boot_id: str
    source: str
    source_sequence: int
    part: Part
    view: View
    captured_at: str
    clock: ClockReading
    is_simulated: bool

    def to_json(self) -> str:
        """One line of JSON, for the outbox."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Trigger:
        """The trigger that `to_json` wrote; DeliveryError on anything else."""
        try:
            table = json.loads(text)
            parts = {"part": Part(**table["part"]), "view": View(**table["view"])}
            return cls(**{**table, **parts, "clock": ClockReading(**table["clock"])})
        except (TypeError, ValueError, KeyError) as error:
            raise DeliveryError(f"a trigger in the outbox cannot be read ({error}): {text[:80]!r}") from error


def trigger_from_frame(
    frame: Frame, setup: Setup, *, result_id: str, part: Part, view: View, clock: ClockReading
) -> Trigger:
    """Accept a frame under an id that its report will keep, whatever happens in between."""
    return Trigger(
        result_id=result_id,
        boot_id=setup.boot_id,
        source=frame.source,
        source_sequence=frame.sequence,
        part=part,
        view=view,
        captured_at=timestamp(frame.captured_at),
        clock=clock,
        is_simulated=frame.is_simulated,
    )


def report_from_inspection(
    trigger: Trigger,
    sequence: int,
    frame: Frame,
    inspection: Inspection,
    setup: Setup,
    *,
    created_at: float,
    capture_ms: float | None,
    total_ms: float,
) -> Report:
    """The report of a part that was looked at: `failed`, for review, when its answer was cut or does not
    parse."""
    height, width = frame.image.shape[:2]
    recipe = setup.recipe
    verdict = verdict_from_candidates(
        inspection.defects,
        recipe,
        width=width,
        height=height,
        failed=inspection.failed is not None,
        dropped=len(inspection.dropped),
        strongest_rejected=inspection.strongest_rejected,
    )
    nulls: dict[str, str] = {}
    if inspection.failed is not None:
        nulls = {"confidence": "answer_failed", "reasoning": inspection.failed}
    elif verdict.confidence is None:
        nulls = {"confidence": "no_defect_listed"}
    return Report(
        **_common(trigger, sequence, setup, created_at),
        result_state="failed" if inspection.failed is not None else "completed",
        reason_code="failed.answer" if inspection.failed is not None else None,
        result_evaluation=verdict.evaluation,
        disposition=verdict.disposition,
        is_partial=inspection.failed is not None,
        image=Image(width, height, hashlib.sha256(frame.image.tobytes()).hexdigest()),
        scale=ReportScale(recipe.scale.mm_per_px or frame.mm_per_px),
        defects=verdict.defects,
        confidence=verdict.confidence,
        review_reasons=verdict.review_reasons,
        timings_ms=_timings(inspection.timings_ms, capture_ms, total_ms),
        passes=dataclasses.asdict(inspection.passes),
        null_reasons=nulls,
    )


def report_not_inspected(
    trigger: Trigger, sequence: int, setup: Setup, *, created_at: float, reason_code: str, why: str
) -> Report:
    """The report of a part that was accepted and never inspected (aborted) or whose engine failed."""
    failed = reason_code.startswith("failed.")
    unseen = reason_code.replace(".", "_")
    nulls = dict.fromkeys(("image", "timings_ms", "passes", "confidence"), unseen)
    return Report(
        **_common(trigger, sequence, setup, created_at),
        result_state="failed" if failed else "aborted",
        reason_code=reason_code,
        result_evaluation="not_decidable" if failed else "undefined",
        disposition="review",
        is_partial=failed,
        review_reasons=("engine_failed" if failed else "not_inspected",),
        null_reasons={**nulls, "reasoning": why},
    )


def _common(trigger: Trigger, sequence: int, setup: Setup, created_at: float) -> dict[str, Any]:
    """The fields that every report takes from its trigger and the setup."""
    return {
        "result_id": trigger.result_id,
        "root_result_id": trigger.result_id,
        "meas_id": f"{trigger.view.camera_id}/{trigger.boot_id}/{sequence}",
        "created_at": timestamp(created_at),
        "device_id": setup.device_id,
        "station_id": setup.station_id,
        "boot_id": trigger.boot_id,
        "sequence": sequence,
        "is_simulated": trigger.is_simulated,
        "part": trigger.part,
        "view": trigger.view,
        "recipe": setup.recipe_identity,
        "configuration": setup.configuration,
        "bundle": setup.bundle,
        "captured_at": trigger.captured_at,
        "clock": trigger.clock,
    }


def _timings(stages: dict[str, float], capture_ms: float | None, total_ms: float) -> TimingsMs:
    """Stages rounded to a hundredth; a stage that did not run took 0 ms."""
    names = ("preprocess", "vision", "dense", "prefill", "decode")
    known = {name: round(float(stages.get(name, 0.0)), 2) for name in names}
    capture = None if capture_ms is None else round(capture_ms, 2)
    return TimingsMs(capture=capture, measure=None, total=round(total_ms, 2), **known)
