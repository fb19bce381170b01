"""`orinspect check-config`: everything that service.toml names, looked at without starting anything.

Nothing is opened that the service could be using: no camera device, no outbox, no broker.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..capture.frame import camera_from_source
from ..capture.sources import SourceText
from ..config import InspectionConfig, ServiceConfig, read_config
from ..deliver.commands.seal import secret_from_file
from ..errors import ConfigError, OrinspectError
from ..infer.engines.plans import current_set, plans_folder
from ..judge.scale import read_scale, scale_problem
from .choice import choice_from_file
from .station import check_installed


def problems_of_config(path: Path, unix_s: Callable[[], float] = time.time) -> tuple[list[str], list[str]]:
    """What is wrong with service.toml itself, and with what it names; a sentence each."""
    try:
        config, wrong = read_config(path)
    except ConfigError as error:
        return [str(error)], []
    if config is None:
        return wrong, []
    return [], [sentence for sentence in _problems(config, unix_s()) if sentence]


def _problems(config: ServiceConfig, unix_s: float) -> Iterator[str | None]:
    yield from _bundle("inspection", config.inspection)
    if config.fallback is not None:
        yield from _bundle("fallback", config.fallback)
    yield _said(lambda: _open_camera(config.camera.source))
    if config.scale is not None:
        yield _scale(config.scale.file, config.camera.camera_id, unix_s)
    mqtt = config.mqtt
    for key, file in (("mqtt.ca_file", mqtt.ca_file), ("mqtt.password_file", mqtt.password_file)):
        yield _readable(key, file)
    if config.commands is not None:
        secret, bundles = config.commands.secret_file, config.commands.bundles
        if secret is not None:
            yield _said(lambda: secret_from_file(secret))
            yield _private("commands.secret_file", secret)
        if bundles is not None and not os.path.isdir(bundles):
            yield f"commands.bundles: {bundles} is no folder"
    yield _private("mqtt.password_file", mqtt.password_file)
    chip = config.trigger.gpio_chip
    if chip is not None and not os.path.exists(chip):
        yield f"trigger.gpio_chip: {chip} does not exist; `gpiodetect` lists what there is"
    yield _writable("outbox.path", config.outbox.path.parent)
    chosen = config.outbox.path.with_name(f"{config.outbox.path.stem}.choice.json")
    if choice_from_file(chosen, config.sha256).paused is not None:
        yield "the station was paused by a command and will start paused; send resume"


def _bundle(table: str, config: InspectionConfig) -> Iterator[str | None]:
    def said(work: Callable[[], object]) -> str | None:
        sentence = _said(work)
        return None if sentence is None else f"{table}: {sentence}"

    yield said(lambda: check_installed(config))
    if config.backend == "tensorrt":
        yield said(lambda: current_set(config.engines or plans_folder(config.bundle)))


def _open_camera(source: str) -> None:
    """A source of files is opened; of a device only the text is read."""
    text = SourceText.of(source)
    if not text.is_live:
        camera_from_source(source).close()


def _scale(file: Path, camera_id: str, unix_s: float) -> str | None:
    try:
        problem = scale_problem(read_scale(file), unix_s=unix_s, camera_id=camera_id)
    except OrinspectError as error:
        return f"scale: {error}"
    return None if problem is None else f"scale: {problem}; parts will be inspected without sizes"


def _said(work: Callable[[], object]) -> str | None:
    """What an attempt complains about."""
    try:
        work()
    except OrinspectError as error:
        return str(error)
    return None


def _readable(key: str, file: Path | None) -> str | None:
    if file is None or (os.path.isfile(file) and os.access(file, os.R_OK)):
        return None
    return f"{key}: {file} {'cannot be read' if os.path.exists(file) else 'does not exist'}"


def _private(key: str, file: Path | None) -> str | None:
    if file is None or not os.path.isfile(file) or not file.stat().st_mode & 0o077:
        return None
    return f"{key}: {file} can be read by others than its owner; chmod 600 it"


def _writable(key: str, folder: Path) -> str | None:
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent  # the service makes what is missing
    return None if os.access(folder, os.W_OK) else f"{key}: {folder} cannot be written to by this user"
