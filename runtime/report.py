"""The report of one inspected part: what the MES receives, `orinspect.report/1.0`.

`runtime/schema/report-1.0.json` is its JSON Schema, `docs/opc-mapping.md` maps it to OPC 40100-1. A field is
never absent: what is unknown is null, and `null_reasons` says why for every null, by its path.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

SCHEMA = "orinspect.report/1.0"

ResultState = Literal["completed", "aborted", "failed"]
Evaluation = Literal["undefined", "ok", "not_ok", "not_decidable"]
Disposition = Literal["pass", "reject", "review"]
Conformity = Literal["conforms", "does_not_conform", "not_decidable"]

# OPC 40001-101, ResultMetaDataType.ResultState and ResultEvaluationEnum.
RESULT_STATE_CODES: dict[ResultState, int] = {"completed": 1, "aborted": 3, "failed": 4}
EVALUATION_CODES: dict[Evaluation, int] = {"undefined": 0, "ok": 1, "not_ok": 2, "not_decidable": 3}

REVIEW_REASONS = (
    # a defect is less certain than the recipe's review_confidence and no other one decides; or none is
    # reported and it is not certain enough that there is none
    "low_confidence",
    "low_type_margin",  # an unsure defect whose type barely leads another
    "box_unstable",  # an unsure defect whose box moves when the tile is looked at again
    "detectors_disagree",  # an unsure defect on which dense head and words do not agree
    "at_tile_edge",  # an unsure defect that ends where its tile ends
    "unlike_training",  # the picture is farther from the training pictures than the bundle's limit
    "scale_uncertain",  # a size decides the severity, and it is unknown or its uncertainty spans a limit
    "compliance_undecided",  # the recipe names a standard, and compliance is neither shown nor disproved
    "image_quality",  # light, blur, glare or noise outside the certified range
    "minor_defect",  # minor defects only, and the recipe sends such parts to a person
    "unknown_type",  # a defect of a type that the recipe does not name
    "unusable_box",  # the answer named a defect but its box is empty or outside the picture
    "answer_failed",  # the answer was cut or does not parse
    "engine_failed",  # an inference engine failed on this part
    "not_inspected",  # the part was accepted but never inspected
    "sampled",  # a confident pass, drawn for the sample of the lot that a person sees
)
REASON_CODES = (
    "failed.answer",  # the answer was cut or does not parse
    "failed.engine",  # an inference engine failed
    "not_inspected.restart",  # the service stopped between accepting the part and its report
    "not_inspected.picture",  # the picture could not be used
    "not_inspected.no_picture",  # the camera gave none in time
    "not_inspected.frozen",  # the very content of the picture before
    "not_inspected.stale",  # its time stands still, runs backwards, or is too long ago
    "not_inspected.black",
    "not_inspected.saturated",
    "not_inspected.blurred",
    "not_inspected.moved",  # the view lies beside the reference picture
    "not_inspected.overrun",  # too many accepted parts were waiting already
    "not_inspected.paused",  # the station was paused
    "not_inspected.fault",  # the station may not inspect: its golden frames failed
)

# Why a field is null when nothing more precise was said; paths as in `null_reasons`.
DEFAULT_NULL_REASONS = {
    "reason_code": "result_completed",
    "supersedes": "first_revision",
    "part.part_id": "not_identified",
    "part.job_id": "not_configured",
    "part.lot": "not_configured",
    "part.trigger_id": "free_run",
    "configuration.version": "not_configured",
    "image": "not_inspected",
    "image.evidence": "not_stored",
    "scale.mm_per_px": "not_calibrated",
    "scale.expanded_uncertainty": "not_calibrated",
    "scale.k": "not_calibrated",
    "scale.calibration_id": "not_calibrated",
    "scale.calibrated_at": "not_calibrated",
    "scale.expires_at": "not_calibrated",
    "defects[].size_mm": "not_measured",
    "defects[].size_mm.length": "not_measured",
    "defects[].size_mm.width": "not_measured",
    "defects[].size_mm.area_mm2": "not_measured",
    "defects[].measures.*": "not_measured",
    "defects[].measures.*.expanded_uncertainty": "no_budget_for_this_measure",
    "defects[].raw_confidence": "not_estimated",
    "defects[].reason": "none_given",
    "defects[].confidence": "not_estimated",
    "compliance": "no_standard_in_recipe",
    "compliance_detail.standard": "no_standard_in_recipe",
    "compliance_detail.rule": "no_standard_in_recipe",
    "compliance_detail.decision": "no_standard_in_recipe",
    "compliance_detail.grade": "no_standard_in_recipe",
    "compliance_detail.nominal_mm": "no_standard_in_recipe",
    "compliance_detail.compared": "nothing_to_compare",
    "compliance_detail.compared.lower_mm": "upper_limit_only",
    "confidence": "not_inspected",
    "reasoning": "no_free_text_in_recipe",
    "timings_ms": "not_inspected",
    "timings_ms.capture": "not_measured",
    "timings_ms.measure": "no_measurement",
    "passes": "not_inspected",
    "energy_j": "no_power_meter",
    "quality": "not_measured",
    "quality.*": "not_measurable_on_this_picture",
    "novelty": "not_in_bundle",
}


@dataclass(frozen=True)
class Part:
    """The part in front of the camera, as far as the plant told us."""

    part_id: str | None
    product_id: str
    job_id: str | None = None
    lot: str | None = None
    trigger_id: str | None = None


@dataclass(frozen=True)
class View:
    """Which of a part's pictures this is: number `index` (from 0) of `count`, taken by `camera_id`."""

    camera_id: str
    index: int = 0
    count: int = 1


