"""Training in several processes: how they meet, and the mean of their gradients."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch import nn

WAIT_S = 0.2


@contextmanager
def joined_ranks(out: Path, rank: int, ranks: int) -> Iterator[None]:
    """Within it the `ranks` processes of one run are one group; alone there is nothing to join.

    They meet in a file of rank 0's process, which `out/ranks` names: what a killed run left is replaced by
    rank 0 and not taken up by the others, unless another process has got rank 0's old number.
    """
    if ranks == 1:
        yield
        return
    named = out / "ranks"
    if rank == 0:
        for stale in out.glob("ranks-*"):
            stale.unlink()
        partial = out / "ranks.partial"
        partial.write_text(str(os.getpid()))
        partial.replace(named)
    store = out / f"ranks-{_living_process(named)}"
    torch.distributed.init_process_group("gloo", f"file://{store.resolve()}", rank=rank, world_size=ranks)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
        if rank == 0:
            named.unlink(missing_ok=True)
            store.unlink(missing_ok=True)


def _living_process(named: Path) -> int:
    """The number in `named`, as soon as it is that of a process that lives."""
    while True:
        with suppress(OSError, ValueError):
            process = int(named.read_bytes())
            os.kill(process, 0)
            return process
        time.sleep(WAIT_S)


def mean_over_ranks(module: nn.Module, seconds: float, ranks: int) -> float:
    """Averages the gradients over the processes, and their clocks, so that all stop after the same step."""
    if ranks == 1:
        return seconds
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([g.view(-1) for g in gradients] + [torch.tensor([seconds / 1e4])])
    torch.distributed.all_reduce(flat)
    flat /= ranks
    means = flat[:-1].split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(means, gradients, strict=True)])
    return float(flat[-1]) * 1e4
