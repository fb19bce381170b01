"""Trains the reference checkpoints: words and dense head together, on a CPU, resumable.

    python examples/reference/train.py --out runs/reference --minutes 60
    python examples/reference/train.py --out runs/research --minutes 60 --start runs/reference/last.pt \\
        --deeppcb DIR --surfaces DIR

The learning rate follows the share of `--minutes` that has passed, so a slower machine sees fewer tiles, not
another schedule. `last.pt` is written every twelve minutes and resumed when it exists. A small network trains
faster as two processes of one thread than as one of two: start `--rank 0` and `--rank 1` with `--ranks 2` and
the same `--out`. Needs the environment of `make oracle`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from orinspect.examples.reference.training.losses import Reference, total
from orinspect.examples.reference.training.network import assert_same_as_transformers
from orinspect.examples.reference.training.ranks import joined_ranks, mean_over_ranks
from orinspect.examples.reference.training.stream import BATCH, Mixture, TileStream, unchanged
from orinspect.examples.reference.training.targets import AnswerWriter
from orinspect.examples.reference.training.tasks import RESEARCH_TYPES, SCENE_TYPES, prompts_from_recipes
from orinspect.examples.reference.training.validation import table, validation_sets

HERE = Path(__file__).parent
TOKENIZER_FILE = HERE / "tokenizer" / "tokenizer.json"
PEAK_RATE, WARMUP_STEPS, FINAL_SHARE, WEIGHT_DECAY, EMA_DECAY = 1.2e-3, 60, 0.02, 0.05, 0.995
TABLE_EVERY_S = 720.0
ALL_WORDS_FROM = 0.55  # of the minutes: until then only `--words-share` of the rows is asked for words


@dataclass
class Passed:
    """How far a run has come: steps, seconds of training, tiles seen by all processes."""

    step: int = 0
    seconds: float = 0.0
    tiles: int = 0


@dataclass
class Training:
    """What `last.pt` holds: weights, their moving average by name, optimisers, how far it has come, types."""

    reference: Reference
    average: dict[str, Tensor]
    optimisers: tuple[Any, ...]
    passed: Passed
    types: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Writes everything that a resumed run needs, whole or not at all."""
        partial = path.with_suffix(".partial")
        torch.save(
            {
                "weights": self.reference.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "average": self.average,
                "state": asdict(self.passed),
                "types": list(self.types),
            },
            partial,
        )
        partial.replace(path)


def load_checkpoint(reference: Reference, start: Path, types: Sequence[str]) -> None:
    """The weights of a `last.pt` or of a checkpoint folder that `write_checkpoint.py` wrote, in float32.

    Types that the start does not know are learnt from nothing; SystemExit names one that is not asked for.
    """
    if start.is_dir():
        weights = {f"model.{name}": value for name, value in load_file(start / "model.safetensors").items()}
        head = start / "dense_head.safetensors"
        weights |= {f"dense.{name}": value for name, value in load_file(head).items()}
        with safe_open(head, "pt") as opened:
            known = json.loads(opened.metadata()["types"])
        tied = weights["model.model.language_model.embed_tokens.weight"]
        weights.setdefault("model.lm_head.weight", tied)
    else:
        saved = torch.load(start)
        weights, known = dict(saved["average"]), saved["types"]
    if unknown := sorted(set(known) - set(types)):
        raise SystemExit(f"{start} knows the types {', '.join(unknown)}, which this run does not ask for")
    rows = [0, *(1 + types.index(name) for name in known), *range(-4, 0)]  # presence, types, box
    own = reference.state_dict()
    for name in ("dense.fc2.weight", "dense.fc2.bias"):
        grown = own[name].clone()
        grown[rows] = weights[name].float()
        weights[name] = grown
    own |= {name: value.float() for name, value in weights.items() if not name.startswith("marks.")}
    reference.load_state_dict(own)  # the marks head begins anew


