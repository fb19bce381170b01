"""`orinspect check-config`: a sentence for everything that is wrong, and an exit code that says where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orinspect.cli import main
from orinspect.tests.small_bundle import write_small_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("check")).path


def _checked(
    folder: Path, capsys: pytest.CaptureFixture[str], bundle: Path, **changes: dict[str, Any]
) -> tuple[int, list[str], list[str]]:
    tables: dict[str, dict[str, Any]] = {
        "device": {"device_id": "d", "station_id": "s"},
        "camera": {"source": "scenes:pcb?seed=1"},
        "inspection": {"bundle": str(bundle)},
        "mqtt": {"host": "h", "root": "a/b"},
        "outbox": {"path": "o.sqlite"},
    }
    for name, change in changes.items():
        tables[name] = {**tables.get(name, {}), **change}
    path = folder / "service.json"
    path.write_text(json.dumps(tables))
    code = main(["check-config", "--config", str(path), "--json"])
    found = json.loads(capsys.readouterr().out)
    return code, found["config"], found["named"]


def test_nothing_is_wrong(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _checked(tmp_path, capsys, bundle) == (0, [], [])
    assert not (tmp_path / "o.sqlite").exists(), "nothing was started"
    assert main(["check-config", "--config", str(tmp_path / "service.json")]) == 0
    assert capsys.readouterr().out == "nothing is wrong\n"


def test_all_that_is_wrong_in_the_file_is_said_at_once(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong: dict[str, Any] = {
        "camera": {"slots": 0, "speed": 1},
        "mqtt": {"port": "x"},
        "trigger": {"kind": "gpioo"},
    }
    code, config, named = _checked(tmp_path, capsys, bundle, **wrong)
    assert (code, named) == (2, [])
    assert len(config) == 4
    assert [
        key for key in ("camera.slots", "'speed'", "mqtt.port", "trigger.kind") if key in " ".join(config)
    ]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"kind": "time"}, "every_s"),
        ({"kind": "command", "every_s": 1.0}, "every_s"),
        ({"kind": "gpio", "gpio_chip": "/dev/gpiochip0"}, "gpio_line"),
        ({"gpio_line": 3}, "gpio_line"),
    ],
)
def test_a_trigger_that_contradicts_itself(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], table: dict[str, Any], named: str
) -> None:
    code, config, _ = _checked(tmp_path, capsys, bundle, trigger=table)
    assert (code, len(config)) == (2, 1)
    assert named in config[0]


def test_a_command_that_does_not_exist(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, config, _ = _checked(tmp_path, capsys, bundle, commands={"allow": ["state", "reboot"]})
    assert code == 2
    assert "'reboot'" in config[0]


def test_what_the_file_names_is_looked_at(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o644)
    (tmp_path / "scale.json").write_text("{}")
    code, config, named = _checked(
        tmp_path,
        capsys,
        bundle,
        inspection={"recipe": "nobody"},
        fallback={"bundle": "absent"},
        camera={"source": "folder:absent"},
        scale={"file": "scale.json"},
        mqtt={"ca_file": "ca.pem"},
        commands={"allow": ["state"], "secret_file": "secret"},
        trigger={"kind": "gpio", "gpio_chip": "/dev/gpiochip99", "gpio_line": 1},
    )
    assert (code, config) == (1, [])
    for part in (
        "inspection: bundle bundle has no recipe 'nobody'",
        "fallback: ",
        "'folder:absent'",
        "scale: ",
        "mqtt.ca_file",
        "chmod 600",
        "/dev/gpiochip99",
    ):
        assert sum(part in sentence for sentence in named) == 1, (part, named)
    assert len(named) == 7


def test_tensorrt_without_engines(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, named = _checked(tmp_path, capsys, bundle, inspection={"backend": "tensorrt"})
    assert code == 1
    assert "orinspect engines build" in named[0]


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().out
