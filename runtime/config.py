"""The service's configuration: `service.toml` read once into frozen dataclasses and passed down.

Every key that is not a field here is an error that names the key and its table; config_reading.py says how it
is read and what a field may be. Relative paths count from the folder of the file. The same tables may be
written as JSON in a file that ends in `.json`: Python 3.10 reads no TOML by itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .config_reading import HIDDEN, TableReader, number, table_from_bytes
from .errors import ConfigError

MqttProtocol = Literal["auto", "5", "3.1.1"]
COMMANDS = ("inspect", "recipe/select", "state", "self-test", "pause", "resume", "bundle/activate")


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
    view_index: int = number(0, least=0)
    view_count: int = number(1, least=1)
    timeout_s: float = number(30.0, least=0.1)
    slots: int = number(3, least=1)
    resume: bool = True


@dataclass(frozen=True)
class TruthConfig:
    """[truth]: when a frame is not the picture of a part; 0 or nothing leaves a check out (docs/cameras.md).

    stale_s: age; frozen_frames: the same content so many times after the first; shares: of the area that is
    black or white; most_blur_px: sigma of the edges; most_moved_px, least_likeness: beside the frame's
    template, or `reference`, a picture of the empty or filled place.
    """

    stale_s: float = number(2.0, least=0)
    frozen_frames: int = number(1, least=0)
    most_dark_share: float = number(0.9999, least=0, most=1)
    most_glare_share: float = number(0.9999, least=0, most=1)
    most_blur_px: float = number(0.0, least=0)
    most_moved_px: float = number(0.0, least=0)
    least_likeness: float = number(0.2, least=0, most=1)
    reference: Path | None = None


@dataclass(frozen=True)
class RecoveryConfig:
    """[recovery]: the waits between two attempts to get a camera back, doubling from the least to the most.

    faulty_frames: so many in a row are an alarm; good_frames: so many, and the next failure is a first one.
    """

    retry_least_s: float = number(0.5, least=0.01)
    retry_most_s: float = number(60.0, least=0.01)
    faulty_frames: int = number(5, least=1)
    good_frames: int = number(5, least=1)


@dataclass(frozen=True)
class InspectionConfig:
    """[inspection]: the bundle, which of its recipes, and what runs it.

    backend: `onnxruntime` on the CPU with `threads` a call, or `tensorrt` with the engines that
    `orinspect engines build` put into the folder `engines`, by default the one beside the bundle.
    part_limit_s: an inspection that takes longer is stuck, and systemd's watchdog may end the process.
    """

    bundle: Path
    recipe: str | None = None
    threads: int = number(2, least=1)
    backend: Literal["onnxruntime", "tensorrt"] = "onnxruntime"
    engines: Path | None = None
    part_limit_s: float = number(120.0, least=1)


@dataclass(frozen=True)
class TriggerConfig:
    """[trigger]: what says that a part is there, see docs/triggers.md.

    kind: `frames` (every frame of the source), `free_run` (the newest, whenever the inspection is free),
    `time` (every `every_s`), `command` (cmd/inspect), `gpio` (an edge of a line); `auto` is frames for
    sources that can start over (scenes, folders) and free_run for cameras. `queue`: accepted parts that may
    wait; `picture_timeout_s`: from a trigger to its picture.
    """

    kind: Literal["auto", "frames", "free_run", "time", "command", "gpio"] = "auto"
    every_s: float | None = number(None, least=0.01)
    queue: int = number(4, least=1, most=1000)
    picture_timeout_s: float = number(2.0, least=0.01)
    gpio_chip: str | None = None
    gpio_line: int | None = number(None, least=0)
    gpio_edge: Literal["rising", "falling"] = "rising"
    gpio_debounce_ms: float = number(5.0, least=0, most=10_000)


@dataclass(frozen=True)
class CommandsConfig:
    """[commands]: which commands over MQTT are obeyed, see docs/commands.md; without the table none are.

    allow: their names; secret_file: all but the `unsigned` ones must then carry a signature; window_s: how
    far `issued_at` may be off; bundles: the folder whose bundles may be activated, by default the one that
    holds inspection.bundle.
    """

    allow: tuple[str, ...]
    secret_file: Path | None = None
    unsigned: tuple[str, ...] = ("state",)
    window_s: float = number(60.0, least=1, most=86_400)
    most_bytes: int = number(4096, least=256, most=65_536)
    bundles: Path | None = None


@dataclass(frozen=True)
class ScaleConfig:
    """[scale]: the file of `orinspect calibrate scale`; it goes before the recipe's mm_per_px."""

    file: Path


@dataclass(frozen=True)
class PartConfig:
    """[part]: what the plant knows about all parts of this run.

    id_from_picture: read the id of a part that has none from a QR code, barcode or DataMatrix in its picture.
    """

    job_id: str | None = None
    lot: str | None = None
    id_from_picture: bool = False


