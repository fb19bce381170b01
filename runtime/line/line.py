"""The inspection thread: one part after the other, each committed before the next is taken."""

from __future__ import annotations

import logging

from ..bell import Bell
from ..capture.clock import SystemClock
from ..capture.frame import Frame
from ..capture.process import ProcessCamera
from ..config import ServiceConfig
from ..deliver.outbox import Outbox
from ..deliver.publisher import Publisher
from ..errors import EngineError, OrinspectError, PictureError
from ..judge.assessment import Setup, Trigger, report_not_inspected
from ..judge.site_scale import SiteScale
from ..report import Part, View
from .parts import accepted_part, report_of_part
from .station import Inspects

EXIT_ENGINE = 70  # EX_SOFTWARE: an engine failed; the process must be replaced, not the frame

log = logging.getLogger(__name__)


class Line:
    """The inspection thread: one part after the other, each committed before the next is taken."""

    def __init__(
        self,
        config: ServiceConfig,
        clock: SystemClock,
        outbox: Outbox,
        publisher: Publisher,
        inspector: Inspects,
        camera: ProcessCamera,
        setup: Setup,
        site: SiteScale,
    ) -> None:
        self.failure: OrinspectError | None = None
        self.exit_code = 0
        self._config, self._clock, self._setup, self._site = config, clock, setup, site
        self._outbox, self._publisher = outbox, publisher
        self._inspector, self._camera = inspector, camera
        self._stopping = False

    def stop(self) -> None:
        """Finish the part under way and take no other; from any thread."""
        self._stopping = True
        self._camera.stop()

    def run(self, bell: Bell) -> None:
        """Until the source ends, `stop`, or a failure that the next part would meet too; then ring."""
        try:
            for number, frame in enumerate(self._camera.frames()):
                if self._stopping:
                    break  # a frame that nobody accepted is no part yet
                if not number:
                    self._publisher.announce("running")
                self._inspect(frame)
                if self.exit_code:
                    break
        except OrinspectError as error:
            self.failure = error
        except BaseException as error:  # a thread's exception would only be printed
            self.failure = EngineError(f"the inspection stopped unexpectedly: {error!r}")
            log.exception("the inspection stopped unexpectedly")
        finally:
            bell.ring()

    def _inspect(self, frame: Frame) -> None:
        """Accept, inspect, commit. An engine that failed ends the process with a code of its own."""
        config, setup = self._config, self._setup
        part = Part(frame.part_id, setup.recipe.product, config.part.job_id, config.part.lot)
        view = View(config.camera.camera_id, config.camera.view_index, config.camera.view_count)
        trigger = accepted_part(frame, setup, self._clock, part, view)
        sequence = self._outbox.accept(
            trigger.result_id,
            trigger.boot_id,
            self._config.camera.source,
            trigger.source_sequence,
            trigger.to_json(),
            frame.key,
        )
        try:
            if frame.fault is None:
                report = report_of_part(frame, trigger, sequence, self._inspector, setup, self._clock)
                self._site.follow(report)
                payload = report.to_json()
            else:
                log.warning("part %s is not inspected: %s", frame.part_id, frame.fault.why)
                payload = self._not_inspected(trigger, sequence, frame.fault.reason_code, frame.fault.why)
        except PictureError as error:
            log.warning("part %s was not inspected: %s", frame.part_id, error)
            payload = self._not_inspected(trigger, sequence, "not_inspected.picture", str(error))
        except Exception as error:  # an engine, or a fault of ours: neither may have the next part
            log.error("part %s failed", frame.part_id, exc_info=not isinstance(error, EngineError))
            self._publisher.announce("fault", str(error) or repr(error))
            payload = self._not_inspected(trigger, sequence, "failed.engine", str(error) or repr(error))
            self.exit_code = EXIT_ENGINE
        self._outbox.commit(trigger.result_id, payload)
        self._publisher.wake()

    def _not_inspected(self, trigger: Trigger, sequence: int, code: str, why: str) -> str:
        now = self._clock.unix_s()
        report = report_not_inspected(
            trigger, sequence, self._setup, created_at=now, reason_code=code, why=why
        )
        return report.to_json()
