"""The command line: composition only. Each command imports what it needs inside its function.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .runtime.errors import OrinspectError, UsageError

# A library that is missing -> the extra that brings it.
EXTRA_OF_LIBRARY = {
    "onnx": "export", "safetensors": "export", "tokenizers": "export", "rich": "export",
    "amqtt": "demo", "jsonschema": "demo", "onnxruntime": "cpu",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code instead of raising."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        return int(arguments.run(arguments))
    except SystemExit as stop:  # argparse has already said what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    except OrinspectError as error:
        return _failed(str(error), error.exit_code)
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_LIBRARY.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        return _failed(f"{error.name} is not installed and needed here; pip install 'orinspect[{extra}]'", 1)
    except KeyboardInterrupt:
        return 130


def _failed(sentence: str, exit_code: int) -> int:
    print(f"orinspect: {sentence}", file=sys.stderr)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orinspect",
        description="Turn a Qwen3-VL checkpoint into an INT8 bundle and inspect parts with it.",
        epilog="example: orinspect demo --out demo-out",
    )
    parser.add_argument("--version", action="version", version=f"orinspect {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_export(commands)
    _add_inspect(commands)
    _add_evaluate(commands)
    _add_run(commands)
    _add_bench(commands)
    return parser


def _add(commands: Any, name: str, run: Any, what: str, example: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what, epilog=f"example: {example}",
    )
    command.set_defaults(run=run)
    return command


def _add_demo(commands: Any) -> None:
    command = _add(
        commands, "demo", _demo, "the main job on synthetic boards: export, broker, service, results",
        "orinspect demo --out demo-out --parts 12",
    )
    command.add_argument("--out", type=Path, default=Path("demo-out"), help="what it leaves (%(default)s)")
    command.add_argument("--parts", type=_positive, default=12, help="boards to inspect (%(default)s)")
    command.add_argument("--checkpoint", type=Path, help="model folder (the shipped reference)")
    command.add_argument("--recipe", type=Path, help="recipe.toml (the shipped pcb-compare)")
    command.add_argument("--json", action="store_true", help="print the summary as JSON at the end")


def _demo(arguments: argparse.Namespace) -> int:
    from .evaluation.demo import run_demo
    from .export.screen import export_on_screen

    summary = run_demo(
        arguments.out,
        parts=arguments.parts,
        export=export_on_screen,
        checkpoint=arguments.checkpoint or _shipped("reference"),
        recipe=arguments.recipe or _shipped("pcb-compare.toml"),
    )
    if arguments.json:
        print(json.dumps(summary))
    return 0


def _add_export(commands: Any) -> None:
    command = _add(
        commands, "export", _export, "checkpoint and recipes to a bundle, on a workstation",
        "orinspect export examples/reference/reference --recipe examples/reference/pcb-compare.toml"
        " --calibration 'scenes:pcb?seed=77' -o bundle",
    )
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="qwen3_vl model folder")
    command.add_argument("--recipe", type=Path, action="append", required=True, help="recipe.toml, repeats")
    command.add_argument("--calibration", required=True, help="a DeepPCB folder, or scenes:pcb?seed=77")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    command.add_argument("--precision", choices=("int8", "float32"), default="int8", help="(%(default)s)")
    command.add_argument("--json", action="store_true", help="print the accuracy report as JSON")


def _export(arguments: argparse.Namespace) -> int:
    from .export.screen import export_on_screen

    result = export_on_screen(
        arguments.checkpoint, arguments.recipe, arguments.calibration, arguments.out,
        precision=arguments.precision,
    )
    if arguments.json:
        print(json.dumps(result))
    return 0


def _add_inspect(commands: Any) -> None:
    command = _add(
        commands, "inspect", _inspect, "inspect one picture and print its report",
        "orinspect inspect bundle part.jpg --template golden.jpg --json",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    command.add_argument("image", type=Path, metavar="IMAGE", help="picture of the part")
    command.add_argument("--template", type=Path, help="picture of a good part, taken the same way")
    command.add_argument("--recipe", metavar="ID", help="recipe of the bundle (its only one)")
    _add_threads(command)
    command.add_argument("--json", action="store_true", help="the report on one line")


def _inspect(arguments: argparse.Namespace) -> int:
    from .runtime.service import inspect_pictures

    report = inspect_pictures(
        arguments.bundle, arguments.image, template=arguments.template, recipe_id=arguments.recipe,
        threads=arguments.threads,
    )
    print(report.to_json() if arguments.json else json.dumps(report.to_table(), indent=2, ensure_ascii=False))
    return 0


def _add_evaluate(commands: Any) -> None:
    command = _add(
        commands, "evaluate", _evaluate, "score a bundle on a labelled data set",
        "orinspect evaluate bundle-deeppcb data/deeppcb --baseline",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    command.add_argument("dataset", metavar="DATASET", help="a DeepPCB folder, or scenes:pcb?seed=7&parts=50")
    command.add_argument("--recipe", metavar="ID", help="recipe of the bundle (its only one)")
    command.add_argument("--split", choices=("train", "validation", "all"), help="(validation for a folder)")
    command.add_argument("--list", type=Path, metavar="FILE", help="rows to use, replaces --split")
    command.add_argument("--warp", type=int, metavar="SEED", help="warp every template")
    command.add_argument("--predictions", type=Path, metavar="OUT.jsonl", help="write one row a picture")
    command.add_argument("--baseline", action="store_true", help="run the two floors on the same rows")
    _add_threads(command)
    command.add_argument("--json", action="store_true", help="print the scores as one JSON object")


def _evaluate(arguments: argparse.Namespace) -> int:
    from .evaluation.evaluate import evaluate_bundle

    evaluate_bundle(arguments)
    return 0


def _add_run(commands: Any) -> None:
    command = _add(
        commands, "run", _run, "the service: camera in, reports out over MQTT, until SIGTERM",
        "orinspect run --config service.toml",
    )
    command.add_argument("--config", type=Path, required=True, help="service.toml")


def _run(arguments: argparse.Namespace) -> int:
    from .runtime.config import load_config
    from .runtime.service import run_service

    return run_service(load_config(arguments.config))


def _add_bench(commands: Any) -> None:
    command = _add(
        commands, "bench", _bench, "time a bundle on pictures, stage by stage",
        "orinspect bench bundle part1.jpg part2.jpg --template golden.jpg",
    )
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    command.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="pictures of parts")
    command.add_argument("--template", type=Path, help="picture of a good part")
    _add_threads(command)
    command.add_argument("--json", action="store_true", help="print the figures as one JSON object")


def _bench(arguments: argparse.Namespace) -> int:
    raise UsageError("bench is not built yet; `orinspect evaluate` prints milliseconds a part")


def _add_threads(command: argparse.ArgumentParser) -> None:
    command.add_argument("--threads", type=_positive, default=2, help="CPU threads a call (%(default)s)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _shipped(name: str) -> Path:
    """A file of examples/reference, which lies in the checkout and not in the wheel."""
    path = Path(__file__).resolve().parent / "examples" / "reference" / name
    if not path.exists():
        raise UsageError(f"examples/reference/{name} is not here; use a clone, or --checkpoint and --recipe")
    return path


if __name__ == "__main__":
    sys.exit(main())
