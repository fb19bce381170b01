"""Trains the reference checkpoints: words and dense head together, on a CPU, resumable.

    python examples/reference/train.py --out runs/reference --minutes 60
    python examples/reference/train.py --out runs/deeppcb --minutes 60 --start runs/reference/last.pt --deeppcb DIR

The learning rate follows the share of `--minutes` that has passed, so a slower machine sees fewer tiles, not another
schedule. `last.pt` is written every eight minutes and resumed when it exists. A small network trains faster as two
processes of one thread than as one of two: start `--rank 0` and `--rank 1` with `--ranks 2` and the same `--out`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from network import (
    TILE_PX,
    DenseHead,
    FastForward,
    TokenIds,
    assert_same_as_transformers,
    config_from_tokens,
    image_positions,
)
from samples import Board, Sample, deeppcb_boards, sample_from_board, scene_board
from targets import Answer, AnswerWriter, Cells, cells_from_boxes
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen3VLForConditionalGeneration

from orinspect.export.prompt import prompt_ids
from orinspect.runtime.capture.scenes import DEFECT_TYPES
from orinspect.runtime.infer.patches import compare_patches
from orinspect.runtime.recipe import load_recipe

HERE = Path(__file__).parent
BATCH, WORD_CHUNK = 64, 16
PEAK_RATE, WARMUP_STEPS, FINAL_SHARE, WEIGHT_DECAY, EMA_DECAY = 1.2e-3, 200, 0.02, 0.05, 0.998
SCENE_POOL, FIRST_SCENES = 700, 24
VALIDATION_TILES = 512


class TileStream(IterableDataset):  # type: ignore[misc]
    """Endless batches of (template, part [64, 128, 128] uint8, answers, cells), rows sorted by answer length."""

    def __init__(self, seed: int, real_share: float, deeppcb: Path | None, tokenizer_file: Path) -> None:
        self.seed, self.real_share, self.deeppcb, self.tokenizer_file = (
            seed,
            real_share,
            deeppcb,
            tokenizer_file,
        )

    def __iter__(self) -> Iterator[Any]:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self.seed)
        writer = AnswerWriter(Tokenizer.from_file(str(self.tokenizer_file)))
        real = deeppcb_boards(self.deeppcb, "training") if self.deeppcb else []
        next_seed = 10_000_000 + self.seed * 1_000_000  # far from the seeds of validation and of the demo
        pool: list[Board] = []
        count = 0
        while True:
            grow = FIRST_SCENES if not pool else int(len(pool) < SCENE_POOL or count % 4 == 0)
            for _ in range(grow):
                board = scene_board(next_seed)
                next_seed += 1
                if len(pool) < SCENE_POOL:
                    pool.append(board)
                else:
                    pool[int(rng.integers(SCENE_POOL))] = board
            samples: list[Sample] = []
            while len(samples) < BATCH:
                boards = real if real and rng.random() < self.real_share else pool
                sample = sample_from_board(boards[int(rng.integers(len(boards)))], rng)
                if sample is not None:
                    samples.append(sample)
            count += 1
            yield batch_from_samples(samples, writer)


def batch_from_samples(samples: list[Sample], writer: AnswerWriter) -> dict[str, Any]:
    """Arrays of a batch: answers are padded later, chunk by chunk."""
    samples = sorted(samples, key=lambda sample: len(sample.boxes))
    cells = [cells_from_boxes(sample.boxes) for sample in samples]
    return {
        "template": np.stack([sample.template for sample in samples]),
        "part": np.stack([sample.part for sample in samples]),
        "boxes": [sample.boxes for sample in samples],
        "answers": [writer.answer(sample.boxes) for sample in samples],
        "cells": Cells(
            *(np.stack([getattr(c, name) for c in cells]) for name in ("presence", "known", "type", "box"))
        ),
    }


def unchanged(batch: dict[str, Any]) -> dict[str, Any]:
    """Keeps the loader from turning arrays into tensors."""
    return batch


class Reference(nn.Module):
    """The Qwen3-VL and its dense head, with the losses of both."""

    def __init__(self, tokenizer: Tokenizer, prefix: list[int], suffix: list[int]) -> None:
        super().__init__()
        token = tokenizer.token_to_id
        ids = TokenIds(
            token("<|image_pad|>"),
            token("<|video_pad|>"),
            token("<|vision_start|>"),
            token("<|vision_end|>"),
            token("<|im_end|>"),
            token("<|endoftext|>"),
        )
        self.model = Qwen3VLForConditionalGeneration(config_from_tokens(ids, tokenizer.get_vocab_size()))
        vision = self.model.config.vision_config
        self.dense = DenseHead(
            vision.out_hidden_size * (1 + len(vision.deepstack_visual_indexes)), 256, len(DEFECT_TYPES)
        )
        self.prefix, self.suffix, self.pad = prefix, suffix, ids.pad

    def losses(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Mean losses of a batch, and shares of right choices, as 0-d tensors."""
        fast = FastForward(self.model)
        patches = torch.from_numpy(compare_patches(batch["template"], batch["part"], True))
        tokens, deepstack = fast.vision(patches)
        parts = dense_losses(self.dense(torch.cat([tokens, *deepstack], -1)).float(), batch["cells"])
        totals: dict[str, Tensor] = {}
        for start in range(0, len(batch["answers"]), WORD_CHUNK):
            rows = slice(start, start + WORD_CHUNK)
            chunk = self.word_sums(fast, tokens[rows], [d[rows] for d in deepstack], batch["answers"][rows])
            for name, value in chunk.items():
                totals[name] = totals.get(name, torch.zeros(())) + value
        parts["words"] = totals["loss"] / totals["weight"].clamp(min=1)
        for name in ("type", "list", "tens"):
            parts[f"{name} right"] = totals[f"{name} right"] / totals[f"{name} count"].clamp(min=1)
        return parts

    def word_sums(
        self, fast: FastForward, tokens: Tensor, deepstack: list[Tensor], answers: list[Answer]
    ) -> dict[str, Tensor]:
        """Summed losses and counts over the choices of a few rows of similar length."""
        longest = padded_length(max(len(answer.ids) for answer in answers))
        head, images = len(self.prefix), tokens.shape[1]
        answer_ids = torch.tensor([a.ids + [self.pad] * (longest - len(a.ids)) for a in answers])
        weights = torch.tensor([a.weights + [0.0] * (longest - len(a.ids)) for a in answers])
        table = fast.text.embed_tokens.weight
        rows = len(answers)
        embeds = torch.cat(
            [
                table[torch.tensor(self.prefix)].expand(rows, -1, -1),
                tokens.to(table.dtype),
                table[torch.tensor(self.suffix)].expand(rows, -1, -1),
                table[answer_ids[:, :-1]],
            ],
            1,
        )
        positions = image_positions(head, int(math.isqrt(images)), embeds.shape[1])
        hidden = fast.hidden(embeds, deepstack, slice(head, head + images), positions)
        chosen = weights > 0
        states = hidden[:, -longest:][chosen]  # the state before an answer token predicts it
        logits = (states @ table.T.to(states.dtype)).float()
        wanted, weight = answer_ids[chosen], weights[chosen]
        right = (logits.argmax(-1) == wanted).float()
        sums = {
            "loss": (F.cross_entropy(logits, wanted, reduction="none") * weight).sum(),
            "weight": weight.sum(),
        }
        for name, value in (("type", 4.0), ("list", 2.0), ("tens", 1.0)):
            sums[f"{name} right"], sums[f"{name} count"] = (
                (right * (weight == value)).sum(),
                (weight == value).sum(),
            )
        return sums