@dataclass(frozen=True)
class MqttConfig:
    """[mqtt]: the broker, and the root under which `result`, `state` and the others stand.

    `inflight`: reports on the way at a time. The password is the first line of `password_file`, or the
    systemd credential `password_credential`. TLS is used with `tls`, `ca_file` or `cert_file`, from
    `tls_version` on; `cert_file` and `key_file` are this station's own (mutual TLS). `ack = "required"`: a
    report that the MES did not acknowledge within `ack_timeout_s` is sent again.
    """

    host: str
    root: str
    port: int = number(1883, least=1, most=65535)
    client_id: str | None = None
    protocol: MqttProtocol = "auto"
    username: str | None = None
    password_file: Path | None = None
    password_credential: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    tls: bool = False
    tls_version: Literal["1.2", "1.3"] = "1.2"
    ack: Literal["none", "required"] = "none"
    ack_timeout_s: float = number(60.0, least=1)
    keepalive_s: int = number(30, least=1)
    connect_timeout_s: float = number(10.0, least=0.1)
    retry_least_s: float = number(0.5, least=0.01)
    retry_most_s: float = number(30.0, least=0.01)
    inflight: int = number(20, least=1)


@dataclass(frozen=True)
class OutboxConfig:
    """[outbox]: the SQLite file, published rows kept in it, and how long a stop waits for the broker.

    Its bounds: rows that are not delivered, MiB of the file, MiB that stay free on its disk, and MiB that a
    reserved file holds for the moment when the disk is full.
    """

    path: Path
    keep: int = number(10_000, least=1)
    most_rows: int = number(2_000_000, least=10)
    most_mib: int = number(8192, least=1)
    free_mib: int = number(64, least=0)
    reserve_mib: int = number(8, least=2, most=1024)
    drain_timeout_s: float = number(20.0, least=0)


@dataclass(frozen=True)
class PrivacyZone:
    """[[evidence.zones]]: pixels x1 <= x < x2, y1 <= y < y2 of the stored picture that nobody may see."""

    x1: int = number(least=0)
    y1: int = number(least=0)
    x2: int = number(least=1)
    y2: int = number(least=1)
    mode: Literal["fill", "blur"] = "fill"


@dataclass(frozen=True)
class EvidenceConfig:
    """[evidence]: pictures of every reject and review, and of a share of the passes.

    `pass_share` of the passes, chosen by a hash of result_id and `seed`; the quotas in MiB by disposition;
    `free_mib` stay free on the disk; at most `queue` pictures wait in memory.
    """

    folder: Path
    pass_share: float = number(0.01, least=0, most=1)
    seed: int = 0
    format: Literal["png", "jpeg"] = "png"
    reject_mib: int = number(4096, least=1)
    review_mib: int = number(4096, least=1)
    pass_mib: int = number(1024, least=1)
    free_mib: int = number(1024, least=0)
    queue: int = number(8, least=1)
    zones: tuple[PrivacyZone, ...] = ()


@dataclass(frozen=True)
class AuditConfig:
    """[audit]: the folder of the hash-chained lines; a new file after `file_bytes`, `keep_files` of them."""

    folder: Path
    file_bytes: int = number(4 * 2**20, least=4096)
    keep_files: int = number(256, least=2)


@dataclass(frozen=True)
class ShiftsConfig:
    """[shifts]: local start times in a named time zone, names for them, and the folder of the CSV files.

    `stats/shift` is published at most every `publish_s`; the counters keep the last `keep` shifts.
    """

    time_zone: str = "UTC"
    starts: tuple[str, ...] = ("00:00",)
    names: tuple[str, ...] = ()
    csv: Path | None = None
    publish_s: float = number(10.0, least=1, most=3600)
    keep: int = number(300, least=3)


@dataclass(frozen=True)
class HealthConfig:
    """[health]: how often `health` is published, and the port of the metrics on 127.0.0.1 (None: none)."""

    interval_s: float = number(30.0, least=1, most=3600)
    metrics_port: int | None = number(None, least=1, most=65535)


