"""The command line: composition only. Each command imports what it needs inside its function.

Exit codes: 0 done, 1 failed (one sentence on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .runtime.errors import OrinspectError, UsageError

# A library that is missing -> the extra that brings it.
EXTRA_OF_LIBRARY = {"onnx": "export", "safetensors": "export", "tokenizers": "export", "rich": "export",
                    "amqtt": "demo", "jsonschema": "demo", "onnxruntime": "cpu"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code instead of raising."""
    try:
        arguments = _parser().parse_args(argv)
        return int(arguments.run(arguments))
    except SystemExit as stop:  # argparse has already said what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    except OrinspectError as error:
        print(f"orinspect: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        extra = EXTRA_OF_LIBRARY.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        print(f"orinspect: {error.name} is missing; pip install 'orinspect[{extra}]'", file=sys.stderr)
        return 1
    except OSError as error:  # a file or folder that refuses; anything else about the system is a bug here
        if error.filename is None:
            raise
        print(f"orinspect: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="orinspect",
        description="Turn a Qwen3-VL checkpoint into an INT8 bundle and inspect parts with it.",
        epilog="example: orinspect demo --out demo-out",
    )
    parser.add_argument("--version", action="version", version=f"orinspect {__version__}")
    from .calibration.commands import add_calibrate  # these load nothing but argparse
    from .evaluation.commands import add_bench, add_evaluate
    from .evaluation.labelled.commands import add_confidence
    from .evaluation.sweeps.commands import add_limits
    from .jetson.commands import add_engines
    from .runtime.deliver.audit.verify import add_audit
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in (_add_demo, _add_export, _add_inspect, add_evaluate, _add_run, _add_check_config, add_bench,
                add_engines, add_audit):
        add(commands)
    add_calibrate(commands, add_limits, add_confidence)
    return parser


def _add(
    commands: Any, name: str, run: Any, what: str, example: str, *, in_json: str = "", on_bundle: bool = False
) -> argparse.ArgumentParser:
    """One command; `in_json` says what `--json` prints, `on_bundle` adds what every use of a bundle takes."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what, epilog=f"example: {example}",
    )
    command.set_defaults(run=run)
    if on_bundle:
        command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
        command.add_argument("--threads", type=_positive, default=2, help="CPU threads a call (%(default)s)")
    if in_json:
        command.add_argument("--json", action="store_true", help=f"print {in_json}")
    return command


def _add_demo(commands: Any) -> None:
    command = _add(
        commands, "demo", _demo, "the main job on synthetic boards: export, broker, service, results",
        "orinspect demo --out demo-out --parts 12", in_json="only the summary, as JSON",
    )
    command.add_argument("--out", type=Path, default=Path("demo-out"), help="what it leaves (%(default)s)")
    command.add_argument("--parts", type=_positive, default=12, help="boards to inspect (%(default)s)")
    command.add_argument("--checkpoint", type=Path, help="model folder (the shipped reference)")
    command.add_argument("--recipe", type=Path, help="recipe.toml (the shipped pcb-compare)")
    command.add_argument("--style", choices=("grey", "binary"), default="grey", help="pictures (%(default)s)")


def _demo(arguments: argparse.Namespace) -> int:
    from .evaluation.demo import run_demo
    from .export.screen import export_on_screen

    summary = run_demo(
        arguments.out,
        parts=arguments.parts,
        export=export_on_screen,
        checkpoint=arguments.checkpoint or _shipped("reference"),
        recipe=arguments.recipe or _shipped("pcb-compare.toml"),
        style=arguments.style,
        say=(lambda _: None) if arguments.json else print,  # standard output belongs to the JSON
    )
    if arguments.json:
        print(json.dumps(summary))
    return 0 if summary["passed"] else 1


def _add_export(commands: Any) -> None:
    command = _add(
        commands, "export", _export, "checkpoint and recipes to a bundle, on a workstation",
        "orinspect export examples/reference/reference --recipe examples/reference/pcb-compare.toml"
        " --calibration 'scenes:pcb?seed=77' -o bundle", in_json="the accuracy report as JSON",
    )
    command.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="qwen3_vl model folder")
    command.add_argument("--recipe", type=Path, action="append", required=True, help="recipe.toml, repeats")
    command.add_argument("--calibration", required=True, action="append", metavar="[RECIPE=]SOURCE",
                         help="picture folder, or scenes:pcb?seed=77; repeats, one a recipe")
    command.add_argument("-o", "--out", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    command.add_argument("--precision", choices=("int8", "float16", "float32"), default="int8", help="(int8)")
    command.add_argument("--validation", action="append", metavar="[RECIPE=]SOURCE",
                         help="pictures of the gate (of --calibration)")
    command.add_argument("--keep-float", metavar="NAME,...", default="", help="linears that stay float")


def _export(arguments: argparse.Namespace) -> int:
    from .export.inputs import sources_from_texts
    from .export.screen import export_on_screen

    validation = arguments.validation and sources_from_texts(arguments.validation, "--validation")
    result = export_on_screen(
        arguments.checkpoint, arguments.recipe, sources_from_texts(arguments.calibration, "--calibration"),
        arguments.out, precision=arguments.precision, validation=validation,
        keep_float=[name for name in arguments.keep_float.split(",") if name],
    )
    if arguments.json:
        print(json.dumps(result))
    return 0


def _add_inspect(commands: Any) -> None:
    command = _add(
        commands, "inspect", _inspect, "inspect one picture and print its report",
        "orinspect inspect bundle part.jpg --template golden.jpg --json",
        in_json="the report on one line", on_bundle=True,
    )
    command.add_argument("image", type=Path, metavar="IMAGE", help="picture of the part, or a clip's folder")
    command.add_argument("--template", type=Path, help="picture of a good part, taken the same way")
    command.add_argument("--scale", type=Path, metavar="FILE", help="of `orinspect calibrate scale`")
    command.add_argument("--recipe", metavar="ID", help="recipe of the bundle (its only one)")


def _inspect(arguments: argparse.Namespace) -> int:
    from .runtime.line.by_hand import inspect_pictures

    report = inspect_pictures(
        arguments.bundle, arguments.image, template=arguments.template, recipe_id=arguments.recipe,
        threads=arguments.threads, scale=arguments.scale,
    )
    print(report.to_json() if arguments.json else json.dumps(report.to_table(), indent=2, ensure_ascii=False))
    return 0


def _add_run(commands: Any) -> None:
    what = "the service: camera in, reports out over MQTT, until SIGTERM"
    command = _add(commands, "run", _run, what, "orinspect run --config service.toml")
    command.add_argument("--config", type=Path, required=True, help="service.toml")


def _run(arguments: argparse.Namespace) -> int:
    from .runtime.config import load_config
    from .runtime.service import run_service

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    return run_service(load_config(arguments.config), environment=os.environ)


def _add_check_config(commands: Any) -> None:
    command = _add(
        commands, "check-config", _check_config,
        "what is wrong with service.toml (exit code 2) or with what it names (exit code 1)",
        "orinspect check-config --config service.toml", in_json="what is wrong as JSON",
    )
    command.add_argument("--config", type=Path, required=True, help="service.toml")


def _check_config(arguments: argparse.Namespace) -> int:
    from .runtime.line.check import problems_of_config

    config, named = problems_of_config(arguments.config)
    if arguments.json:
        print(json.dumps({"config": config, "named": named}))
    else:
        print("\n".join([*config, *named]) or "nothing is wrong")
    return 2 if config else int(bool(named))


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