def padded_length(length: int) -> int:
    """Few distinct lengths: with many, the allocator never finds a block that fits and the process grows for ever."""
    return 2 if length <= 2 else 24 * -(-length // 24)


def dense_losses(out: Tensor, cells: Cells) -> dict[str, Tensor]:
    """Presence (BCE), type (CE) and box (smooth L1 in token units) losses of out [B, T, 1 + C + 4]."""
    presence, known = torch.from_numpy(cells.presence), torch.from_numpy(cells.known)
    positive = presence > 0
    bce = F.binary_cross_entropy_with_logits(out[..., 0], presence, reduction="none") * known
    kinds = torch.from_numpy(cells.type)[positive]
    logits = out[..., 1:-4][positive]
    count = max(int(positive.sum()), 1)
    return {
        "presence": bce.sum() / count,
        "kind": F.cross_entropy(logits, kinds, reduction="sum") / count,
        "box": F.smooth_l1_loss(
            out[..., -4:][positive], torch.from_numpy(cells.box)[positive], beta=0.1, reduction="sum"
        )
        / count,
        "kind right": (logits.argmax(-1) == kinds).float().sum() / count,
    }


def total(parts: dict[str, Tensor]) -> Tensor:
    """The training objective."""
    return parts["words"] + parts["presence"] + 0.7 * parts["kind"] + parts["box"]


@torch.no_grad()
def dense_counts(reference: Reference, batch: dict[str, Any]) -> np.ndarray:
    """(hits, reported, true) at presence 0.4 over boxes centred in the middle 80 px of a tile, with type, IoU > 0.33."""
    fast = FastForward(reference.model)
    tokens, deepstack = fast.vision(torch.from_numpy(compare_patches(batch["template"], batch["part"], True)))
    out = reference.dense(torch.cat([tokens, *deepstack], -1)).float().numpy()
    counts = np.zeros(3)
    for row, boxes in zip(out, batch["boxes"]):
        found = []
        for index in np.argsort(-row[:, 0]):
            if row[index, 0] < math.log(0.4 / 0.6):
                break
            cy, cx = divmod(int(index), 4)
            left, up, right, down = row[index, -4:]
            box = np.array([cx + 0.5 - left, cy + 0.5 - up, cx + 0.5 + right, cy + 0.5 + down]) * 32
            if all(overlap(box, other) < 0.3 for other, _ in found):
                found.append((box, int(row[index, 1:-4].argmax())))
        taken: set[int] = set()
        for box, kind in found:
            fits = [
                i
                for i, b in enumerate(boxes)
                if i not in taken and overlap(box, b[:4]) > 0.33 and b[4] == kind
            ]
            if fits:
                taken.add(fits[0])
                counts += (1, 1, 0) if central(boxes[fits[0]]) else (0, 0, 0)
            else:
                counts += (0, 1, 0) if central(box) else (0, 0, 0)
        counts[2] += sum(central(b) for b in boxes)
    return counts


def central(box: np.ndarray) -> bool:
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return bool(24 <= x < 104 and 24 <= y < 104)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return float(inner / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inner + 1e-6))