@dataclass(frozen=True)
class ServiceConfig:
    """All of `service.toml`; `sha256` is the hash of the file as it was read, `name` its name."""

    device: DeviceConfig
    camera: CameraConfig
    inspection: InspectionConfig
    mqtt: MqttConfig
    outbox: OutboxConfig
    part: PartConfig = field(default_factory=PartConfig)
    truth: TruthConfig = field(default_factory=TruthConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    trigger: TriggerConfig = field(default_factory=TriggerConfig)
    commands: CommandsConfig | None = None
    fallback: InspectionConfig | None = None  # what inspects when the golden frames of [inspection] fail
    scale: ScaleConfig | None = None
    evidence: EvidenceConfig | None = None
    audit: AuditConfig | None = None
    shifts: ShiftsConfig = field(default_factory=ShiftsConfig)
    health: HealthConfig = field(default_factory=HealthConfig)
    name: str = field(default="service.toml", metadata=HIDDEN)
    sha256: str = field(default="", metadata=HIDDEN)


def load_config(path: str | Path) -> ServiceConfig:
    """Read `service.toml` (or `.json`); ConfigError names the file and the first key that is wrong."""
    config, problems = read_config(path)
    if config is None:
        raise ConfigError(problems[0])
    return config


def read_config(path: str | Path) -> tuple[ServiceConfig | None, list[str]]:
    """The configuration, or None and all that is wrong with it, a sentence each.

    ConfigError when the file cannot be read or holds no tables.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give the path of a service.toml"
        ) from error
    reader = TableReader(path)
    config: ServiceConfig | None = reader.dataclass_from_table(ServiceConfig, table_from_bytes(content, path))
    if config is None:
        return None, reader.problems
    mqtt, problem = _with_credential(config.mqtt)
    config = dataclasses.replace(config, mqtt=mqtt)
    problems = [f"{path}: {sentence}" for sentence in (*problem, *_contradictions(config))]
    if problems:
        return None, problems
    return dataclasses.replace(config, name=path.name, sha256=hashlib.sha256(content).hexdigest()), []


def _with_credential(mqtt: MqttConfig) -> tuple[MqttConfig, list[str]]:
    """The password's file where systemd put the credential (LoadCredential=), or what is wrong."""
    name = mqtt.password_credential
    if name is None:
        return mqtt, []
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    wrong = None
    if mqtt.password_file is not None:
        wrong = "mqtt.password_file is given, too; leave one out"
    elif "/" in name or name in ("", ".", ".."):
        wrong = "give a name of LoadCredential=, not a path"
    elif folder is None:
        wrong = "systemd gives this process no credentials; add LoadCredential= to the unit"
    if folder is None or wrong is not None:
        return mqtt, [f"mqtt.password_credential is {name!r}; {wrong}"]
    return dataclasses.replace(mqtt, password_file=Path(folder) / name), []


def _contradictions(config: ServiceConfig) -> list[str]:
    """What has the right type and range, and still makes no sense."""
    camera, mqtt, again, found = config.camera, config.mqtt, config.recovery, []
    for key, value, other, least in (
        ("camera.view_count", camera.view_count, "view_index + 1", camera.view_index + 1),
        ("mqtt.retry_most_s", mqtt.retry_most_s, "retry_least_s", mqtt.retry_least_s),
        ("recovery.retry_most_s", again.retry_most_s, "retry_least_s", again.retry_least_s),
    ):
        if value < least:
            found.append(f"{key} is {value:g}; it must be at least {least:g}, {other}")
    if mqtt.key_file is not None and mqtt.cert_file is None:
        found.append("mqtt.key_file is given without mqtt.cert_file; give both for mutual TLS")
    if mqtt.password_file is not None and mqtt.username is None:
        found.append("a password is given without mqtt.username; MQTT 3.1.1 sends none without a name")
    found += _trigger_contradictions(config.trigger)
    if config.commands is not None:
        for key, names in (("allow", config.commands.allow), ("unsigned", config.commands.unsigned)):
            unknown = sorted(set(names) - set(COMMANDS))
            if unknown:
                found.append(f"commands.{key} names {unknown[0]!r}; there are {', '.join(COMMANDS)}")
    if not mqtt.root or mqtt.root != mqtt.root.strip("/") or set(mqtt.root) & set("+#\0$"):
        found.append(
            f"mqtt.root is {mqtt.root!r}; give a topic such as 'enterprise/site/area/line/station',"
            " without +, #, $ and without / at its ends"
        )
    for index, zone in enumerate(config.evidence.zones if config.evidence else ()):
        if zone.x1 >= zone.x2 or zone.y1 >= zone.y2:
            found.append(f"evidence.zones[{index}] is empty; x2 must be above x1 and y2 above y1")
    for key, name in (("device_id", config.device.device_id), ("station_id", config.device.station_id)):
        if not name.strip():
            found.append(f"device.{key} is {name!r}; give the station a name")
    return found


def _trigger_contradictions(trigger: TriggerConfig) -> list[str]:
    found = []
    if (trigger.kind == "time") != (trigger.every_s is not None):
        found.append(
            f"trigger.kind is {trigger.kind!r} and trigger.every_s {trigger.every_s}; every_s belongs to time"
        )
    gpio = (trigger.gpio_chip, trigger.gpio_line)
    if trigger.kind == "gpio" and None in gpio:
        found.append("trigger.kind is 'gpio': give gpio_chip, such as '/dev/gpiochip0', and gpio_line")
    if trigger.kind != "gpio" and gpio != (None, None):
        found.append(f"trigger.gpio_chip and gpio_line belong to kind gpio; trigger.kind is {trigger.kind!r}")
    return found
