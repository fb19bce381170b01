"""The service: camera -> inspector -> report -> outbox -> broker, until the source ends or SIGTERM.

Threads: capture is a child process, inspection and delivery are threads, the main thread waits for signals.
Left of the outbox nothing waits for the network. A part is written to the outbox when it is accepted, under
the id that its report will have; one whose report a crash prevented is published as not inspected at the next
start.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

from .bell import Bell
from .capture.clock import SystemClock, boot_id
from .capture.frame import camera_from_source
from .capture.process import ProcessCamera
from .config import InspectionConfig, ServiceConfig
from .deliver.outbox import Outbox
from .deliver.publisher import Publisher, StationState
from .errors import DeliveryError, OrinspectError
from .judge.assessment import Setup
from .judge.site_scale import SiteScale
from .line.line import EXIT_ENGINE, Line
from .line.parts import publish_abandoned, resume_from_outbox
from .line.station import Inspects, inspector_from_config
from .report import BundleIdentity, Identity

__all__ = ["EXIT_ENGINE", "inspector_from_config", "run_service"]

log = logging.getLogger(__name__)


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
        publish_abandoned(outbox, publisher, setup, clock)
        camera = opened.enter_context(
            ProcessCamera(
                config.camera.source,
                camera_from_source,
                resume=resume_from_outbox(config.camera, outbox),
                slots=config.camera.slots,
                timeout_s=config.camera.timeout_s,
            )
        )
        publisher.announce("ready")
        line = Line(config, clock, outbox, publisher, inspector, camera, setup, site)
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
