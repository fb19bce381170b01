"""What commands have chosen, over a restart: bundle, recipe and pause.

A station that silently went back to the recipe of service.toml after a power cut would judge parts by the
wrong one. The choice belongs to one content of service.toml: a changed file is the newer word, and ends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ..config import InspectionConfig
from ..errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """Names as commands gave them; None where service.toml holds. `paused`: the reason of a pause."""

    configuration: str  # SHA-256 of service.toml
    bundle: str | None = None
    recipe: str | None = None
    paused: str | None = None


def choice_from_file(path: Path, configuration: str) -> Choice:
    """The choice on disk; an empty one where there is none, or where it belongs to another service.toml."""
    nothing = Choice(configuration)
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        choice = Choice(**table)
        for field in dataclasses.fields(choice):
            if not isinstance(getattr(choice, field.name), (str, type(None))):
                raise TypeError(f"{field.name} is no text")
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError, TypeError, RecursionError) as error:
        log.warning("%s cannot be used (%s); service.toml holds", path, error)
        return nothing
    if choice.configuration != configuration:
        log.warning("service.toml has changed since commands chose %s; it holds again", choice)
        return nothing
    return choice


def write_choice(path: Path, choice: Choice) -> None:
    """Whole or not at all; ConfigError when the disk refuses."""
    fresh = path.with_name(f"{path.name}.new")
    try:
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(choice), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
        with contextlib.suppress(OSError):  # some file systems cannot
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); the choice would be lost") from error


def inspection_from_choice(config: InspectionConfig, choice: Choice, bundles: Path) -> InspectionConfig:
    """[inspection] with what commands chose: a folder of `bundles`, by name, and a recipe of it."""
    if choice.bundle is not None:
        config = dataclasses.replace(config, bundle=bundles / choice.bundle, engines=None, recipe=None)
    if choice.recipe is not None:
        config = dataclasses.replace(config, recipe=choice.recipe)
    return config
