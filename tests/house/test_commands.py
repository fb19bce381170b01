"""The commands as a person runs them, on an untrained bundle: what they print, refuse and leave."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import jsonschema
import pytest

from orinspect.cli import main
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.tests.scripted_broker import NOT_AUTHORISED, ScriptedBroker
from orinspect.tests.small_bundle import RECIPE, write_small_bundle
from orinspect.tests.tiny_checkpoint import write_tiny_checkpoint

ROOT = Path(__file__).resolve().parents[2]
SCENES = "scenes:pcb?seed=1&size_px=192&parts=2"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("house")).path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A part with defects and its golden template, as files."""
    folder, scene = tmp_path_factory.mktemp("pair"), pcb_scene(3, size_px=256)
    for name, picture in (("part.png", scene.image), ("golden.png", scene.template)):
        assert cv2.imwrite(str(folder / name), picture)
    return folder / "part.png", folder / "golden.png"


def _schema() -> dict[str, Any]:
    text = (ROOT / "runtime" / "schema" / "report-1.0.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_inspect_prints_one_report_that_the_schema_takes(
    form: list[str], bundle: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(bundle), str(pair[0]), "--template", str(pair[1]), *form]) == 0
    shown = capsys.readouterr().out
    report = json.loads(shown)
    jsonschema.validate(report, _schema(), format_checker=jsonschema.FormatChecker())
    assert (len(shown.splitlines()) == 1) == bool(form)
    assert report["passes"]["tiles"] > report["passes"]["tiles_gated"]
    assert report["passes"]["row_passes_forced"] == 0
    assert report["image"]["width"] == 256


def test_evaluate_prints_the_scores_and_writes_the_predictions(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "found.jsonl"
    assert main(["evaluate", str(bundle), SCENES, "--json", "--predictions", str(rows)]) == 0
    scores = json.loads(capsys.readouterr().out)
    wanted = {"parts", "precision", "recall", "f", "map", "per_class", "agnostic", "per_detector", "baseline"}
    assert wanted | {"ms_per_part"} <= set(scores)
    assert set(scores["per_detector"]) == {"dense", "words", "both"}
    assert scores["parts"] == 2
    predicted = [json.loads(row) for row in rows.read_text("utf-8").splitlines()]
    assert [set(row) for row in predicted] == [{"image", "defects"}] * 2


def test_bench_prints_a_table(
    bundle: Path, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", str(bundle), str(pair[0]), "--template", str(pair[1]), "--rounds", "1"]) == 0
    assert "vision" in capsys.readouterr().out


def test_float_export_then_inspect(
    pair: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint")
    out = tmp_path / "bundle"
    export = ["export", str(checkpoint), "--recipe", str(RECIPE), "--calibration", SCENES, "-o", str(out)]
    assert main([*export, "--precision", "float32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "float32"
    assert main(["inspect", str(out), str(pair[0]), "--template", str(pair[1]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"]["precision"] == "float32"


def _other_architecture(checkpoint: Path, recipe: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    config["model_type"] = "llava"
    (checkpoint / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _missing_shard(checkpoint: Path, recipe: Path) -> None:
    sorted(checkpoint.glob("model-*.safetensors"))[0].unlink()


def _unknown_key(checkpoint: Path, recipe: Path) -> None:
    recipe.write_text("colour = 'red'\n" + recipe.read_text("utf-8"), encoding="utf-8")


def _type_twice(checkpoint: Path, recipe: Path) -> None:
    text = recipe.read_text("utf-8")
    recipe.write_text(text + text[text.rindex("[[defect]]") :], encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "code", "named"),
    [
        (_other_architecture, 1, "llava"),
        (_missing_shard, 1, "model-00001-of-00002.safetensors"),
        (_unknown_key, 2, "colour"),
        (_type_twice, 2, "pin-hole"),
    ],
)
def test_export_refuses_and_leaves_nothing(
    spoil: Callable[[Path, Path], None],
    code: int,
    named: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", shards=2)
    recipe = Path(shutil.copy(RECIPE, tmp_path / "recipe.toml"))
    spoil(checkpoint, recipe)
    out = tmp_path / "out" / "bundle"
    out.parent.mkdir()
    export = ["export", str(checkpoint), "--recipe", str(recipe), "--calibration", SCENES, "-o", str(out)]
    assert main(export) == code
    _assert_one_sentence(capsys, named)
    assert not list(out.parent.iterdir())


def _truncated_bundle(bundle: Path, pair: tuple[Path, Path], tmp_path: Path) -> list[str]:
    broken = Path(shutil.copytree(bundle, tmp_path / "broken"))
    (broken / "decoder.onnx").write_bytes((bundle / "decoder.onnx").read_bytes()[:-100])
    return [str(broken), str(pair[0]), "--template", str(pair[1])]


def _no_picture(bundle: Path, pair: tuple[Path, Path], tmp_path: Path) -> list[str]:
    (tmp_path / "note.png").write_text("this is a note", encoding="utf-8")
    return [str(bundle), str(tmp_path / "note.png"), "--template", str(pair[1])]


def _no_template(bundle: Path, pair: tuple[Path, Path], tmp_path: Path) -> list[str]:
    return [str(bundle), str(pair[0])]


@pytest.mark.parametrize(
    ("words", "named"),
    [(_truncated_bundle, "decoder.onnx"), (_no_picture, "note.png"), (_no_template, "template")],
)
def test_inspect_refuses(
    words: Callable[[Path, tuple[Path, Path], Path], list[str]],
    named: str,
    bundle: Path,
    pair: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", *words(bundle, pair, tmp_path)]) == 1
    _assert_one_sentence(capsys, named)


def test_run_ends_when_the_broker_refuses(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ScriptedBroker(connack=lambda connect: NOT_AUTHORISED[connect.level]) as broker:
        config = tmp_path / "service.toml"
        config.write_text(
            f"""
[device]
device_id = "d"
station_id = "s"
[camera]
source = "{SCENES}"
[inspection]
bundle = {json.dumps(str(bundle))}
[mqtt]
host = "127.0.0.1"
port = {broker.port}
root = "a/b/c/d/e"
[outbox]
path = "outbox.sqlite"
""",
            encoding="utf-8",
        )
        assert main(["run", "--config", str(config)]) == 1
    _assert_one_sentence(capsys, "127.0.0.1")


def _assert_one_sentence(capsys: pytest.CaptureFixture[str], named: str) -> None:
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line.startswith("orinspect: ")]
    assert len(lines) == 1, shown.err
    assert named in lines[0]
    assert "Traceback" not in shown.err
    assert not shown.out