def validation_sets(writer: AnswerWriter, deeppcb: Path | None) -> dict[str, list[dict[str, Any]]]:
    """Fixed tiles: unseen scenes, and with the real pairs the two held-out boards."""
    sources = {"scenes": [scene_board(seed) for seed in range(900_000, 900_030)]}
    if deeppcb:
        sources["boards"] = deeppcb_boards(deeppcb, "validation")
    sets = {}
    for name, boards in sources.items():
        rng = np.random.default_rng(7)
        samples: list[Sample] = []
        while len(samples) < VALIDATION_TILES:
            sample = sample_from_board(boards[int(rng.integers(len(boards)))], rng)
            if sample is not None:
                samples.append(sample)
        sets[name] = [
            batch_from_samples(samples[i : i + BATCH], writer) for i in range(0, len(samples), BATCH)
        ]
    return sets


@torch.no_grad()
def validation_row(reference: Reference, batches: list[dict[str, Any]]) -> dict[str, float]:
    """Dense F with class, and the words' shares of right choices under teacher forcing."""
    reference.eval()
    counts, sums = np.zeros(3), {}
    for batch in batches:
        counts += dense_counts(reference, batch)
        for name, value in reference.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) / len(batches)
    reference.train()
    hits, reported, true = counts
    row = {"dense F": 2 * hits / max(reported + true, 1), "recall": hits / max(true, 1)}
    return {
        **row,
        **{name: sums[name] for name in ("words", "kind right", "type right", "list right", "tens right")},
    }


def rate(progress: float, step: int) -> float:
    """Linear warm-up over the first steps, then a cosine over the minutes down to 2 %."""
    cosine = FINAL_SHARE + (1 - FINAL_SHARE) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return PEAK_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * cosine


