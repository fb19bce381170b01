"""The service: camera -> inspector -> report -> outbox -> broker, until the source ends or SIGTERM.

Threads: capture is a child process; the intake, the inspection, the commands and the delivery are threads;
the main thread waits for signals and feeds systemd's watchdog. Left of the outbox nothing waits for the
network. A part is written to the outbox when it is accepted, under the id that its report will have; one
whose report a crash prevented is published as not inspected at the next start.
"""

from __future__ import annotations

import functools
import logging
import random
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from .. import __version__
from .bell import Bell
from .capture.clock import SystemClock, boot_id
from .config import InspectionConfig, ServiceConfig
from .deliver.audit.journal import Audit
from .deliver.commands.desk import CommandDesk
from .deliver.commands.seal import Seal, SeenCommands
from .deliver.evidence.evidence import Evidence
from .deliver.health.health import Health, Sources
from .deliver.health.metrics import MetricsServer
from .deliver.health.ticker import Ticker
from .deliver.outbox import Outbox
from .deliver.publisher import Publisher, StationState
from .deliver.statistics.shifts import Shifts
from .deliver.statistics.statistics import Statistics
from .errors import DeliveryError, OrinspectError
from .judge.assessment import Setup
from .judge.site_scale import SiteScale
from .line.assembly import (
    beside_outbox,
    bounds_of,
    bundles_of,
    camera_from_config,
    intake_from_config,
    trigger_from_config,
)
from .line.choice import choice_from_file, inspection_from_choice
from .line.line import EXIT_ENGINE, Line
from .line.orders import Orders
from .line.parts import PartBook
from .line.station import Opener, Station, inspector_from_config
from .line.voices import Voices
from .line.watchdog import Progress, Watchdog
from .report import Identity

__all__ = ["EXIT_ENGINE", "inspector_from_config", "run_service"]

TICK_S = 1.0  # health, statistics and waiting audit lines are looked after this often

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Station:
    """What is open for the whole run, whatever the line does."""

    config: ServiceConfig
    clock: SystemClock
    boot: str
    bell: Bell
    voices: Voices
    evidence: Evidence | None
    outbox: Outbox
    audit: Audit | None
    publisher: Publisher

    @property
    def names(self) -> dict[str, str]:
        """What every message carries."""
        device = self.config.device
        return {"device_id": device.device_id, "station_id": device.station_id, "boot_id": self.boot}


