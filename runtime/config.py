"""The service's configuration: `service.toml` read once into frozen dataclasses and passed down.

Every key that is not a field here is an error that names the key and its table. Relative paths count from
the folder of the file. The same tables may be written as JSON in a file that ends in `.json`: Python 3.10
reads no TOML by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError

MqttProtocol = Literal["auto", "5", "3.1.1"]


@dataclass(frozen=True)
class DeviceConfig:
    """[device]: names that every report carries; `version` is the plant's version of this configuration."""

    device_id: str
    station_id: str
    version: str | None = None


@dataclass(frozen=True)
class CameraConfig:
    """[camera]: where frames come from, and in how many places they may wait.

    `resume`: a source that can start over (scenes, a folder) goes on behind the last part it delivered.
    """

    source: str
    camera_id: str = "cam0"
    view_index: int = 0
    view_count: int = 1
    timeout_s: float = 30.0
    slots: int = 3
    resume: bool = True


@dataclass(frozen=True)
class InspectionConfig:
    """[inspection]: the bundle, which of its recipes, and what runs it.

    backend: `onnxruntime` on the CPU with `threads` a call, or `tensorrt` with the engines that
    `orinspect engines build` put into the folder `engines`, by default the one beside the bundle.
    """

    bundle: Path
    recipe: str | None = None
    threads: int = 2
    backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    engines: Path | None = None


@dataclass(frozen=True)
class ScaleConfig:
    """[scale]: the file of `orinspect calibrate scale`; it goes before the recipe's mm_per_px."""

    file: Path


@dataclass(frozen=True)
class PartConfig:
    """[part]: what the plant knows about all parts of this run."""

    job_id: str | None = None
    lot: str | None = None


@dataclass(frozen=True)
class MqttConfig:
    """[mqtt]: the broker, and the root under which `result`, `state` and the others stand.

    `inflight`: reports on the way at a time. The password is the content of `password_file`.
    """

    host: str
    root: str
    port: int = 1883
    client_id: str | None = None
    protocol: MqttProtocol = "auto"
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    tls: bool = False
    keepalive_s: int = 30
    connect_timeout_s: float = 10.0
    retry_least_s: float = 0.5
    retry_most_s: float = 30.0
    inflight: int = 20


@dataclass(frozen=True)
class OutboxConfig:
    """[outbox]: the SQLite file, published rows kept in it, and how long a stop waits for the broker."""

    path: Path
    keep: int = 10_000
    drain_timeout_s: float = 20.0


@dataclass(frozen=True)
class ServiceConfig:
    """All of `service.toml`; `sha256` is the hash of the file as it was read, `name` its name."""

    device: DeviceConfig
    camera: CameraConfig
    inspection: InspectionConfig
    mqtt: MqttConfig
    outbox: OutboxConfig
    part: PartConfig = field(default_factory=PartConfig)
    scale: ScaleConfig | None = None
    name: str = "service.toml"
    sha256: str = ""


def load_config(path: str | Path) -> ServiceConfig:
    """Read `service.toml` (or `.json`); ConfigError names the file and the key that is wrong."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a service.toml"
        ) from error
    table = _table_from_bytes(content, path)
    for name in ("name", "sha256"):
        if name in table:
            raise ConfigError(f"{path}: unknown key {name!r}")
    config = _dataclass_from_table(ServiceConfig, table, path, "")
    _check(config, path)
    return typing.cast(
        ServiceConfig, dataclasses.replace(config, name=path.name, sha256=hashlib.sha256(content).hexdigest())
    )


def _table_from_bytes(content: bytes, path: Path) -> dict[str, Any]:
    """The tables of a TOML or JSON file."""
    try:
        text = content.decode("utf-8")
        if path.suffix == ".json":
            table = json.loads(text)
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: expected tables, found {type(table).__name__}")
            return table
    except ValueError as error:
        raise ConfigError(f"{path}: not valid ({error})") from error
    try:
        import tomllib
    except ModuleNotFoundError:
        try:
            import tomli as tomllib  # type: ignore[no-redef,unused-ignore]
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"{path}: Python 3.10 reads no TOML by itself; pip install tomli, or write it as service.json"
            ) from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML ({error})") from error


def _dataclass_from_table(cls: Any, table: Any, path: Path, name: str) -> Any:
    """Fill a dataclass from a table; `name` is the table's name, empty at the top."""
    place = f"{path}: [{name}]" if name else str(path)
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} must be a table, found {table!r}")
    hints = typing.get_type_hints(cls)
    fields = {
        entry.name: entry for entry in dataclasses.fields(cls) if name or entry.name not in ("name", "sha256")
    }
    for key in table:
        if key not in fields:
            raise ConfigError(f"{place}: unknown key {key!r}; known keys are {', '.join(fields)}")
    for key, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and key not in table:
            raise ConfigError(f"{place}: {key!r} is missing")
    return cls(
        **{
            key: _typed(hints[key], value, path, f"{name}.{key}" if name else key)
            for key, value in table.items()
        }
    )


