"""The arguments of `orinspect engines`; nothing is loaded before it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

EXAMPLE = "orinspect engines build bundle --parts 2"


def add_engines(commands: Any) -> None:
    """Add `engines build|verify` to the command line's subparsers."""
    what = "TensorRT engines of a bundle, built on the device and checked there"
    engines = commands.add_parser("engines", help=what, description=what, epilog=f"example: {EXAMPLE}")
    actions = engines.add_subparsers(title="actions", required=True, metavar="build|verify")
    build = _action(actions, "build", _build, "build what is missing, check it, put it in use", EXAMPLE)
    build.add_argument("--parts", type=int, default=1, metavar="N", help="decoder parts (%(default)s)")
    build.add_argument(
        "--library", choices=("tensorrt", "tensorrt_rtx"), default="tensorrt", help="(%(default)s)"
    )
    build.add_argument(
        "--compute-capability", metavar="SM86", help="a trial with tensorrt_rtx, on a machine without a GPU"
    )
    _action(
        actions,
        "verify",
        _verify,
        "count INT8 linears and run the golden frames",
        "orinspect engines verify bundle --json",
    )


def _action(actions: Any, name: str, run: Any, what: str, example: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=what, description=what, epilog=f"example: {example}"
    )
    action.set_defaults(run=run)
    action.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    action.add_argument("--engines", type=Path, metavar="DIR", help="folder of the engines (BUNDLE.engines)")
    action.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return action


def _build(arguments: argparse.Namespace) -> int:
    from .engines import build_engines

    table = build_engines(
        arguments.bundle,
        arguments.engines,
        parts=arguments.parts,
        library=arguments.library,
        compute_capability=arguments.compute_capability,
        say=_say,
    )
    return _shown(table, arguments)


def _verify(arguments: argparse.Namespace) -> int:
    from .engines import verify_engines

    return _shown(verify_engines(arguments.bundle, arguments.engines, say=_say), arguments)


def _shown(table: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Print the report; 1 when something is wrong, or a linear that should run in INT8 does not."""
    from .engines import report_text

    print(json.dumps(table) if arguments.json else report_text(table))
    in_float = any(
        count["in_float"] for profiles in table.get("int8", {}).values() for count in profiles.values()
    )
    return 1 if table["wrong"] or in_float else 0


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
