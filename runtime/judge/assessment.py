"""From what the engines found to the report: the one place where frame, inspection and verdict meet.

`orinspect run` and `orinspect inspect` both report through here, so that a picture inspected by hand and a
part on the line carry the same fields.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..capture.quality import Quality, picture_quality, within
from ..errors import DeliveryError
from ..infer.judgement import UNJUDGED, Judgement
from ..recipe import Recipe
from ..report import (
    BundleIdentity,
    ClockReading,
    Compliance,
    Identity,
    Image,
    Part,
    Report,
    TimingsMs,
    View,
    timestamp,
)
from ..tables import json_value
from .confidence import clean_confidence, review_reasons
from .disposition import Circumstances, verdict_from_findings
from .findings import Findings, findings_from_candidates, null_reasons_of
from .grade.compliance import Sized, compliance_of, compliance_of_unseen
from .sampling import is_sampled
from .scale import PixelScale
from .usable_scale import UsableScale, scale_in_report, scale_of

if TYPE_CHECKING:
    from ..capture.frame import Frame
    from ..infer.inspector import Inspection


@dataclass(frozen=True)
class Setup:
    """What is the same for every part until the service is started again.

    scale: the site's calibrated pixel scale, which goes before the recipe's and the frame's own; judgement:
    what the bundle knows of its confidences and of the pictures that it was certified on.
    """

    device_id: str
    station_id: str
    boot_id: str
    recipe: Recipe
    configuration: Identity
    bundle: BundleIdentity
    scale: PixelScale | None = None
    judgement: Judgement = UNJUDGED

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
        text = json.dumps(dataclasses.asdict(self), separators=(",", ":"), ensure_ascii=False)
        return text.encode(errors="replace").decode()  # half a character, as in a path, would end the line

    @classmethod
    def from_json(cls, text: str) -> Trigger:
        """The trigger that `to_json` wrote; DeliveryError on anything else."""
        try:
            table = json_value(text)
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
    clock: Callable[[], float] = time.perf_counter,
) -> Report:
    """The report of a part that was looked at: `failed`, for review, when its answer was cut or does not
    parse. `total_ms`: from the start of the inspection until here; `clock`: seconds, for what follows."""
    started = clock()
    height, width = frame.image.shape[:2]
    recipe, judgement = setup.recipe, setup.judgement
    usable = scale_of(frame, setup.scale, recipe, trigger.view.camera_id)
    findings = findings_from_candidates(
        inspection.defects,
        recipe,
        image=frame.image,
        template=frame.template,
        scale=usable.scale,
        judgement=judgement,
        why_no_scale=usable.why_not,
        clock=clock,
    )
    quality, poor = _quality(frame, setup)
    verdict = verdict_from_findings(
        findings.listed,
        recipe,
        _circumstances(trigger, inspection, setup, findings, usable, poor),
        _compliance(findings, recipe, usable),
    )
    decision = verdict.compliance.decision
    stages = {**inspection.timings_ms, "measure": findings.measure_ms}
    failed = inspection.failed is not None
    return Report(
        **_common(trigger, sequence, setup, created_at),
        result_state="failed" if failed else "completed",
        reason_code="failed.answer" if failed else None,
        result_evaluation=verdict.evaluation,
        disposition=verdict.disposition,
        is_partial=failed,
        image=Image(width, height, hashlib.sha256(frame.image.tobytes()).hexdigest()),
        scale=scale_in_report(usable),
        defects=verdict.defects,
        compliance={"conforms": True, "does_not_conform": False}.get(decision or ""),
        compliance_detail=verdict.compliance,
        confidence=verdict.confidence,
        review_reasons=verdict.review_reasons,
        review_details=(*poor, *((usable.why_not,) if usable.is_refused else ())),
        timings_ms=_timings(stages, capture_ms, total_ms + (clock() - started) * 1e3),
        passes=dataclasses.asdict(inspection.passes),
        quality=None if quality is None else dataclasses.asdict(quality),
        novelty=inspection.novelty,
        null_reasons=_null_reasons(inspection, findings, verdict.compliance, usable),
    )


def report_not_inspected(
    trigger: Trigger, sequence: int, setup: Setup, *, created_at: float, reason_code: str, why: str
) -> Report:
    """The report of a part that was accepted and never inspected (aborted) or whose engine failed."""
    failed = reason_code.startswith("failed.")
    unseen = reason_code.replace(".", "_")
    nulls = dict.fromkeys(("image", "timings_ms", "passes", "confidence", "quality", "novelty"), unseen)
    compliance = compliance_of_unseen(setup.recipe.compliance, why)
    if compliance.decision is not None:
        nulls["compliance"] = "not_decidable"
    return Report(
        **_common(trigger, sequence, setup, created_at),
        result_state="failed" if failed else "aborted",
        reason_code=reason_code,
        result_evaluation="not_decidable" if failed else "undefined",
        disposition="review",
        is_partial=failed,
        compliance_detail=compliance,
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


def _circumstances(
    trigger: Trigger,
    inspection: Inspection,
    setup: Setup,
    findings: Findings,
    usable: UsableScale,
    poor: tuple[str, ...],
) -> Circumstances:
    """What the rules want to know beside the findings."""
    recipe, sample = setup.recipe, setup.recipe.review.sample
    clean = clean_confidence(inspection.strongest_rejected, setup.judgement)
    unlike = review_reasons((), 1.0, recipe.thresholds.review_confidence, novelty=inspection.novelty)
    dropped = ("unusable_box",) if inspection.dropped else ()
    return Circumstances(
        clean=clean,
        failed=inspection.failed is not None,
        picture=(*unlike, *(("image_quality",) if poor else ())),
        unlisted=(*findings.unlisted, *dropped),
        is_scale_unusable=usable.is_refused,
        is_sampled=sample is not None
        and is_sampled(
            trigger.part.part_id or trigger.result_id,
            trigger.part.lot,
            lot_size=sample.lot_size,
            level=sample.level,
        ),
    )


def _compliance(findings: Findings, recipe: Recipe, usable: UsableScale) -> Compliance:
    sized = [Sized(each.defect_id, each.entry.type, each.measurement) for each in findings.listed]
    return compliance_of(recipe.compliance, sized, is_uncertainty_known=usable.is_spread_known)


def _quality(frame: Frame, setup: Setup) -> tuple[Quality | None, tuple[str, ...]]:
    """The picture in numbers, and which of them leave the range of the bundle and the recipe."""
    given = setup.recipe.quality
    if not given.enabled:
        return None, ()
    template = frame.template if setup.recipe.mode == "compare" else None
    quality = picture_quality(frame.image, template)
    certified = (setup.judgement.quality or {}).get("limits", {})
    limits = {**certified, **{name: dataclasses.asdict(band) for name, band in given.bands.items()}}
    return quality, within(quality, {"limits": limits})


def _null_reasons(
    inspection: Inspection,
    findings: Findings,
    compliance: Compliance,
    usable: UsableScale,
) -> dict[str, str]:
    """Why fields of this part are null, where the general reason does not fit."""
    nulls = null_reasons_of(findings.listed)
    if inspection.failed is not None:
        nulls |= {"confidence": "answer_failed", "reasoning": inspection.failed}
    if compliance.decision == "not_decidable":
        nulls["compliance"] = "not_decidable"
    if usable.is_refused:
        nulls["scale.mm_per_px"] = usable.why_not
    return nulls


def _timings(stages: dict[str, Any], capture_ms: float | None, total_ms: float) -> TimingsMs:
    """Stages rounded to a hundredth; a stage that did not run took 0 ms."""
    names = ("preprocess", "vision", "dense", "prefill", "decode")
    known = {name: round(float(stages.get(name, 0.0)), 2) for name in names}
    capture, measure = (
        None if value is None else round(value, 2) for value in (capture_ms, stages["measure"])
    )
    return TimingsMs(capture=capture, measure=measure, total=round(total_ms, 2), **known)
