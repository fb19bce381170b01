"""The arguments of `orinspect calibrate`; nothing is loaded before an action runs."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCALE_EXAMPLE = "orinspect calibrate scale disc.png --diameter-mm 120 --tolerance-mm 0.05 -o scale.json"


def add_calibrate(commands: Any, *more: Callable[[Any], None]) -> None:
    """Add `calibrate scale|...` to the command line's subparsers; `more`: actions of rooms to the right."""
    what = "measure on the site's own pictures what a verdict rests on"
    calibrate = commands.add_parser(
        "calibrate", help=what, description=what, epilog=f"example: {SCALE_EXAMPLE}"
    )
    actions = calibrate.add_subparsers(title="actions", required=True, metavar="ACTION")
    for add in (_add_scale, *more):
        add(actions)


def add_action(actions: Any, name: str, run: Any, what: str, example: str) -> argparse.ArgumentParser:
    """One `calibrate` action with `--json`."""
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=what, description=what, epilog=f"example: {example}"
    )
    action.set_defaults(run=run)
    action.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return action


def _add_scale(actions: Any) -> None:
    action = add_action(
        actions, "scale", _scale, "mm per pixel, from pictures of something of known size", SCALE_EXAMPLE
    )
    action.add_argument("pictures", type=Path, nargs="+", metavar="PICTURE", help="first: measuring plane")
    action.add_argument("-o", "--out", type=Path, required=True, metavar="SCALE.json", help="file to write")
    _add_dimension(action)
    _add_board(action)
    action.add_argument("--camera-id", metavar="ID", help="as in service.toml; another camera is refused")
    action.add_argument(
        "--valid-days", type=_positive, default=365.0, metavar="DAYS", help="until it expires (%(default)g)"
    )


def _add_dimension(action: argparse.ArgumentParser) -> None:
    known = action.add_argument_group("a known dimension, one of")
    known.add_argument("--diameter-mm", type=_positive, metavar="MM", help="of a round part")
    known.add_argument("--length-mm", type=_positive, metavar="MM", help="with --points or --edges")
    known.add_argument("--distance-mm", type=_positive, metavar="MM", help="with --fiducials")
    where = action.add_argument_group("where it lies in the picture")
    where.add_argument("--points", type=_numbers, metavar="X1,Y1,X2,Y2", help="two points, as they stand")
    where.add_argument("--edges", type=_numbers, metavar="X1,Y1,X2,Y2", help="from edge to edge, near these")
    where.add_argument(
        "--fiducials", type=_numbers, nargs="*", metavar="X,Y", help="two round marks; none: they are found"
    )
    where.add_argument(
        "--point-tolerance-px", type=_positive, default=0.5, metavar="PX", help="of --points (%(default)g)"
    )
    dimension = action.add_argument_group("how well it is known")
    dimension.add_argument("--tolerance-mm", type=_positive, metavar="MM", help="of the dimension, one side")
    dimension.add_argument("--temperature-c", type=_finite, metavar="C", help="of the part (20 is assumed)")
    dimension.add_argument("--temperature-tolerance-c", type=_positive, default=2.0, metavar="C", help="(2)")
    dimension.add_argument("--expansion-ppm", type=_finite, default=11.5, metavar="PPM", help="a K (11.5)")


def _add_board(action: argparse.ArgumentParser) -> None:
    board = action.add_argument_group("or a board")
    board.add_argument("--charuco", type=_columns_rows, metavar="7x5", help="squares across and down")
    board.add_argument("--checkerboard", type=_columns_rows, metavar="9x6", help="INNER corners across, down")
    board.add_argument("--square-mm", type=_positive, metavar="MM", help="side of a square")
    board.add_argument("--marker-mm", type=_positive, metavar="MM", help="side of a ChArUco marker")
    board.add_argument("--dictionary", default="DICT_4X4_50", metavar="NAME", help="ChArUco (%(default)s)")


def _scale(arguments: argparse.Namespace) -> int:
    from .scale.command import calibrate_scale, scale_text

    table = calibrate_scale(arguments)
    print(json.dumps(table) if arguments.json else scale_text(table))
    return 0


def _positive(text: str) -> float:
    value = _finite(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, got {text}")
    return value


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a number, got {text}")
    return value


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(_finite(number) for number in text.split(","))


def _columns_rows(text: str) -> tuple[int, int]:
    columns, cross, rows = text.partition("x")
    if not (cross and columns.isdigit() and rows.isdigit() and min(int(columns), int(rows)) >= 2):
        raise argparse.ArgumentTypeError(f"must be columns x rows such as 7x5, got {text!r}")
    return int(columns), int(rows)
