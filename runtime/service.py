"""The service: camera -> inspector -> report -> outbox -> broker, until the source ends or SIGTERM.

Threads: capture is a child process, inspection and delivery are threads, the main thread waits for signals.
Left of the outbox nothing waits for the network. A part is written to the outbox when it is accepted, under
the id that its report will have; one whose report a crash prevented is published as not inspected at the next
start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from .bell import Bell
from .capture.clock import SystemClock, boot_id
from .capture.folder import pairs_in_folder
from .capture.frame import Frame, camera_from_source, read_picture
from .capture.process import ProcessCamera
from .config import InspectionConfig, ServiceConfig
from .deliver.outbox import Outbox
from .deliver.publisher import Publisher, StationState
from .errors import DeliveryError, EngineError, OrinspectError, PictureError, RecipeError
from .infer.bundle import Bundle
from .infer.inspector import Inspection, Inspector
from .infer.judgement import Judgement
from .judge.assessment import (
    Setup,
    Trigger,
    report_from_inspection,
    report_not_inspected,
    trigger_from_frame,
)
from .judge.scale import read_scale
from .judge.site_scale import SiteScale
from .recipe import Recipe
from .report import BundleIdentity, ClockReading, Identity, Part, Report, View
from .uuid7 import result_id_from

EXIT_ENGINE = 70  # EX_SOFTWARE: an engine failed; the process must be replaced, not the frame

log = logging.getLogger(__name__)


class Inspects(Protocol):
    """What the service needs of an `Inspector`; a test brings its own."""

    @property
    def recipe(self) -> Recipe:
        """The recipe that is inspected."""
        ...

    @property
    def judgement(self) -> Judgement:
        """What the bundle knows of this recipe's confidences and pictures."""
        ...

    def inspect(self, frame: Frame) -> Inspection:
        """Inspect one frame; PictureError or EngineError when that fails."""
        ...


@contextmanager
def inspector_from_config(config: InspectionConfig) -> Iterator[tuple[Inspects, BundleIdentity]]:
    """The bundle's engines, open for one recipe."""
    bundle = Bundle.open(config.bundle)
    _check_frames(bundle.recipe(config.recipe).recipe)
    with Inspector(
        bundle, config.recipe, config.threads, backend=config.backend, plans=config.engines
    ) as inspector:
        yield inspector, _identity(bundle, config.backend)


def run_service(
    config: ServiceConfig,
    *,
    clock: SystemClock | None = None,
    open_inspector: Callable[
        [InspectionConfig], AbstractContextManager[tuple[Inspects, BundleIdentity]]
    ] = inspector_from_config,
) -> int:
    """Run until the source ends, SIGTERM or SIGINT; the exit code.

    Errors of configuration, bundle, camera and a broker that refuses are raised, after the state `fault` was
    published where a connection stands. Returns EXIT_ENGINE when an engine failed.
    """
    clock = clock or SystemClock()
    with ExitStack() as opened:
        bell = opened.enter_context(Bell())
        outbox = opened.enter_context(Outbox(config.outbox.path, keep=config.outbox.keep))
        facts = StationState(
            "starting", None, None, config.device.device_id, config.device.station_id, boot_id()
        )
        publisher = Publisher(outbox, config.mqtt, facts, on_failure=bell.ring, random=random.random)
        publisher.announce("starting")
        publisher.start()
        try:
            exit_code = _inspect_until_stopped(
                config, clock, outbox, publisher, bell, facts.boot_id, open_inspector(config.inspection)
            )
        except OrinspectError as error:
            publisher.announce("fault", str(error))
            publisher.close(config.outbox.drain_timeout_s)
            raise
        left = publisher.close(config.outbox.drain_timeout_s)
    if publisher.failure is not None:
        raise publisher.failure
    if left:
        sentence = (
            f"{left} reports are not delivered and stay in {config.outbox.path}: {publisher.last_error}"
        )
        if not bell.was_signal:
            raise DeliveryError(sentence)
        log.warning("%s", sentence)
    return exit_code


