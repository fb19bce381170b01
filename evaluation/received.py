"""What an MES received, held against the known truth of the scenes: figures and pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from ..runtime.capture.frame import Frame, camera_from_source
from ..runtime.errors import DataSetError, DeliveryError
from ..runtime.recipe import Recipe
from .scores import NamedBox, ScoredPicture, matches, precision_recall_f

Report = dict[str, Any]
Picture = npt.NDArray[Any]  # uint8 [H, W, 3] BGR

RIGHT, WRONG, MISSED = (60, 130, 0), (0, 0, 200), (200, 100, 0)  # BGR: green, red, blue
TITLE = (60, 60, 60)
STAGES = ("capture", "preprocess", "vision", "dense", "prefill", "decode", "measure", "total")


def reports_from_file(path: Path) -> list[Report]:
    """Every line of a results.jsonl; DeliveryError names the line that is not JSON."""
    reports = []
    if not path.exists():
        raise DeliveryError(f"{path} is missing: no report was received")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            reports.append(json.loads(line))
        except ValueError as error:
            raise DeliveryError(f"{path}, line {number}: not JSON ({error})") from error
    return reports


def unique_reports(reports: Iterable[Report]) -> list[Report]:
    """Each result once, in order of (boot, sequence): delivery is at least once and in any order."""
    known = {report["result_id"]: report for report in reports}
    return sorted(known.values(), key=lambda report: (report["boot_id"], report["sequence"]))


def summary_from_reports(
    reports: list[Report], source: str, recipe: Recipe, *, least_f: float
) -> dict[str, Any]:
    """Scores against the scenes' truth (boxes widened by the recipe's margin, IoU > 0.33, with class), means
    a part, and what decoding cost. `parts` counts inspected parts; a cut answer counts with what it said."""
    unique = unique_reports(reports)
    inspected = {r["part"]["part_id"]: r for r in unique if r["image"] is not None}
    expected, pictures = 0, []
    for frame in _frames(source):
        expected += 1
        if (report := inspected.get(str(frame.part_id))) is not None:
            _check_same_picture(frame, report)
            pictures.append(ScoredPicture(truth_boxes(frame, recipe), report_boxes(report)))
    scores = precision_recall_f(pictures)
    rows = list(inspected.values())
    passes = {name: sum(row["passes"][name] for row in rows) for name in _counted(rows)}
    defects = sum(len(row["defects"]) for row in rows)
    parts = max(len(rows), 1)
    summary: dict[str, Any] = {
        "parts": len(rows),
        **{name: round(scores[name], 4) for name in ("precision", "recall", "f")},
        "ms_per_part": _mean_ms(rows),
        "row_passes_per_defect": _ratio(passes.get("row_passes", 0), defects),
        "row_passes_per_tile": _ratio(passes.get("row_passes", 0), passes.get("tiles_decoded", 0)),
        "engine_calls_per_part": _ratio(passes.get("engine_calls", 0), parts),
        "canonical_tokens_per_part": _ratio(passes.get("canonical_tokens", 0), parts),
        "row_passes": passes.get("row_passes", 0),
        "row_passes_allowed": 15 * defects + 2 * passes.get("tiles", 0),
        "row_passes_forced": passes.get("row_passes_forced", 0),
        "defects": defects,
        "true_defects": sum(len(picture.truth) for picture in pictures),
        "dispositions": {name: sum(r["disposition"] == name for r in unique) for name in _DISPOSITIONS},
        "not_inspected": expected - len(rows),
        "received_twice": len(reports) - len(unique),
        "part_under_two_ids": len(unique) - len({report["part"]["part_id"] for report in unique}),
        "least_f": least_f,
    }
    summary["passed"] = bool(summary["f"] >= least_f and rows and not summary["part_under_two_ids"])
    return summary


_DISPOSITIONS = ("pass", "reject", "review")


def summary_text(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    found = summary["dispositions"]
    stages = ", ".join(
        f"{name} {value:g}" for name, value in summary["ms_per_part"].items() if name != "total"
    )
    precision, recall, f = (summary[name] for name in ("precision", "recall", "f"))
    parts = f"{summary['parts']} parts inspected: {found['reject']} reject, {found['pass']} pass,"
    truth = f"against the known truth ({summary['true_defects']} defects, IoU > 0.33, with class):"
    decoder = (
        f"decoder: {summary['row_passes_per_defect']:g} row-passes a defect"
        f" ({summary['row_passes']} of {summary['row_passes_allowed']} allowed),"
    )
    calls = f"{summary['engine_calls_per_part']:g} engine calls"
    lines = [
        f"{parts} {found['review']} review; {summary['not_inspected']} not inspected",
        f"{truth} precision {precision:.3f}, recall {recall:.3f}, F {f:.3f}",
        f"ms a part: {summary['ms_per_part'].get('total', 0):g} ({stages})",
        f"{decoder} {calls} and {summary['canonical_tokens_per_part']:g} canonical tokens a part",
    ]
    if summary["f"] < summary["least_f"]:
        lines.append(
            f"NOT GOOD ENOUGH: F is below {summary['least_f']:.2f}; these weights are not trained to inspect"
        )
    return "\n".join(lines)


def draw_pictures(reports: list[Report], source: str, recipe: Recipe, folder: Path) -> int:
    """One PNG a part: right boxes green, false alarms red, missed truth blue. Returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    by_part = {report["part"]["part_id"]: report for report in unique_reports(reports)}
    drawn = 0
    for frame in _frames(source):
        report = by_part.get(str(frame.part_id))
        if report is None:
            continue
        picture = annotated(frame, report_boxes(report), truth_boxes(frame, recipe), report["disposition"])
        if not cv2.imwrite(str(folder / f"{frame.part_id}.png"), picture):
            raise DataSetError(f"{folder / str(frame.part_id)}.png cannot be written; check the folder")
        drawn += 1
    return drawn