@dataclass(frozen=True)
class Identity:
    """A recipe or configuration, by name, version and content."""

    id: str
    version: str | None
    sha256: str


@dataclass(frozen=True)
class BundleIdentity:
    """The engines that looked: bundle, its manifest's hash, precision and backend."""

    id: str
    sha256: str
    precision: str
    backend: str


@dataclass(frozen=True)
class ClockReading:
    """How far `captured_at` can be trusted; `monotonic_ns` orders captures within one boot."""

    source: str
    synchronised: bool
    monotonic_ns: int


@dataclass(frozen=True)
class Image:
    """The inspected picture; `sha256` is over its pixel bytes, `evidence` says where it is stored."""

    width: int
    height: int
    sha256: str
    evidence: str | None = None


@dataclass(frozen=True)
class ReportScale:
    """Millimetres per pixel at the picture's centre with its expanded uncertainty (coverage factor `k`)."""

    mm_per_px: float | None
    expanded_uncertainty: float | None = None
    k: float | None = None
    calibration_id: str | None = None
    calibrated_at: str | None = None
    expires_at: str | None = None


@dataclass(frozen=True)
class Quantity:
    """A measured value with its expanded uncertainty."""

    value: float
    expanded_uncertainty: float
    k: float = 2


@dataclass(frozen=True)
class SizeMm:
    """A defect's extents: length and width in mm, area in mm2."""

    length: Quantity | None
    width: Quantity | None
    area_mm2: Quantity | None


@dataclass(frozen=True)
class Measure:
    """One measured dimension: a number, or three of them for a colour, in `unit`.

    `expanded_uncertainty` is U = k u after JCGM 100 in the same unit; None where no budget is kept.
    """

    value: float | tuple[float, ...]
    unit: str
    expanded_uncertainty: float | None = None
    k: float = 2


