"""The line's parts as service.toml wants them."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from ..capture.clock import SystemClock
from ..capture.recovery import CameraTrouble, SteadyCamera, steady_camera
from ..capture.sources import SourceText
from ..capture.triggers.gpio import GpioTrigger
from ..capture.triggers.timer import TimerTrigger
from ..config import OutboxConfig, ServiceConfig
from ..deliver.outbox import Bounds, Outbox
from .intake import Intake, IntakeKind
from .parts import PartBook, resume_from_outbox


def beside_outbox(config: ServiceConfig, ending: str) -> Path:
    """A small file of the service's own, in the folder of the outbox, which is there and is written to."""
    path = config.outbox.path
    return path.with_name(f"{path.stem}.{ending}")


def bounds_of(config: OutboxConfig) -> Bounds:
    """The outbox's bounds in bytes."""
    mib = 2**20
    return Bounds(config.most_rows, config.most_mib * mib, config.free_mib * mib, config.reserve_mib * mib)


def bundles_of(config: ServiceConfig) -> Path:
    """The folder whose folders `bundle/activate` may name."""
    commands = config.commands
    if commands is not None and commands.bundles is not None:
        return commands.bundles
    return config.inspection.bundle.parent


def intake_from_config(config: ServiceConfig, book: PartBook, clock: SystemClock) -> Intake:
    """Frames and triggers of the kind that [trigger] names."""
    trigger, starts_over = config.trigger, not SourceText.of(config.camera.source).is_live
    kind: IntakeKind
    if trigger.kind == "auto":
        kind = "frames" if starts_over else "free_run"
    else:
        kind = trigger.kind
    return Intake(
        kind,
        book,
        starts_over=starts_over,
        most_waiting=trigger.queue,
        picture_timeout_s=trigger.picture_timeout_s,
        monotonic_ns=clock.monotonic_ns,
    )


def camera_from_config(
    config: ServiceConfig, outbox: Outbox, tell: Callable[[CameraTrouble], None]
) -> SteadyCamera:
    """The camera in a process of its own, checked and recovered; `tell` hears of its troubles."""
    resume = functools.partial(resume_from_outbox, config.camera, outbox)
    return steady_camera(config, resume=resume, tell=tell, random=random.random)


def trigger_from_config(
    config: ServiceConfig, intake: Intake, clock: SystemClock
) -> AbstractContextManager[object]:
    """What fires by itself; commands come through the desk."""
    trigger = config.trigger
    if trigger.kind == "time":
        assert trigger.every_s is not None
        return TimerTrigger(trigger.every_s, clock, intake.fire)
    if trigger.kind == "gpio":
        assert trigger.gpio_chip is not None
        assert trigger.gpio_line is not None
        return GpioTrigger(
            trigger.gpio_chip,
            trigger.gpio_line,
            edge=trigger.gpio_edge,
            debounce_ms=trigger.gpio_debounce_ms,
            clock=clock,
            fire=intake.fire,
        )
    return nullcontext()