def run_service(
    config: ServiceConfig,
    *,
    clock: SystemClock | None = None,
    open_inspector: Opener = inspector_from_config,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run until the source ends, SIGTERM or SIGINT; the exit code.

    Errors of configuration, bundle, camera and a broker that refuses are raised, after the state `fault` was
    published where a connection stands. Returns EXIT_ENGINE when an engine failed. `environment`: the
    process's, where systemd says how it wants to be told; None: it is not there.
    """
    clock = clock or SystemClock()
    with ExitStack() as opened:
        station = _opened(config, clock, opened)
        publisher = station.publisher
        try:
            with ExitStack() as beside:
                try:
                    desk = _desk(station)
                finally:
                    publisher.start()  # in any case: whoever listens must hear what is wrong
                if desk is not None:
                    beside.enter_context(desk)
                statistics = beside.enter_context(_statistics(station))
                beside.enter_context(_health(station, statistics, beside))
                exit_code = _inspect_until_stopped(
                    station, statistics, desk, open_inspector, environment or {}
                )
        except OrinspectError as error:
            station.voices.condition.fail("service", str(error))
            station.voices.record("service_stopped", error=str(error))
            publisher.close(config.outbox.drain_timeout_s)
            raise
        left = publisher.close(config.outbox.drain_timeout_s)
        station.voices.record("service_stopped", exit_code=exit_code, waiting=left)
    if publisher.failure is not None:
        raise publisher.failure
    if left:
        sentence = (
            f"{left} reports are not delivered and stay in {config.outbox.path}: {publisher.last_error}"
        )
        if not station.bell.was_signal:
            raise DeliveryError(sentence)
        log.warning("%s", sentence)
    return exit_code


def _opened(config: ServiceConfig, clock: SystemClock, opened: ExitStack) -> _Station:
    """Open what the line stands on. The evidence comes first: it gives way when the outbox needs room."""
    bell, voices, boot = opened.enter_context(Bell()), Voices(), boot_id()
    evidence = audit = None
    if config.evidence is not None:
        evidence = opened.enter_context(Evidence(config.evidence, alarm=voices.alarm))
    outbox = opened.enter_context(
        Outbox(
            config.outbox.path,
            keep=config.outbox.keep,
            bounds=bounds_of(config.outbox),
            evidence=evidence,
            on_level=voices.outbox_level,
            on_rescue=voices.outbox_rescued,
            unix_s=clock.unix_s,
        )
    )
    if config.audit is not None:
        audit = opened.enter_context(Audit(config.audit, boot_id=boot, clock=clock, alarm=voices.alarm))
        voices.audit = audit
    facts = StationState("starting", None, None, config.device.device_id, config.device.station_id, boot)
    publisher = Publisher(
        outbox,
        config.mqtt,
        facts,
        on_failure=bell.ring,
        random=random.random,
        unix_s=clock.unix_s,
        is_clock_synchronised=clock.synchronised,
    )
    publisher.announce("starting")
    voices.connect(publisher)
    voices.record("service_started", version=__version__, configuration=config.name, sha256=config.sha256)
    return _Station(config, clock, boot, bell, voices, evidence, outbox, audit, publisher)


def _statistics(station: _Station) -> Statistics:
    return Statistics(
        station.config.shifts,
        beside_outbox(station.config, "counters"),
        station.outbox,
        station.publisher,
        facts=station.names,
        clock=station.clock,
        alarm=station.voices.alarm,
    )


def _health(station: _Station, statistics: Statistics, beside: ExitStack) -> Ticker:
    """The thread that publishes health and statistics; the metrics are served beside it."""
    config, audit = station.config, station.audit
    disks = {"outbox": config.outbox.path.parent}
    disks |= {} if config.evidence is None else {"evidence": config.evidence.folder}
    disks |= {} if config.audit is None else {"audit": config.audit.folder}
    disks |= {} if config.shifts.csv is None else {"statistics": config.shifts.csv}
    health = Health(
        config.health,
        Sources(
            state=lambda: station.voices.condition.state,
            outbox=station.outbox,
            statistics=statistics,
            alarms=station.voices.alarms,
            audit_head=None if audit is None else lambda: audit.head,
            evidence=station.evidence,
            disks=disks,
        ),
        station.publisher,
        facts=station.names,
        clock=station.clock,
        version=__version__,
    )
    beside.callback(health.publish)  # the last word, when nothing is counted any more
    if config.health.metrics_port is not None:
        beside.enter_context(MetricsServer(config.health.metrics_port, health.snapshot, station.voices.alarm))
    jobs: list[Callable[[], object]] = [statistics.tick, health.tick]
    return Ticker([*jobs, audit.flush] if audit is not None else jobs, TICK_S)


def _desk(station: _Station) -> CommandDesk | None:
    """Where commands arrive; None where service.toml has no [commands]."""
    config = station.config
    if config.commands is None:
        return None
    seen = SeenCommands(beside_outbox(config, "commands"), config.commands.window_s)
    desk = CommandDesk(
        config.commands,
        config.mqtt.root,
        Seal(config.commands, seen),
        station.publisher.answer,
        audit=station.audit,
        clock=station.clock,
    )
    station.publisher.on_command = desk.receive
    return desk


def _inspect_until_stopped(
    station: _Station,
    statistics: Statistics,
    desk: CommandDesk | None,
    opener: Opener,
    environment: Mapping[str, str],
) -> int:
    """Put the line together, let it work until it ends or the bell rings; its exit code."""
    config, clock, condition = station.config, station.clock, station.voices.condition
    progress = Progress(clock.monotonic_ns)
    watchdog = Watchdog(progress, environment)
    book = PartBook(
        config,
        clock,
        station.outbox,
        station.boot,
        wake=station.publisher.wake,
        count=statistics.count,
        evidence=station.evidence,
    )
    line = _line(station, book, opener, progress)
    inspection = _take_orders(station, line, desk)
    thread = threading.Thread(
        target=line.run,
        args=(
            station.bell,
            inspection,
            functools.partial(camera_from_config, config, station.outbox, station.voices.camera),
            functools.partial(trigger_from_config, config, line.intake, clock),
            watchdog.ready,
        ),
        name="inspection",
    )
    thread.start()
    while not station.bell.wait(watchdog.period_s):
        watchdog.feed()
    watchdog.stopping()
    line.stop()
    if line.failure is None and station.publisher.failure is None:
        condition.enter("stopping")  # at once: the part under way is finished first
    thread.join()
    if line.failure is not None:
        raise line.failure
    return line.exit_code


def _line(station: _Station, book: PartBook, opener: Opener, progress: Progress) -> Line:
    """The line, not running yet; ScaleError or ConfigError for what it cannot work with."""
    config, clock = station.config, station.clock
    site = SiteScale(
        None if config.scale is None else config.scale.file,
        config.camera.camera_id,
        unix_s=clock.unix_s(),
        is_synchronised=clock.synchronised(),
    )
    shifts = Shifts(config.shifts)

    def setup_of(engines: Station) -> Setup:
        setup = Setup(
            **station.names,
            recipe=engines.inspector.recipe,
            configuration=Identity(config.name, config.device.version, config.sha256),
            bundle=engines.identity,
            scale=site.scale,
            judgement=engines.inspector.judgement,
        )
        scale = None if setup.scale is None else setup.scale.calibration_id
        station.voices.record(
            "in_use", recipe=setup.recipe_identity, bundle=setup.bundle, scale=scale
        )
        return setup

    return Line(
        config,
        station=Station(opener),
        intake=intake_from_config(config, book, clock),
        book=book,
        setup_of=setup_of,
        site=site,
        condition=station.voices.condition,
        progress=progress,
        shift=lambda: shifts.at(clock.unix_s()).key if clock.synchronised() else None,
        alarm=station.voices.alarm,
    )


def _take_orders(station: _Station, line: Line, desk: CommandDesk | None) -> InspectionConfig:
    """Let commands reach the line; what is to be inspected after those of the last run."""
    config, condition = station.config, station.voices.condition
    choice_path = beside_outbox(config, "choice.json")
    choice = choice_from_file(choice_path, config.sha256)
    if choice.paused is not None:
        line.intake.pause(True)
        condition.pause(choice.paused)
    line.orders = Orders(
        line,
        line.intake,
        condition,
        station.clock,
        inspection=config.inspection,
        bundles=bundles_of(config),
        choice=choice,
        choice_path=choice_path,
    )
    if desk is not None:
        desk.act = line.orders.act
    return inspection_from_choice(config.inspection, choice, bundles_of(config))
