"""The arguments of `orinspect calibrate limits`; nothing is loaded before it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...calibration.commands import add_action
from ..commands import natural, positive

EXAMPLE = "orinspect calibrate limits bundle 'scenes:pcb?seed=11&parts=40&style=grey'"


def add_limits(actions: Any) -> None:
    """Add `limits` to the actions of `orinspect calibrate`."""
    what = "how dark, blurred, glaring or noisy a picture may be before F suffers; stored in the bundle"
    action: argparse.ArgumentParser = add_action(actions, "limits", _limits, what, EXAMPLE)
    action.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    action.add_argument("dataset", metavar="DATASET", help="labelled pictures as `evaluate` takes them")
    action.add_argument("--recipe", metavar="ID", help="the bundle's first")
    action.add_argument("--split", choices=("train", "validation", "all"), help="(train, where there is one)")
    action.add_argument("--list", type=Path, metavar="FILE", help="rows to use, replaces --split")
    action.add_argument("--limit", type=positive, default=80, metavar="N", help="pictures (%(default)s)")
    action.add_argument("--kinds", help="of low_light,bright_light,blur,motion,glare,noise (all)")
    action.add_argument(
        "--loss", type=float, default=0.01, help="of F that is allowed, with 95 %% confidence (%(default)s)"
    )
    action.add_argument("--seed", type=natural, default=1, help="of places and noise (%(default)s)")
    action.add_argument("--threads", type=positive, default=2, help="CPU threads a call (%(default)s)")
    action.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="write the result here and leave the bundle as it is"
    )


def _limits(arguments: argparse.Namespace) -> int:
    from ...calibration.confidence.judgement_write import write_section
    from ...calibration.limits.disturbance import KINDS
    from ..terminal import ProgressLine
    from .limits_text import limits_text
    from .sweep import limits_from_dataset

    result = limits_from_dataset(
        arguments.bundle, arguments.dataset, recipe_id=arguments.recipe, split=arguments.split,
        list_path=arguments.list, limit=arguments.limit,
        kinds=arguments.kinds.split(",") if arguments.kinds else tuple(KINDS),
        allowed_loss=arguments.loss, threads=arguments.threads, seed=arguments.seed,
        progress=ProgressLine(sys.stderr),
    )
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    else:
        measured_on = {key: value for key, value in result.items() if key != "quality"}
        section = {**result["quality"], "measured_on": measured_on}
        write_section(arguments.bundle, result["recipe"], "quality", section)
    print(json.dumps(result) if arguments.json else limits_text(result))
    return 0