def _typed(hint: Any, value: Any, path: Path, key: str) -> Any:
    """`value` as the type `hint`, or a ConfigError that names the key, the value and what is expected."""
    if dataclasses.is_dataclass(hint):
        return _dataclass_from_table(hint, value, path, key)
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        if value not in arguments:
            raise ConfigError(f"{path}: {key} is {value!r}; expected {' or '.join(map(repr, arguments))}")
        return value
    if typing.get_origin(hint) is types.UnionType:
        return _typed(arguments[0], value, path, key)
    if hint is Path and isinstance(value, str) and value:
        return path.parent / value
    is_bool = isinstance(value, bool)  # which is an int in Python, never in a configuration
    if hint is float and isinstance(value, (int, float)) and not is_bool:
        return float(value)
    if hint is not Path and isinstance(value, hint) and is_bool == (hint is bool):
        return value
    expected = {
        int: "a whole number",
        str: "a text",
        bool: "true or false",
        float: "a number",
        Path: "a path",
    }
    raise ConfigError(f"{path}: {key} must be {expected[hint]}, found {value!r}")


def _check(config: ServiceConfig, path: Path) -> None:
    """Values that have the right type and still make no sense."""
    camera, mqtt, outbox = config.camera, config.mqtt, config.outbox
    least: dict[str, tuple[float, float]] = {
        "camera.view_index": (camera.view_index, 0),
        "camera.view_count": (camera.view_count, camera.view_index + 1),
        "camera.timeout_s": (camera.timeout_s, 0.1),
        "camera.slots": (camera.slots, 1),
        "inspection.threads": (config.inspection.threads, 1),
        "mqtt.port": (mqtt.port, 1),
        "mqtt.keepalive_s": (mqtt.keepalive_s, 1),
        "mqtt.connect_timeout_s": (mqtt.connect_timeout_s, 0.1),
        "mqtt.retry_least_s": (mqtt.retry_least_s, 0.01),
        "mqtt.retry_most_s": (mqtt.retry_most_s, mqtt.retry_least_s),
        "mqtt.inflight": (mqtt.inflight, 1),
        "outbox.keep": (outbox.keep, 1),
        "outbox.drain_timeout_s": (outbox.drain_timeout_s, 0),
    }
    for key, (value, minimum) in least.items():
        if not value >= minimum:
            raise ConfigError(f"{path}: {key} is {value:g}; it must be at least {minimum:g}")
    if mqtt.port > 65535:
        raise ConfigError(f"{path}: mqtt.port is {mqtt.port}; it must be at most 65535")
    if not mqtt.root or mqtt.root != mqtt.root.strip("/") or set(mqtt.root) & set("+#\0$"):
        raise ConfigError(
            f"{path}: mqtt.root is {mqtt.root!r}; give a topic such as 'enterprise/site/area/line/station',"
            " without +, #, $ and without / at its ends"
        )
    for key, name in (("device_id", config.device.device_id), ("station_id", config.device.station_id)):
        if not name.strip():
            raise ConfigError(f"{path}: device.{key} is {name!r}; give the station a name")