def inspect_pictures(
    bundle: str | Path,
    image: str | Path,
    *,
    template: str | Path | None = None,
    recipe_id: str | None = None,
    threads: int = 2,
    scale: str | Path | None = None,
    clock: SystemClock | None = None,
) -> Report:
    """One picture (and its golden template) by hand: the report that the service would publish.

    `image` may be a folder of pictures in natural order: the frames of one clip. `scale` is a file of
    `orinspect calibrate scale`: whoever gives it says that its camera took the picture.
    """
    clock = clock or SystemClock()
    site_scale = None if scale is None else read_scale(scale)
    paths = [part for part, _ in pairs_in_folder(Path(image))] if Path(image).is_dir() else [Path(image)]
    *earlier, last = (read_picture(path) for path in paths)
    frame = Frame(
        image=last,
        earlier=tuple(earlier),
        template=None if template is None else read_picture(template),
        sequence=1,
        captured_at=clock.unix_s(),
        monotonic_ns=clock.monotonic_ns(),
        source=f"picture:{Path(image).name}",
        part_id=Path(image).stem,
        is_simulated=False,
        truth=None,
        mm_per_px=None,
    )
    opened = Bundle.open(bundle)
    with Inspector(opened, recipe_id, threads) as inspector:
        setup = Setup(
            device_id="workstation",
            station_id="by-hand",
            boot_id=boot_id(),
            recipe=inspector.recipe,
            configuration=Identity("by-hand", None, hashlib.sha256(b"").hexdigest()),  # there is none
            bundle=_identity(opened, "onnxruntime"),
            scale=site_scale,
            judgement=inspector.judgement,
        )
        view = View("picture" if site_scale is None else site_scale.camera_id or "picture")
        trigger = _accepted(frame, setup, clock, Part(frame.part_id, setup.recipe.product), view)
        return _report(frame, trigger, 1, inspector, setup, clock)


def _inspect_until_stopped(
    config: ServiceConfig,
    clock: SystemClock,
    outbox: Outbox,
    publisher: Publisher,
    bell: Bell,
    boot: str,
    opening: AbstractContextManager[tuple[Inspects, BundleIdentity]],
) -> int:
    """Open bundle and camera, then let the inspection thread work; its exit code."""
    with ExitStack() as opened:
        inspector, bundle = opened.enter_context(opening)
        site = SiteScale(
            None if config.scale is None else config.scale.file,
            config.camera.camera_id,
            unix_s=clock.unix_s(),
            is_synchronised=clock.synchronised(),
        )
        setup = Setup(
            device_id=config.device.device_id,
            station_id=config.device.station_id,
            boot_id=boot,
            recipe=inspector.recipe,
            configuration=Identity(config.name, config.device.version, config.sha256),
            bundle=bundle,
            scale=site.scale,
            judgement=inspector.judgement,
        )
        _publish_abandoned(outbox, publisher, setup, clock)
        camera = opened.enter_context(
            ProcessCamera(
                config.camera.source,
                camera_from_source,
                slots=config.camera.slots,
                timeout_s=config.camera.timeout_s,
            )
        )
        publisher.announce("ready")
        line = _Line(config, clock, outbox, publisher, inspector, camera, setup, site)
        thread = threading.Thread(target=line.run, args=(bell,), name="inspection")
        thread.start()
        bell.wait()
        line.stop()
        if line.failure is None and publisher.failure is None:
            publisher.announce("stopping")  # at once: the part under way is finished first
        thread.join()
        if line.failure is not None:
            raise line.failure
        return line.exit_code


class _Line:
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
            for number, frame in enumerate(self._new_frames()):
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

    def _new_frames(self) -> Iterator[Frame]:
        """The camera's frames; with `resume` without those accepted before the last start."""
        last = self._outbox.last_source_sequence(self._config.camera.source)
        skipped = 0
        for frame in self._camera.frames():
            if self._config.camera.resume and last is not None and frame.sequence <= last:
                skipped += 1
                continue
            if skipped:
                log.info("%d parts were accepted before this start; going on behind them", skipped)
                skipped = 0
            yield frame
        if skipped:
            log.info("all %d parts were accepted before this start", skipped)

    def _inspect(self, frame: Frame) -> None:
        """Accept, inspect, commit. An engine that failed ends the process with a code of its own."""
        config, setup = self._config, self._setup
        part = Part(frame.part_id, setup.recipe.product, config.part.job_id, config.part.lot)
        view = View(config.camera.camera_id, config.camera.view_index, config.camera.view_count)
        trigger = _accepted(frame, setup, self._clock, part, view)
        sequence = self._outbox.accept(
            trigger.result_id,
            trigger.boot_id,
            self._config.camera.source,
            trigger.source_sequence,
            trigger.to_json(),
        )
        try:
            report = _report(frame, trigger, sequence, self._inspector, setup, self._clock)
            self._site.follow(report)
            payload = report.to_json()
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


def _check_frames(recipe: Recipe) -> None:
    """RecipeError for a recipe whose parts a camera of single frames cannot give."""
    if recipe.mode == "clip":
        raise RecipeError(
            f"recipe {recipe.id}: mode 'clip' takes {recipe.clip.frames} frames a part, the service's cameras"
            " give one; use `orinspect inspect BUNDLE FOLDER` for clips"
        )


def _identity(bundle: Bundle, backend: str) -> BundleIdentity:
    """The bundle as the report names it."""
    return BundleIdentity(bundle.id, bundle.sha256, bundle.precision, backend)


def _accepted(frame: Frame, setup: Setup, clock: SystemClock, part: Part, view: View) -> Trigger:
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


def _report(
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


def _publish_abandoned(outbox: Outbox, publisher: Publisher, setup: Setup, clock: SystemClock) -> None:
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
