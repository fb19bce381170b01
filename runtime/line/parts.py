"""One part: accepted under its id, reported once, and never forgotten in between."""

from __future__ import annotations

import logging
import os

from ..capture.clock import SystemClock
from ..capture.frame import Frame
from ..capture.sources import Resume, SourceText
from ..config import CameraConfig
from ..deliver.outbox import Outbox
from ..deliver.publisher import Publisher
from ..judge.assessment import (
    Setup,
    Trigger,
    report_from_inspection,
    report_not_inspected,
    trigger_from_frame,
)
from ..report import ClockReading, Part, Report, View
from ..uuid7 import result_id_from
from .station import Inspects

log = logging.getLogger(__name__)


def accepted_part(frame: Frame, setup: Setup, clock: SystemClock, part: Part, view: View) -> Trigger:
    """The trigger of a frame, under a new id."""
    synchronised = clock.synchronised()
    return trigger_from_frame(
        frame,
        setup,
        result_id=result_id_from(clock.unix_s(), synchronised, os.urandom),
        part=part,
        view=view,
        clock=ClockReading(clock.source, synchronised, frame.monotonic_ns),
    )


def report_of_part(
    frame: Frame, trigger: Trigger, sequence: int, inspector: Inspects, setup: Setup, clock: SystemClock
) -> Report:
    """Inspect and judge one part."""
    started_ns = clock.monotonic_ns()
    inspection = inspector.inspect(frame)
    return report_from_inspection(
        trigger,
        sequence,
        frame,
        inspection,
        setup,
        created_at=clock.unix_s(),
        capture_ms=max((started_ns - frame.monotonic_ns) / 1e6, 0.0),
        total_ms=(clock.monotonic_ns() - started_ns) / 1e6,
    )


def resume_from_outbox(config: CameraConfig, outbox: Outbox) -> Resume:
    """What the camera leaves out: the parts that were accepted from this source before this start."""
    by = SourceText.of(config.source).resumed_by if config.resume else None
    resume = Resume()
    if by == "sequence":
        resume = Resume(after=outbox.last_source_sequence(config.source) or 0)
    elif by == "key":
        resume = Resume(keys=outbox.accepted_keys(config.source))
    if resume != Resume():
        log.info("%d parts were accepted before this start", resume.after or len(resume.keys))
    return resume


def publish_abandoned(outbox: Outbox, publisher: Publisher, setup: Setup, clock: SystemClock) -> None:
    """Parts that the last run accepted and never reported: they are published as not inspected."""
    for row in outbox.abandoned():
        report = report_not_inspected(
            Trigger.from_json(row.trigger),
            row.sequence,
            setup,
            created_at=clock.unix_s(),
            reason_code="not_inspected.restart",
            why="the service stopped before the report was written",
        )
        outbox.commit(row.result_id, report.to_json())
        log.warning("part %s was accepted but never inspected; it is reported so", report.part.part_id)
        publisher.wake()