def annotated(
    frame: Frame, found: tuple[NamedBox, ...], truth: tuple[NamedBox, ...], disposition: str
) -> Picture:
    """The part picture [H, W, 3] BGR with its boxes and the disposition."""
    image = frame.image if frame.image.ndim == 3 else cv2.cvtColor(frame.image, cv2.COLOR_GRAY2BGR)
    canvas = np.ascontiguousarray(image)
    hits = matches(found, truth)
    for index, box in enumerate(truth):
        if index not in hits:
            _draw(canvas, box, MISSED, f"missed {box.type}")
    for box, hit in zip(found, hits, strict=True):
        _draw(canvas, box, WRONG if hit is None else RIGHT, f"{box.type} {box.confidence:.2f}")
    _write(canvas, f"{frame.part_id}  {disposition}", 4, 4, TITLE)
    return canvas


def report_boxes(report: Report) -> tuple[NamedBox, ...]:
    """A report's defects as boxes."""
    return tuple(
        NamedBox(defect["type"], tuple(defect["bbox"]), defect["confidence"] or 0.0)
        for defect in report["defects"]
    )


def truth_boxes(frame: Frame, recipe: Recipe) -> tuple[NamedBox, ...]:
    """A scene's truth with the recipe's margin around each defect, inside the picture."""
    height, width = frame.image.shape[:2]
    margin = recipe.box_margin_px
    boxes = []
    for defect in frame.truth or ():
        x1, y1, x2, y2 = defect.bbox_xyxy
        box = (max(x1 - margin, 0), max(y1 - margin, 0), min(x2 + margin, width), min(y2 + margin, height))
        boxes.append(NamedBox(defect.type, tuple(float(value) for value in box)))
    return tuple(boxes)


def _frames(source: str) -> Iterator[Frame]:
    """The parts of a source again, with their truth, as fast as they can be drawn."""
    with camera_from_source(source, sleep=lambda _: None) as camera:
        yield from camera.frames()


def _check_same_picture(frame: Frame, report: Report) -> None:
    """The truth belongs to the picture that was inspected, or every score is meaningless."""
    if report["image"]["sha256"] != hashlib.sha256(frame.image.tobytes()).hexdigest():
        raise DataSetError(f"part {frame.part_id}: the inspected picture is not the one its truth belongs to")


def _draw(canvas: Picture, box: NamedBox, colour: tuple[int, int, int], text: str) -> None:
    x1, y1, x2, y2 = (round(value) for value in box.bbox_xyxy)
    cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, 2)
    _write(canvas, text, x1, y1 - 16, colour)


def _write(canvas: Picture, text: str, left: int, top: int, colour: tuple[int, int, int]) -> None:
    """White text on a patch of `colour`, its corner at (left, top) or as near as the picture allows."""
    (wide, high), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    left = max(0, min(left, canvas.shape[1] - wide - 4))
    top = max(0, min(top, canvas.shape[0] - high - below - 4))
    cv2.rectangle(canvas, (left, top), (left + wide + 3, top + high + below + 3), colour, -1)
    corner = (left + 2, top + high + 2)
    cv2.putText(canvas, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)


def _counted(rows: list[Report]) -> list[str]:
    return list(rows[0]["passes"]) if rows else []


def _mean_ms(rows: list[Report]) -> dict[str, float]:
    """Mean of each stage over the parts that measured it."""
    means = {}
    for stage in STAGES:
        values = [row["timings_ms"][stage] for row in rows if row["timings_ms"][stage] is not None]
        if values:
            means[stage] = round(sum(values) / len(values), 2)
    return means


def _ratio(amount: float, of: float) -> float:
    """Rounded; 0 where there is nothing to divide by."""
    return round(amount / of, 3) if of else 0.0
