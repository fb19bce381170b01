"""One part: accepted under its id, reported once, and never forgotten in between."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ..capture.clock import SystemClock
from ..capture.frame import Frame
from ..capture.part_id import part_id_from_picture
from ..capture.sources import Resume, SourceText
from ..capture.triggers.signal import TriggerSignal
from ..config import CameraConfig, ServiceConfig
from ..deliver.evidence.evidence import Evidence
from ..deliver.missed import Missed, NotInspected
from ..deliver.outbox import Gap, Outbox
from ..judge.assessment import (
    Setup,
    Trigger,
    report_from_inspection,
    report_not_inspected,
    trigger_from_frame,
)
from ..report import ClockReading, Part, Report, View, timestamp
from ..uuid7 import result_id_from
from .station import Inspects

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Acceptance:
    """A part on disk: its trigger and the sequence that the outbox gave it."""

    trigger: Trigger
    sequence: int


class PartBook:
    """Accepts parts, reports them, and gives up those that nobody could look at; safe from several threads.

    `setup` is what the station works with now; whoever opens engines sets it, before any part is accepted.
    """

    def __init__(
        self,
        config: ServiceConfig,
        clock: SystemClock,
        outbox: Outbox,
        boot_id: str,
        *,
        wake: Callable[[], None],
        count: Callable[[str], None],
        evidence: Evidence | None,
    ) -> None:
        """`wake` is called after each commit, `count` with each report that was committed; `evidence` keeps
        the pictures of those that were inspected."""
        self.setup: Setup | None = None
        self._boot_id = boot_id
        self._config, self._clock, self._outbox = config, clock, outbox
        self._wake, self._count, self._evidence = wake, count, evidence
        self._why_no_id: str | None = None  # of the part under way
        self._view = View(config.camera.camera_id, config.camera.view_index, config.camera.view_count)
        self._is_simulated = SourceText.of(config.camera.source).kind == "scenes"

    def accept(self, signal: TriggerSignal, held: Frame | None) -> Acceptance:
        """Write an accepted trigger before its picture is taken; `held`: of a replay, its next frame."""
        plant, synchronised = self._config.part, self._clock.synchronised()
        trigger = Trigger(
            result_id=result_id_from(self._clock.unix_s(), synchronised, os.urandom),
            boot_id=self._boot_id,
            source=self._config.camera.source,
            source_sequence=0 if held is None else held.sequence,
            part=Part(
                signal.part_id or (held.part_id if held is not None else None),
                self._known.recipe.product,
                signal.job_id or plant.job_id,
                signal.lot or plant.lot,
                signal.trigger_id,
            ),
            view=self._view,
            captured_at=timestamp(signal.unix_s),
            clock=ClockReading(self._clock.source, synchronised, signal.monotonic_ns),
            is_simulated=self._is_simulated,
        )
        return self._accepted(trigger, None if held is None else held.key)

    def accept_frame(self, frame: Frame) -> Acceptance:
        """Accept a frame that is its own trigger."""
        plant = self._config.part
        part = Part(self._part_id(frame), self._known.recipe.product, plant.job_id, plant.lot)
        return self._accepted(accepted_part(frame, self._known, self._clock, part, self._view), frame.key)

    def with_frame(self, acceptance: Acceptance, frame: Frame) -> Acceptance:
        """The acceptance of a trigger, once the frame that belongs to it is there."""
        trigger = acceptance.trigger
        return replace(
            acceptance,
            trigger=replace(
                trigger,
                source_sequence=frame.sequence,
                part=replace(trigger.part, part_id=trigger.part.part_id or self._part_id(frame)),
                captured_at=timestamp(frame.captured_at),
                clock=replace(trigger.clock, monotonic_ns=frame.monotonic_ns),
                is_simulated=frame.is_simulated,
            ),
        )

    def report(self, acceptance: Acceptance, frame: Frame, inspector: Inspects) -> Report:
        """Inspect and judge one part."""
        report = report_of_part(
            frame, acceptance.trigger, acceptance.sequence, inspector, self._known, self._clock
        )
        if report.part.part_id is None and self._why_no_id is not None:
            report = replace(report, null_reasons={**report.null_reasons, "part.part_id": self._why_no_id})
        return report

    def give_up(self, acceptance: Acceptance, reason_code: str, why: str) -> None:
        """Commit a report that says that the part was not inspected, or that its engine failed."""
        log.warning("part %s: %s: %s", acceptance.trigger.part.part_id, reason_code, why)
        self.commit(
            report_not_inspected(
                acceptance.trigger,
                acceptance.sequence,
                self._known,
                created_at=self._clock.unix_s(),
                reason_code=reason_code,
                why=why,
            )
        )

    def commit(self, report: Report, frame: Frame | None = None) -> None:
        """Write a report: from here on it is not lost. `frame`: what was inspected, for the evidence."""
        with ExitStack() as kept:
            if self._evidence is not None and frame is not None:
                report = kept.enter_context(self._evidence.kept(report, frame.image))
            payload = report.to_json()
            self._outbox.commit(report.result_id, payload)
        self._wake()
        self._count(payload)

    def publish_abandoned(self) -> None:
        """Parts that the last run accepted and never reported: they are published as not inspected."""
        for row in self._outbox.abandoned():
            acceptance = Acceptance(Trigger.from_json(row.trigger), row.sequence)
            why = "the service stopped before the report was written"
            self.give_up(acceptance, "not_inspected.restart", why)

    def report_gaps(self) -> None:
        """Sequences that no report stands for, since the disk was full or damaged: a message for each run."""
        for gap in self._outbox.gaps():
            result_id = result_id_from(self._clock.unix_s(), self._clock.synchronised(), os.urandom)
            payload = self._gap_message(gap, result_id)
            self._outbox.commit_gap(gap, result_id, self._boot_id, payload)
            log.warning("sequences %d to %d of %s: %s", gap.first, gap.last, gap.boot_id, gap.why)
            self._wake()
            self._count(payload(0))

    def _gap_message(self, gap: Gap, result_id: str) -> Callable[[int], str]:
        message = NotInspected(
            result_id=result_id,
            created_at=timestamp(self._clock.unix_s()),
            clock_synchronised=self._clock.synchronised(),
            device_id=self._config.device.device_id,
            station_id=self._config.device.station_id,
            boot_id=self._boot_id,
            sequence=0,
            missed=Missed(gap.boot_id, gap.first, gap.last),
            reason_code=gap.reason,
            why=gap.why,
            is_simulated=self._is_simulated,
        )
        return lambda sequence: replace(message, sequence=sequence).to_json()

    def _part_id(self, frame: Frame) -> str | None:
        """What the source says, else what a code in the picture says; called by the inspection thread."""
        self._why_no_id = None
        if frame.part_id is not None or frame.fault is not None or not self._config.part.id_from_picture:
            return frame.part_id
        found = part_id_from_picture(frame.image)
        self._why_no_id = found.reason
        return found.value

    @property
    def _known(self) -> Setup:
        assert self.setup is not None, "no part is accepted before engines were opened"
        return self.setup

    def _accepted(self, trigger: Trigger, source_key: str | None) -> Acceptance:
        sequence = self._outbox.accept(
            trigger.result_id,
            trigger.boot_id,
            trigger.source,
            trigger.source_sequence,
            trigger.to_json(),
            source_key,
        )
        return Acceptance(trigger, sequence)


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