@dataclass(frozen=True)
class Defect:
    """One defect; `bbox` is (x1, y1, x2, y2) in pixels of the picture, x2 and y2 exclusive.

    severity: ignore, minor, major or critical; `severity_reason` says which limit decided. confidence:
    calibrated where the bundle holds a calibration, else equal to `raw_confidence`. `measures`: the
    dimensions of docs/measure.md by name; `notes`: what a reader of the sizes must know.
    """

    defect_id: str
    defect_code: str
    type: str
    bbox: tuple[float, float, float, float]
    severity: str
    confidence: float | None
    detector: str
    reason: str | None = None
    size_mm: SizeMm | None = None
    attributes: dict[str, str | float | bool] = field(default_factory=dict)
    severity_reason: str = "type_default"
    raw_confidence: float | None = None
    measures: dict[str, Measure | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    review_reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Compared:
    """The measured value that decided compliance, and the limits that it was held against.

    `lower_mm` is None where only an upper limit exists; `uncertainty_ratio`: expanded uncertainty over the
    width of the tolerance.
    """

    defect_id: str
    quantity: str
    value_mm: float
    expanded_uncertainty_mm: float
    lower_mm: float | None
    upper_mm: float
    uncertainty_ratio: float


@dataclass(frozen=True)
class Compliance:
    """Which rule of which standard decided `compliance`, or why nothing did; `why` holds the numbers."""

    standard: str | None = None
    rule: str | None = None
    why: str = "no_standard_in_recipe"
    decision: Conformity | None = None
    grade: str | None = None
    nominal_mm: float | None = None
    compared: Compared | None = None


@dataclass(frozen=True)
class TimingsMs:
    """Milliseconds by stage. `capture`: from exposure to the start of the inspection, waiting included;
    `total`: from the start of the inspection to the verdict."""

    capture: float | None
    preprocess: float
    vision: float
    dense: float
    prefill: float
    decode: float
    measure: float | None
    total: float


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the MES learns about one part; field for field the JSON that is published."""

    result_id: str
    meas_id: str
    created_at: str
    device_id: str
    station_id: str
    boot_id: str
    sequence: int
    result_state: ResultState
    reason_code: str | None
    result_evaluation: Evaluation
    disposition: Disposition
    is_simulated: bool
    is_partial: bool = False
    revision: int = 0
    root_result_id: str
    supersedes: str | None = None
    part: Part
    view: View
    recipe: Identity
    configuration: Identity
    bundle: BundleIdentity
    captured_at: str
    clock: ClockReading
    image: Image | None = None
    scale: ReportScale = field(default_factory=lambda: ReportScale(None))
    defects: tuple[Defect, ...] = ()
    relations: tuple[dict[str, Any], ...] = ()
    compliance: bool | None = None
    compliance_detail: Compliance = field(default_factory=Compliance)
    confidence: float | None = None
    review_reasons: tuple[str, ...] = ()
    reasoning: str | None = None
    timings_ms: TimingsMs | None = None
    passes: dict[str, int] | None = None
    energy_j: float | None = None
    quality: dict[str, float | None] | None = None
    novelty: float | None = None
    review_details: tuple[str, ...] = ()
    null_reasons: dict[str, str] = field(default_factory=dict)

    def to_table(self) -> dict[str, Any]:
        """The report as plain dicts and lists, codes and null reasons filled in."""
        table: dict[str, Any] = {"schema": SCHEMA}
        for name, value in dataclasses.asdict(self).items():
            table[name] = value
            if name == "result_state":
                table["result_state_code"] = RESULT_STATE_CODES[self.result_state]
            elif name == "result_evaluation":
                table["result_evaluation_code"] = EVALUATION_CODES[self.result_evaluation]
        reasons = {**DEFAULT_NULL_REASONS, **self.null_reasons}
        table["null_reasons"] = {
            path: _reason(path, reasons) for path in sorted(set(_null_paths(table)))
        }
        return table

    def to_json(self) -> str:
        """Minified JSON, the payload on `result`; numbers are finite or this raises ValueError."""
        text = json.dumps(self.to_table(), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        return text.encode(errors="replace").decode()  # half a character, as in a path, would end delivery


def timestamp(unix_s: float) -> str:
    """RFC 3339 in UTC with milliseconds, for example 2026-01-31T08:15:00.250Z."""
    moment = datetime.fromtimestamp(unix_s, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _reason(path: str, reasons: dict[str, str]) -> str:
    """Why `path` is null: its own reason, or that of all measures or qualities (`defects[].measures.*`)."""
    for start in ("defects[].measures.", "quality."):
        if path.startswith(start) and path not in reasons:
            _, dot, field_name = path[len(start) :].partition(".")
            return reasons.get(f"{start}*{dot}{field_name}", "unknown")
    return reasons.get(path, "unknown")


def _null_paths(value: Any, path: str = "") -> list[str]:
    """Paths of the nulls in a JSON value, list members written `[]`: `part.lot`, `defects[].size_mm`."""
    if value is None:
        return [path]
    if isinstance(value, dict):
        start = path + "." if path else ""
        return [found for name, member in value.items() for found in _null_paths(member, start + name)]
    if isinstance(value, list | tuple):
        return [found for member in value for found in _null_paths(member, path + "[]")]
    return []