def main() -> None:
    """Parses the command line, trains, and prints a validation table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--start", type=Path, help="weights to begin from: a last.pt")
    parser.add_argument("--deeppcb", type=Path, help="DeepPCB folder: real pairs are mixed in")
    parser.add_argument("--real-share", type=float, default=0.65)
    parser.add_argument("--peak", type=float, default=1.0, help="factor on the learning rate")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if args.ranks > 1:
        store = f"file://{(args.out / 'ranks').resolve()}"
        torch.distributed.init_process_group("gloo", store, rank=args.rank, world_size=args.ranks)
    torch.manual_seed(args.seed)
    random.seed(args.seed)
    tokenizer_file = HERE / "tokenizer" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    prefix, suffix = prompt_ids(tokenizer, load_recipe(HERE / "pcb-compare.toml"))
    reference = Reference(tokenizer, prefix, suffix)
    print(
        f"{sum(p.numel() for p in reference.parameters()) / 1e6:.2f} M parameters; fast pass within "
        f"{assert_same_as_transformers(reference.model, prefix, suffix):.1e} of transformers",
        flush=True,
    )
    train(reference, tokenizer_file, args)


def train(reference: Reference, tokenizer_file: Path, args: argparse.Namespace) -> None:
    """The loop: one batch, one step, an average of the weights beside it, a table row every eight minutes."""
    decay = [p for p in reference.parameters() if p.ndim > 1]
    plain = [p for p in reference.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}],
        lr=PEAK_RATE,
        betas=(0.9, 0.98),
        fused=True,
    )
    state = {"step": 0, "seconds": 0.0, "tiles": 0}
    last = args.out / "last.pt"
    if last.exists():
        saved = torch.load(last)
        reference.load_state_dict(saved["weights"])
        optimiser.load_state_dict(saved["optimiser"])
        average, state = saved["average"], saved["state"]
    else:
        if args.start:
            reference.load_state_dict(torch.load(args.start)["average"])
        average = {name: value.detach().clone() for name, value in reference.state_dict().items()}
    writer = AnswerWriter(Tokenizer.from_file(str(tokenizer_file)))
    held_out = validation_sets(writer, args.deeppcb) if args.rank == 0 else {}
    stream_seed = args.seed * 100 + state["step"] % 47 + 50 * args.rank
    stream = TileStream(stream_seed, args.real_share, args.deeppcb, tokenizer_file)
    loader = iter(DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4, collate_fn=unchanged))
    began, next_table, before = time.monotonic(), 0.0, state["seconds"]
    running: dict[str, float] = {}
    while state["seconds"] < args.minutes * 60:
        batch = next(loader)
        for group in optimiser.param_groups:
            group["lr"] = args.peak * rate(state["seconds"] / (args.minutes * 60), state["step"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts = reference.losses(batch)
            loss = total(parts)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        state["seconds"] = shared_mean(reference, before + time.monotonic() - began, args.ranks)
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimiser.step()
        keep = min(EMA_DECAY, (state["step"] + 1) / (state["step"] + 20))
        with torch.no_grad():
            for name, value in reference.state_dict().items():
                average[name].mul_(keep).add_(value, alpha=1 - keep)
        for name, value in parts.items():
            running[name] = 0.98 * running.get(name, float(value)) + 0.02 * float(value)
        state["step"] += 1
        state["tiles"] += BATCH * args.ranks
        if args.rank:
            continue
        if state["step"] % 50 == 0:
            print(
                f"{state['seconds'] / 60:6.1f}/{args.minutes:g} min  step {state['step']}  {state['tiles']} tiles  "
                + "  ".join(f"{name} {value:.3f}" for name, value in running.items()),
                flush=True,
            )
        if state["seconds"] > next_table or state["seconds"] >= args.minutes * 60:
            next_table = state["seconds"] + 480
            if state["step"] > 5:
                table(reference, average, held_out, state, args.out)
            save(reference, optimiser, average, state, last)


def shared_mean(reference: Reference, seconds: float, ranks: int) -> float:
    """Averages the gradients over the processes, and their clocks, so that all stop after the same step."""
    if ranks == 1:
        return seconds
    gradients = [p.grad for p in reference.parameters() if p.grad is not None]
    flat = torch.cat([g.view(-1) for g in gradients] + [torch.tensor([seconds / 1e4])])
    torch.distributed.all_reduce(flat)
    flat /= ranks
    torch._foreach_copy_(
        gradients,
        [part.view_as(g) for part, g in zip(flat[:-1].split([g.numel() for g in gradients]), gradients)],
    )
    return float(flat[-1]) * 1e4


def table(
    reference: Reference,
    average: dict[str, Tensor],
    held_out: dict[str, Any],
    state: dict[str, Any],
    out: Path,
) -> None:
    """Validates the averaged weights, prints the rows and appends them to `validation.jsonl`."""
    own = {name: value.clone() for name, value in reference.state_dict().items()}
    reference.load_state_dict(average)
    for name, batches in held_out.items():
        row = validation_row(reference, batches)
        print(f"  {name:8s} " + "  ".join(f"{key} {value:.3f}" for key, value in row.items()), flush=True)
        with (out / "validation.jsonl").open("a") as lines:
            lines.write(json.dumps({"set": name, **state, **row}) + "\n")
    reference.load_state_dict(own)


def save(
    reference: Reference, optimiser: Any, average: dict[str, Tensor], state: dict[str, Any], path: Path
) -> None:
    """Writes everything that a resumed run needs, whole or not at all."""
    partial = path.with_suffix(".partial")
    torch.save(
        {
            "weights": reference.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average,
            "state": dict(state),
        },
        partial,
    )
    partial.replace(path)


if __name__ == "__main__":
    main()
