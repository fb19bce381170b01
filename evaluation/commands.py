"""The arguments of `orinspect evaluate` and `orinspect bench`; nothing is loaded before they run."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from ..runtime.errors import UsageError

GOOD_PREFIX = "good:"
EVALUATE_EXAMPLE = "orinspect evaluate bundle-deeppcb data/deeppcb --baseline --page page"
BENCH_EXAMPLE = "orinspect bench bundle part1.jpg part2.jpg --template golden.jpg --against bundle-float"
DATASETS = """\
data sets:
  DIR                          DeepPCB, VOC, masks, LabelMe or COCO, recognised by its files
  coco:FILE voc:DIR masks:DIR labelme:DIR neu:DIR magnetic:DIR    the same, said outright
  scenes:pcb?seed=7&parts=50   simulated boards; scenes:metal?seed=7&parts=50 simulated surfaces
  good:SOURCE                  templates of SOURCE against re-captured copies of themselves: false alarms only
"""
# Options that make no sense beside good:, and those that make sense only there.
LABELLED_ONLY = ("warp", "predictions", "baseline", "against", "page", "classes")
GOOD_ONLY = ("copies", "seed", "gate")


def add_evaluate(commands: Any) -> None:
    """Add `evaluate BUNDLE DATASET` to the command line's subparsers."""
    command = _command(commands, "evaluate", evaluate, "score a bundle on a labelled data set",
                       EVALUATE_EXAMPLE, DATASETS, in_json="the scores as one JSON object (docs/evaluate.md)")
    command.add_argument("dataset", metavar="DATASET", help="a folder, scenes:..., or good:... (see below)")
    command.add_argument("--recipe", metavar="ID", help="recipe of the bundle (its only one)")
    command.add_argument("--split", choices=("train", "validation", "all"), help="(validation for a folder)")
    command.add_argument("--list", type=Path, metavar="FILE", help="rows to use, replaces --split")
    command.add_argument("--classes", type=Path, metavar="FILE", help="data set's class -> recipe's type")
    command.add_argument("--warp", type=natural, metavar="SEED", help="warp every template")
    command.add_argument("--limit", type=positive, metavar="N", help="about N rows, spread evenly")
    command.add_argument("--predictions", type=Path, metavar="OUT.jsonl", help="write one row a picture")
    command.add_argument("--baseline", action="store_true", help="run the two floors on the same rows")
    command.add_argument("--against", type=Path, metavar="BUNDLE", help="another bundle, on the same rows")
    command.add_argument("--page", type=Path, metavar="DIR", help="write an HTML page with pictures")
    good = command.add_argument_group("good: only")
    good.add_argument("--copies", type=positive, metavar="N", help="re-captured copies a template (1)")
    good.add_argument("--seed", type=natural, metavar="N", help="of the copies (0)")
    good.add_argument("--gate", choices=("on", "off", "both"), help="off: the network sees every tile (both)")


def add_bench(commands: Any) -> None:
    """Add `bench BUNDLE IMAGE...` to the command line's subparsers."""
    command = _command(commands, "bench", bench, "time bundles on pictures, stage by stage, in turns",
                       BENCH_EXAMPLE, in_json="the figures as one JSON object")
    command.add_argument("images", type=Path, nargs="*", metavar="IMAGE", help="pictures (four scenes)")
    command.add_argument("--template", type=Path, help="picture of a good part (ID_temp.jpg of ID_test.jpg)")
    command.add_argument("--against", type=Path, action="append", metavar="BUNDLE", help="another bundle")
    command.add_argument("--peers", type=Path, metavar="CHECKPOINT", help="time transformers with it, too")
    command.add_argument("--rounds", type=positive, default=3, help="times each picture (%(default)s)")


def evaluate(arguments: argparse.Namespace) -> int:
    """Run `orinspect evaluate`."""
    is_good = arguments.dataset.startswith(GOOD_PREFIX)
    _refuse(arguments, LABELLED_ONLY if is_good else GOOD_ONLY, is_good)
    if is_good:
        return _evaluate_good_parts(arguments)
    from .evaluate import evaluate_bundle
    from .terminal import ProgressLine, evaluation_text

    result = evaluate_bundle(
        arguments.bundle, arguments.dataset, recipe_id=arguments.recipe, split=arguments.split,
        list_path=arguments.list, warp_seed=arguments.warp, predictions=arguments.predictions,
        baseline=arguments.baseline, threads=arguments.threads, limit=arguments.limit,
        against=arguments.against, page=arguments.page, classes=arguments.classes,
        command=command_line(arguments), progress=ProgressLine(sys.stderr),
    )
    print(json.dumps(result) if arguments.json else evaluation_text(result))
    return 0


def _evaluate_good_parts(arguments: argparse.Namespace) -> int:
    from .good_parts.alarms import good_part_figures
    from .good_parts.alarms_text import good_parts_text
    from .terminal import ProgressLine

    result = good_part_figures(
        arguments.bundle, arguments.dataset, recipe_id=arguments.recipe, split=arguments.split,
        list_path=arguments.list, limit=arguments.limit, threads=arguments.threads,
        copies=arguments.copies or 1, seed=arguments.seed or 0, gate=arguments.gate or "both",
        progress=ProgressLine(sys.stderr),
    )
    print(json.dumps(result) if arguments.json else good_parts_text(result))
    return 0


def bench(arguments: argparse.Namespace) -> int:
    """Run `orinspect bench`."""
    from .bench import bench_bundles
    from .terminal import ProgressLine, bench_text

    result = bench_bundles(
        [arguments.bundle, *(arguments.against or [])], arguments.images, template=arguments.template,
        threads=arguments.threads, rounds=arguments.rounds, peer_checkpoint=arguments.peers,
        progress=ProgressLine(sys.stderr),
    )
    print(json.dumps(result) if arguments.json else bench_text(result))
    return 0


def command_line(arguments: argparse.Namespace) -> str:
    """The `orinspect evaluate` line that these arguments came from, ready to be pasted into a shell."""
    words = ["orinspect", "evaluate", str(arguments.bundle), str(arguments.dataset)]
    for name, value in sorted(vars(arguments).items()):
        if name in ("bundle", "dataset", "run", "json") or value is None or value is False:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def natural(text: str) -> int:
    """A whole number from 0, as seeds are, for argparse."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
    return value


def _refuse(arguments: argparse.Namespace, options: tuple[str, ...], is_good: bool) -> None:
    """UsageError for an option that this kind of data set has no use for."""
    for name in options:
        value = getattr(arguments, name)
        if value is not None and value is not False:
            kind = "is not for good: parts, which have no labels" if is_good else "needs a data set good:..."
            raise UsageError(f"--{name} {kind}; received {arguments.dataset}")


def _command(
    commands: Any, name: str, run: Any, what: str, example: str, more: str = "", *, in_json: str
) -> argparse.ArgumentParser:
    """One command on a bundle, with `--threads` and `--json`."""
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=what, description=what, epilog=f"{more}example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    command.add_argument("--threads", type=positive, default=2, help="CPU threads a call (%(default)s)")
    command.add_argument("--json", action="store_true", help=f"print {in_json}")
    return command
