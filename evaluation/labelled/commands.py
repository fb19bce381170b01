"""The arguments of `orinspect calibrate confidence`; nothing is loaded before it runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ...calibration.commands import add_action
from ..commands import natural, positive

EXAMPLE = "orinspect calibrate confidence bundle 'scenes:pcb?seed=40077&parts=150'"


def add_confidence(actions: Any) -> None:
    """Add `calibrate confidence BUNDLE DATASET` to the actions of `calibrate`."""
    what = "what a bundle's confidences are worth, from labelled pictures"
    action = add_action(actions, "confidence", _confidence, what, EXAMPLE)
    action.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder; it is written anew")
    action.add_argument("dataset", metavar="DATASET", help="labelled, and never one to score on")
    action.add_argument("--recipe", metavar="ID", help="recipe of the bundle (its only one)")
    action.add_argument("--split", choices=("train", "validation", "all"), help="(train, where there is one)")
    action.add_argument("--list", type=Path, metavar="FILE", help="rows to use, replaces --split")
    action.add_argument("--warp", type=natural, metavar="SEED", help="warp every template")
    action.add_argument("--limit", type=positive, metavar="N", help="about N rows, spread evenly")
    action.add_argument("--threads", type=positive, default=2, help="CPU threads a call (%(default)s)")


def _confidence(arguments: argparse.Namespace) -> int:
    from ..terminal import ProgressLine
    from .confidence import calibrate_confidence, confidence_text

    result = calibrate_confidence(
        arguments.bundle,
        arguments.dataset,
        recipe_id=arguments.recipe,
        split=arguments.split,
        list_path=arguments.list,
        warp_seed=arguments.warp,
        limit=arguments.limit,
        threads=arguments.threads,
        progress=ProgressLine(sys.stderr),
    )
    print(json.dumps(result) if arguments.json else confidence_text(result))
    return 0
