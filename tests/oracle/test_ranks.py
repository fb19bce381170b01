"""Two processes of the training meet, also after a run that was killed, and end with the same gradients."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.oracle

RANK = """
import sys
from pathlib import Path
import torch
from orinspect.examples.reference.training.ranks import joined_ranks, mean_over_ranks
rank = int(sys.argv[2])
linear = torch.nn.Linear(3, 2)
with joined_ranks(Path(sys.argv[1]), rank, 2):
    for parameter in linear.parameters():
        parameter.grad = torch.full_like(parameter, 1.0 + 2.0 * rank)
    seconds = mean_over_ranks(linear, 100.0 + 10.0 * rank, 2)
print(sorted({float(v) for p in linear.parameters() for v in p.grad.view(-1)}), round(seconds, 3))
"""


@pytest.mark.parametrize("left_behind", [None, b"\x00\x10store of a killed run", b"999999999"])
def test_two_ranks_share_the_mean(tmp_path: Path, left_behind: bytes | None) -> None:
    if left_behind is not None:
        (tmp_path / "ranks").write_bytes(left_behind)
        (tmp_path / "ranks-999999999").write_bytes(b"\x00\x10store of a killed run")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(tmp_path), str(rank)], stdout=subprocess.PIPE, text=True
        )
        for rank in (1, 0)
    ]
    outputs = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    assert outputs == ["[2.0] 105.0"] * 2
    assert list(tmp_path.iterdir()) == []
