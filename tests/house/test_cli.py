"""The command line's manners: help with an example, exit codes, one sentence for every refusal."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from orinspect import __version__
from orinspect.cli import main
from orinspect.runtime.errors import BundleError, ConfigError

# command -> what runs it
COMMANDS = {
    "demo": "cli._demo",
    "export": "cli._export",
    "inspect": "cli._inspect",
    "evaluate": "evaluation.commands.evaluate",
    "run": "cli._run",
    "check-config": "cli._check_config",
    "bench": "evaluation.commands.bench",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"example: orinspect {command}" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_in_the_help_is_accepted(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main([command, "--help"])
    example = " ".join(capsys.readouterr().out.split()).partition("example: ")[2]
    monkeypatch.setattr(f"orinspect.{COMMANDS[command]}", lambda arguments: 0)
    assert main(shlex.split(example)[1:]) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"orinspect {__version__}"


@pytest.mark.parametrize("arguments", [[], ["paint"], ["inspect"], ["demo", "--parts", "0"], ["run"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(BundleError("a.onnx is cut"), 1), (ConfigError("port?"), 2)])
def test_an_error_of_ours_is_one_sentence(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(error, monkeypatch)
    assert main(["run", "--config", "x.toml"]) == code
    shown = capsys.readouterr()
    assert shown.err == f"orinspect: {error}\n"
    assert not shown.out


def test_a_folder_that_refuses_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file where the demo wants a folder", encoding="utf-8")
    checkpoint = ["--checkpoint", str(tmp_path), "--recipe", str(tmp_path)]
    assert main(["demo", "--out", str(taken), *checkpoint]) == 1
    assert capsys.readouterr().err.strip() == f"orinspect: {taken}: File exists"
    assert taken.read_text("utf-8").startswith("a file")


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(KeyboardInterrupt(), monkeypatch)
    assert main(["run", "--config", "x.toml"]) == 130


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fail_with(ModuleNotFoundError("no onnx", name="onnx"), monkeypatch)
    assert main(["run", "--config", "x.toml"]) == 1
    assert "pip install 'orinspect[export]'" in capsys.readouterr().err


def test_a_bug_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(ZeroDivisionError(), monkeypatch)
    with pytest.raises(ZeroDivisionError):
        main(["run", "--config", "x.toml"])


def _fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(arguments: object) -> int:
        raise error

    monkeypatch.setattr("orinspect.cli._run", run)


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "no-bundle", "no.png"],
        ["evaluate", "no-bundle", "scenes:pcb?seed=1&parts=1"],
        ["run", "--config", "no.toml"],
        ["export", "no-checkpoint", "--recipe", "no.toml", "--calibration", "scenes:pcb?seed=1", "-o", "out"],
    ],
)
def test_what_does_not_exist_is_refused_and_leaves_nothing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) in (1, 2)
    assert capsys.readouterr().err.strip().startswith("orinspect: ")
    assert not list(tmp_path.iterdir())
