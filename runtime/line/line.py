"""The inspection thread: one part after the other, each committed before the next is taken.

It alone opens engines, tests them and changes them: a command or a new shift is obeyed between two parts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from ..bell import Bell
from ..capture.recovery import SteadyCamera
from ..config import InspectionConfig, ServiceConfig
from ..deliver.outbox import OutboxFaultError, OutboxFullError
from ..errors import EngineError, OrinspectError, PictureError
from ..judge.assessment import Setup
from ..judge.site_scale import SiteScale
from .condition import Condition
from .intake import Intake, Job
from .orders import Orders
from .parts import PartBook
from .station import SelfTest, Station
from .watchdog import Progress

EXIT_ENGINE = 70  # EX_SOFTWARE: an engine failed; the process must be replaced, not the frame
IDLE_S = 1.0  # without a part the loop turns this often
STEP_S = 30.0  # an idle line that does not turn in this time is stuck
OPENING_S = 1800.0  # engines of an 8B from a slow disk, their golden frames, and the old ones once more

log = logging.getLogger(__name__)


class Line:
    """What the inspection thread does; `failure` and `exit_code` say how it ended."""

    def __init__(
        self,
        config: ServiceConfig,
        *,
        station: Station,
        intake: Intake,
        book: PartBook,
        setup_of: Callable[[Station], Setup],
        site: SiteScale,
        condition: Condition,
        progress: Progress,
        shift: Callable[[], object] = lambda: None,
        alarm: Callable[[str, str | None], None] = lambda code, text: None,
    ) -> None:
        """`setup_of` says what reports carry of the engines in use; `shift` names the shift of now: when it
        changes, the golden frames are run."""
        self.failure: OrinspectError | None = None
        self.exit_code = 0
        self.orders: Orders | None = None
        self._camera: SteadyCamera | None = None
        self._config, self._station, self.intake, self._book = config, station, intake, book
        self._setup_of = setup_of
        self._site, self._condition, self._progress = site, condition, progress
        self._shift, self._alarm = shift, alarm
        self._shift_of_test: object = None
        self._stopping = self._is_up = False
        self._halt = threading.Event()

    @property
    def is_up(self) -> bool:
        """Whether parts are taken: engines and camera are open, and nobody has said stop."""
        return self._is_up and not self._stopping

    def stop(self) -> None:
        """Finish the part under way and take no other; from any thread."""
        self._stopping = True
        self._halt.set()
        self.intake.stop()

    def run(
        self,
        bell: Bell,
        inspection: InspectionConfig,
        open_camera: Callable[[], SteadyCamera],
        open_trigger: Callable[[], AbstractContextManager[object]],
        on_ready: Callable[[], None],
    ) -> None:
        """Until the source ends, `stop`, or a failure that the next part would meet too; then ring."""
        try:
            with ExitStack() as opened:
                opened.enter_context(self._station)
                self._start(inspection)
                self._book.publish_abandoned()
                self._book.report_gaps()
                self._camera = camera = opened.enter_context(open_camera())
                pump = threading.Thread(target=self.intake.pump, args=(camera.frames(),), name="intake")
                pump.start()
                opened.callback(pump.join)
                opened.callback(camera.stop)
                opened.callback(self.intake.stop)
                opened.enter_context(open_trigger())
                self._condition.enter("ready")
                self._is_up = True
                on_ready()
                self._loop()
        except OrinspectError as error:
            self.failure = error
        except BaseException as error:  # a thread's exception would only be printed
            self.failure = EngineError(f"the inspection stopped unexpectedly: {error!r}")
            log.exception("the inspection stopped unexpectedly")
        finally:
            self._stopping = True
            if self.orders is not None:
                self.orders.close()
            bell.ring()

    def swap(self, new: InspectionConfig) -> tuple[SelfTest, str | None]:
        """Inspect with other engines or another recipe; why not, and nothing has changed then."""
        with self._testing():
            test, problem = self._station.swap(new)
            self._use()
            if problem is None or test.wrong:
                self._release(test)
        return test, problem

    def self_test(self, why: str) -> SelfTest:
        """Run the golden frames and let them decide whether parts may be inspected."""
        log.info("self-test: %s", why)
        with self._testing():
            test = self._station.test()
            return self._released_or_replaced(test)

    def facts(self) -> dict[str, Any]:
        """What the station is and does, for the answer to `state`."""
        state, reason = self._condition.state
        table: dict[str, Any] = {
            "state": state,
            "reason": reason,
            "is_paused": self._condition.is_paused,
            "trigger": self.intake.kind,
        }
        setup = self._book.setup
        if setup is not None:
            table["recipe"] = {"id": setup.recipe.id, "version": setup.recipe.version}
            table["bundle"] = {"id": setup.bundle.id, "precision": setup.bundle.precision}
        return table

    def _start(self, inspection: InspectionConfig) -> None:
        """Open the engines; parts are only taken when the golden frames allow it.

        What commands chose before this start may be gone from the disk: then service.toml holds.
        """
        with self._testing():
            try:
                test = self._station.open(inspection)
            except OrinspectError as error:
                if inspection == self._config.inspection:
                    raise
                log.error("what commands chose cannot be opened, service.toml holds: %s", error)
                self._alarm("station.choice", f"service.toml holds, not what commands chose: {error}")
                test = self._station.open(self._config.inspection)
            if not test.frames:
                log.warning("the bundle has no golden frames: that its engines are right was not checked")
            self._use()
            self._released_or_replaced(test)
        self._shift_of_test = self._shift()

    def _loop(self) -> None:
        """Orders first, then a self-test that is due, then parts."""
        orders = self.orders
        while not self._stopping and not self.exit_code:
            self._progress.step(STEP_S)
            try:
                if orders is not None and orders.are_waiting:
                    orders.do_next()
                    continue
                shift = self._shift()
                if shift is not None and shift != self._shift_of_test:
                    self._shift_of_test = shift
                    self.self_test("a new shift")
                    continue
            except EngineError as error:
                self._fail(str(error))
                return
            job = self.intake.take(
                IDLE_S, lambda: self._stopping or (orders is not None and orders.are_waiting)
            )
            if job is not None:
                self._condition.enter("running")
                self._progress.step(self._config.inspection.part_limit_s)
                self._inspect(job)
                self._book.report_gaps()
            elif self.intake.is_finished:
                if self.intake.failure is not None:
                    raise self.intake.failure
                return

    def _inspect(self, job: Job) -> None:
        """Accept, inspect, commit. An engine that failed ends the process with a code of its own."""
        book, frame = self._book, job.frame
        try:
            if job.acceptance is None:
                acceptance = book.accept_frame(frame)
            else:
                acceptance = book.with_frame(job.acceptance, frame)
        except OutboxFullError as error:  # the part was counted
            log.error("part %s is not inspected: %s", frame.part_id, error)
            return
        except OutboxFaultError as error:  # not even that: the source waits with us, as long as it can
            log.error("part %s waits: %s", frame.part_id, error)
            self.intake.put_back(job)
            self._halt.wait(IDLE_S)
            return
        if self._camera is not None:
            self._camera.accepted(frame)
        if self._condition.is_fault:
            reason = self._condition.state[1] or "the station is in fault"
            book.give_up(acceptance, "not_inspected.fault", reason)
            return
        if frame.fault is not None:
            book.give_up(acceptance, frame.fault.reason_code, frame.fault.why)
            return
        try:
            report = book.report(acceptance, frame, self._station.inspector)
            self._site.follow(report)
            report.to_json()  # what cannot be written is a fault of ours, found before it is committed
        except PictureError as error:
            book.give_up(acceptance, "not_inspected.picture", str(error))
        except Exception as error:  # an engine, or a fault of ours: neither may have the next part
            why = str(error) or repr(error)
            log.error("part %s failed", frame.part_id, exc_info=not isinstance(error, EngineError))
            self._fail(why)
            book.give_up(acceptance, "failed.engine", why)
        else:
            book.commit(report, frame)

    def _fail(self, why: str) -> None:
        """The process must be replaced."""
        self._condition.fail("engine", why)
        self._alarm("station.engine", why)
        self.exit_code = EXIT_ENGINE

    def _released_or_replaced(self, test: SelfTest) -> SelfTest:
        """Release the engines in use, or those of [fallback] in their place; the test that decided."""
        fallback = self._config.fallback
        if test.is_passed or fallback is None or self._station.config == fallback:
            self._release(test)
            return test
        why = "; ".join(test.wrong)
        log.error("golden frames failed: %s; trying the fallback %s", why, fallback.bundle)
        try:
            second = self._station.open(fallback)
        except OrinspectError as error:
            self._station.close()
            second = SelfTest(0, (*test.wrong, f"the fallback does not open: {error}"), ())
        else:
            self._use()
        self._release(second, instead_of=why)
        return test

    def _release(self, test: SelfTest, *, instead_of: str | None = None) -> None:
        """Let parts be inspected, or not. `instead_of`: what was wrong with the engines before these."""
        trouble = None
        if instead_of is not None and test.is_passed:
            trouble = f"the fallback inspects, since the golden frames of the bundle failed: {instead_of}"
        elif test.is_passed and self._station.config == self._config.fallback:
            trouble = "the fallback inspects"
        fault = None if test.is_passed else f"golden frames: {'; '.join(test.wrong)}"
        self._condition.fail("self_test", fault)
        self._alarm("station.self_test", fault or trouble)
        self.intake.block(fault is not None)

    def _use(self) -> None:
        """From here on reports name the engines in use."""
        self._book.setup = self._setup_of(self._station)

    @contextmanager
    def _testing(self) -> Iterator[None]:
        """While engines are opened or tested; the phase before comes back afterwards."""
        phase = self._condition.phase
        self._progress.step(OPENING_S)
        self._condition.enter("self_test")
        try:
            yield
        finally:
            if phase != "starting":  # the first self-test goes over into `ready`, once the camera is open
                self._condition.enter(phase)
            self._progress.step(STEP_S)
