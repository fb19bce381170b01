"""Rows of DeepPCB that training never saw and nobody scores on: every 20th pair of the training boards.

python -m orinspect.examples.reference.training.tuning_list data/deeppcb > tuning.txt
"""

from __future__ import annotations

import sys
from pathlib import Path

from orinspect.examples.reference.training.samples import deeppcb_paths


def tuning_list(root: Path) -> list[str]:
    """The rows as `trainval.txt` and `test.txt` have them: picture and annotation."""
    rows = []
    for part in deeppcb_paths(root, "tuning"):
        group, board, name = part.parts[-3], part.parts[-2], part.name.replace("_test.jpg", "")
        rows.append(f"{group}/{board}/{name}.jpg {group}/{board}_not/{name}.txt")
    return rows


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("give the folder of DeepPCB")
    print("\n".join(tuning_list(Path(sys.argv[1]))))
