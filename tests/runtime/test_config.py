"""service.toml: what is read, and what is refused by name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from orinspect.runtime.config import load_config
from orinspect.runtime.errors import ConfigError

TEXT = """
[device]
device_id = "orin-07"
station_id = "aoi-1"
[camera]
source = "scenes:pcb?seed=1"
[inspection]
bundle = "bundles/current"
[mqtt]
host = "broker"
root = "enterprise/site/area/line/station"
[outbox]
path = "outbox.sqlite"
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "service.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_short_file_is_enough_and_paths_count_from_it(tmp_path: Path) -> None:
    config = load_config(_file(tmp_path, TEXT))
    assert config.inspection.bundle == tmp_path / "bundles" / "current"
    assert config.outbox.path == tmp_path / "outbox.sqlite"
    assert (config.mqtt.port, config.mqtt.protocol, config.camera.resume) == (1883, "auto", True)
    assert config.name == "service.toml"
    assert config.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()


def test_the_file_of_the_scale_counts_from_the_configuration(tmp_path: Path) -> None:
    assert load_config(_file(tmp_path, TEXT)).scale is None
    config = load_config(_file(tmp_path, TEXT + '[scale]\nfile = "scale.json"\n'))
    assert config.scale is not None
    assert config.scale.file == tmp_path / "scale.json"


def test_the_same_tables_as_json(tmp_path: Path) -> None:
    tables = {
        "device": {"device_id": "d", "station_id": "s"},
        "camera": {"source": "folder:x"},
        "inspection": {"bundle": "b", "threads": 4},
        "mqtt": {"host": "h", "root": "a/b", "keepalive_s": 10},
        "outbox": {"path": "o", "drain_timeout_s": 3},
    }
    path = tmp_path / "service.json"
    path.write_text(json.dumps(tables), encoding="utf-8")
    config = load_config(path)
    assert (config.inspection.threads, config.outbox.drain_timeout_s) == (4, 3.0)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ("station_id", "station", ["[device]", "'station'", "device_id"]),
        ('path = "outbox.sqlite"', "", ["[outbox]", "'path'", "missing"]),
        ("[outbox]", "[outbocks]", ["'outbocks'", "outbox"]),
        ('host = "broker"', "host = 7", ["mqtt.host", "7", "text"]),
        ('host = "broker"', 'host = "b"\nport = "1883"', ["mqtt.port", "'1883'", "whole number"]),
        ('host = "broker"', 'host = "b"\nport = true', ["mqtt.port", "True"]),
        ('host = "broker"', 'host = "b"\nport = 70000', ["mqtt.port", "70000", "65535"]),
        ('host = "broker"', 'host = "b"\nprotocol = "4"', ["mqtt.protocol", "'4'", "'3.1.1'"]),
        ("line/station", "+/station", ["mqtt.root", "+"]),
        ("enterprise/site", "/site", ["mqtt.root", "/site"]),
        ('source = "scenes:pcb?seed=1"', 'source = "x:y"\nslots = 0', ["camera.slots", "0", "at least 1"]),
        ('device_id = "orin-07"', 'device_id = " "', ["device.device_id"]),
        ("[device]", 'sha256 = "x"\n[device]', ["'sha256'"]),
        ("[device]", "[device", ["TOML"]),
        ("[outbox]", "[scale]\n[outbox]", ["[scale]", "'file'", "missing"]),
        ("[outbox]", "[scale]\nfile = 7\n[outbox]", ["scale.file", "7", "path"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, names: list[str]) -> None:
    assert old in TEXT
    path = _file(tmp_path, TEXT.replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    for name in [str(path), *names]:
        assert name in str(caught.value)


@pytest.mark.parametrize("content", [b"[]", b"\xff{}", b"{"])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "service.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"service\.json"):
        load_config(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "service.toml")


def test_every_number_is_refused_below_its_least(tmp_path: Path) -> None:
    numbers: dict[str, dict[str, Any]] = {
        "camera": {"view_index": -1, "view_count": 0, "timeout_s": 0.0},
        "inspection": {"threads": 0},
        "mqtt": {"keepalive_s": 0, "connect_timeout_s": 0.0, "retry_least_s": 0.0, "inflight": 0},
        "outbox": {"keep": 0, "drain_timeout_s": -1.0},
    }
    for table, keys in numbers.items():
        for key, value in keys.items():
            with pytest.raises(ConfigError, match=f"{table}.{key} is"):
                load_config(_file(tmp_path, TEXT.replace(f"[{table}]", f"[{table}]\n{key} = {value}")))


def test_a_password_may_be_a_systemd_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = 'username = "u"\npassword_credential = "mqtt-password"'
    path = _file(tmp_path, TEXT.replace("[outbox]", f"{lines}\n[outbox]"))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(ConfigError, match="LoadCredential"):
        load_config(path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "run"))
    assert load_config(path).mqtt.password_file == tmp_path / "run" / "mqtt-password"


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ('username = "u"\npassword_credential = "../x"', ["password_credential", "../x"]),
        (
            'username = "u"\npassword_credential = "x"\npassword_file = "y"',
            ["password_file", "leave one out"],
        ),
        ('password_file = "y"', ["mqtt.username"]),
        ('key_file = "y"', ["mqtt.key_file", "mqtt.cert_file"]),
        ('tls_version = "1.1"', ["mqtt.tls_version", "'1.1'"]),
        ('ack = "maybe"', ["mqtt.ack", "'maybe'"]),
    ],
)
def test_what_does_not_fit_together_in_mqtt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, names: list[str]
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        load_config(_file(tmp_path, TEXT.replace("[outbox]", f"{lines}\n[outbox]")))
    for name in names:
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("mqtt", "retry_least_s", 10**400),
        ("mqtt", "port", -(10**400)),
        ("camera", "timeout_s", float("nan")),
        ("device", "device_id", "\ud800"),
    ],
)
def test_what_no_float_and_no_text_can_hold_is_refused_by_its_key(
    tmp_path: Path, table: str, key: str, value: object
) -> None:
    path = tmp_path / "service.json"
    tables: dict[str, dict[str, Any]] = {
        "device": {"device_id": "d", "station_id": "s"},
        "camera": {"source": "folder:x"},
        "inspection": {"bundle": "b"},
        "mqtt": {"host": "h", "root": "a/b"},
        "outbox": {"path": "o"},
    }
    tables[table][key] = value
    path.write_text(json.dumps(tables))
    with pytest.raises(ConfigError, match=f"{table}.{key}"):
        load_config(path)