def training_from_files(
    reference: Reference, last: Path, start: Path | None, types: Sequence[str]
) -> Training:
    """A run resumed from `last` where that exists, else begun, from the weights of `start` if given."""
    optimisers = optimisers_from_weights(reference)
    if last.exists():
        saved = torch.load(last)
        reference.load_state_dict(saved["weights"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        return Training(reference, saved["average"], optimisers, Passed(**saved["state"]), tuple(types))
    if start:
        load_checkpoint(reference, start, types)
    average = {name: value.detach().clone() for name, value in reference.state_dict().items()}
    return Training(reference, average, optimisers, Passed(), tuple(types))


def optimisers_from_weights(reference: Reference) -> tuple[Any, ...]:
    """Muon for the matrices of the blocks, AdamW for the rest; norms and biases do not decay.

    The mergers' and embeddings' matrices stay with AdamW: the first are too large to orthogonalise in a step
    of this length, the second are tables of rows.
    """
    blocks: list[Tensor] = []
    decay: list[Tensor] = []
    plain: list[Tensor] = []
    for name, weight in reference.named_parameters():
        in_block = weight.ndim == 2 and (".blocks." in name or ".layers." in name)
        (blocks if in_block else decay if weight.ndim > 1 else plain).append(weight)
    muon = torch.optim.Muon(blocks, lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
        fused=True,
    )
    return muon, adamw


def rate(progress: float, step: int) -> float:
    """Linear warm-up over the first steps, then a cosine over the minutes down to 2 %."""
    cosine = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def train(training: Training, args: argparse.Namespace) -> None:
    """The loop: one batch, one step, an average of the weights beside it, a table now and then."""
    passed = training.passed
    mixture = Mixture(args.surface_rows, args.deeppcb, args.surfaces, args.real_boards, args.real_surfaces)
    writer = AnswerWriter(Tokenizer.from_file(str(TOKENIZER_FILE)), training.types)
    held_out = validation_sets(writer, mixture) if args.rank == 0 else {}
    stream_seed = args.seed * 100 + passed.step % 47 + 50 * args.rank
    stream = TileStream(stream_seed, mixture, training.types, TOKENIZER_FILE)
    loader = iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4, collate_fn=unchanged))
    began, next_table, before = time.monotonic(), 0.0, passed.seconds
    whole = args.minutes * 60
    running: dict[str, float] = {}
    while passed.seconds < whole:
        batch = next(loader)
        progress = passed.seconds / whole
        for group in (group for each in training.optimisers for group in each.param_groups):
            group["lr"] = args.peak * rate(progress, passed.step)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts = training.reference.losses(batch, 1.0 if progress > ALL_WORDS_FROM else args.words_share)
            loss = total(parts)
        for optimiser in training.optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        passed.seconds = mean_over_ranks(training.reference, before + time.monotonic() - began, args.ranks)
        update(training)
        passed.step += 1
        passed.tiles += BATCH * args.ranks
        for name, value in parts.items():
            number = float(value.detach())
            running[name] = 0.98 * running.get(name, number) + 0.02 * number
        if args.rank:
            continue
        if passed.step % 100 == 0:
            print(progress_line(passed, args.minutes, running), flush=True)
        if passed.seconds > next_table or passed.seconds >= whole:
            next_table = passed.seconds + TABLE_EVERY_S
            if passed.step > 5:
                table(training.reference, training.average, held_out, asdict(passed), args.out)
            training.save(args.out / "last.pt")


def update(training: Training) -> None:
    """One step of the optimiser, and of the moving average behind it."""
    nn.utils.clip_grad_norm_(training.reference.parameters(), 1.0)
    for optimiser in training.optimisers:
        optimiser.step()
    keep = min(EMA_DECAY, (training.passed.step + 1) / (training.passed.step + 20))
    own = training.reference.state_dict()
    torch._foreach_lerp_(list(training.average.values()), [own[name] for name in training.average], 1 - keep)


def progress_line(passed: Passed, minutes: float, running: dict[str, float]) -> str:
    """Minutes, steps, tiles and the smoothed losses."""
    losses = "  ".join(f"{name} {value:.3f}" for name, value in running.items())
    return f"{passed.seconds / 60:6.1f}/{minutes:g} min  step {passed.step}  {passed.tiles} tiles  {losses}"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--start", type=Path, help="weights to begin from: a last.pt or a checkpoint folder")
    parser.add_argument("--deeppcb", type=Path, help="DeepPCB folder: real pairs are mixed in")
    parser.add_argument("--surfaces", type=Path, help="folder of neu-det and magnetic-tile, mixed in")
    parser.add_argument("--surface-rows", type=int, default=16, help=f"of {BATCH} rows (%(default)s)")
    parser.add_argument("--real-boards", type=float, default=0.65, help="share of the boards (%(default)s)")
    parser.add_argument("--real-surfaces", type=float, default=0.7, help="share of them (%(default)s)")
    parser.add_argument("--words-share", type=float, default=0.12, help="of the first half (%(default)s)")
    parser.add_argument("--peak", type=float, default=1.0, help="factor on the learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Trains, prints a validation table and says how long it took."""
    args = arguments()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    with joined_ranks(args.out, args.rank, args.ranks):
        torch.manual_seed(args.seed)
        random.seed(args.seed)
        tokenizer = Tokenizer.from_file(str(TOKENIZER_FILE))
        prompts = prompts_from_recipes(tokenizer)
        types = RESEARCH_TYPES if args.surfaces or args.deeppcb else SCENE_TYPES
        reference = Reference(tokenizer, prompts, len(types))
        worst = max(assert_same_as_transformers(reference.model, *ids) for ids in prompts.values())
        print(
            f"{sum(p.numel() for p in reference.parameters()) / 1e6:.2f} M parameters; fast pass within "
            f"{worst:.1e} of transformers",
            flush=True,
        )
        training = training_from_files(reference, args.out / "last.pt", args.start, types)
        train(training, args)
        passed = training.passed
        print(f"{passed.seconds / 60:.1f} min, {passed.step} steps, {passed.tiles} tiles", flush=True)


if __name__ == "__main__":
    main()
