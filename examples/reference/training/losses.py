"""The trained whole, Qwen3-VL and dense head, with the losses of both."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as functional
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration

from orinspect.examples.reference.training.marks import BLOCKS, patch_marks
from orinspect.examples.reference.training.network import (
    DenseHead,
    FastForward,
    MarksHead,
    config_from_tokens,
    image_positions,
    token_ids_from_tokenizer,
)
from orinspect.examples.reference.training.stream import Batch
from orinspect.examples.reference.training.targets import Answer, Cells
from orinspect.examples.reference.training.tasks import Prompt, Task
from orinspect.runtime.infer.pictures.tiles import patches_from_pixels

WORD_CHUNK = 8


def patches_from_batch(batch: Batch) -> Tensor:
    """[B, N, 1536] float32."""
    return torch.from_numpy(patches_from_pixels(batch.pixels))


class Reference(nn.Module):
    """The Qwen3-VL and its dense head, with the losses of both."""

    def __init__(self, tokenizer: Tokenizer, prompts: Mapping[Task, Prompt], types: int) -> None:
        super().__init__()
        ids = token_ids_from_tokenizer(tokenizer)
        self.model = Qwen3VLForConditionalGeneration(config_from_tokens(ids, tokenizer.get_vocab_size()))
        vision = self.model.config.vision_config
        self.dense = DenseHead(
            vision.out_hidden_size * (1 + len(vision.deepstack_visual_indexes)), 256, types
        )
        self.marks = MarksHead(vision.hidden_size, types)
        self.prompts, self.pad = dict(prompts), ids.pad
        self.fast = FastForward(self.model)
        self.compiled_vision = torch.compile(self.fast.vision, dynamic=False)

    def losses(self, batch: Batch, words_share: float = 1.0) -> dict[str, Tensor]:
        """Mean losses of a batch, and shares of right choices, as 0-d tensors.

        Only about `words_share` of the rows, drawn anew each time, are asked for words: detection is learnt
        later than language, and a row without words costs half.
        """
        fast = self.fast
        vision = self.compiled_vision if self.training else fast.vision
        tokens, deepstack, states = vision(patches_from_batch(batch))
        parts = dense_losses(self.dense(torch.cat([tokens, *deepstack], -1)).float(), batch.cells)
        parts["marks"] = marks_loss(self.marks(states).float(), fast.patch_order, batch.marks)
        totals: dict[str, Tensor] = {}
        chunks = list(batch.chunks(WORD_CHUNK))
        for rows in random.sample(chunks, max(round(words_share * len(chunks)), 1)):
            prompt = self.prompts[batch.tasks[rows.start]]
            taps = [tap[rows] for tap in deepstack]
            chunk = self.word_sums(fast, prompt, tokens[rows], taps, batch.answers[rows])
            for name, value in chunk.items():
                totals[name] = totals.get(name, torch.zeros(())) + value
        parts["words"] = totals["loss"] / totals["weight"].clamp(min=1)
        for name in ("type", "list", "tens"):
            parts[f"{name} right"] = totals[f"{name} right"] / totals[f"{name} count"].clamp(min=1)
        return parts

    def word_sums(
        self,
        fast: FastForward,
        prompt: Prompt,
        tokens: Tensor,
        deepstack: list[Tensor],
        answers: list[Answer],
    ) -> dict[str, Tensor]:
        """Summed losses and counts over the choices of a few rows of one task and of similar length."""
        longest = padded_length(max(len(answer.ids) for answer in answers))
        head, images = len(prompt.prefix), tokens.shape[1]
        answer_ids = torch.tensor([a.ids + [self.pad] * (longest - len(a.ids)) for a in answers])
        weights = torch.tensor([a.weights + [0.0] * (longest - len(a.ids)) for a in answers])
        table = fast.text.embed_tokens.weight
        rows = len(answers)
        embeds = torch.cat(
            [
                table[torch.tensor(prompt.prefix)].expand(rows, -1, -1),
                tokens.to(table.dtype),
                table[torch.tensor(prompt.suffix)].expand(rows, -1, -1),
                table[answer_ids[:, :-1]],
            ],
            1,
        )
        positions = image_positions(head, math.isqrt(images), embeds.shape[1])
        hidden = fast.hidden(embeds, deepstack, slice(head, head + images), positions)
        chosen = weights > 0
        states = hidden[:, -longest:][chosen]  # the state before an answer token predicts it
        logits = (states @ table.T.to(states.dtype)).float()
        wanted, weight = answer_ids[chosen], weights[chosen]
        right = (logits.argmax(-1) == wanted).float()
        sums = {
            "loss": (functional.cross_entropy(logits, wanted, reduction="none") * weight).sum(),
            "weight": weight.sum(),
        }
        for name, value in (("type", 4.0), ("list", 2.0), ("tens", 1.0)):
            sums[f"{name} right"], sums[f"{name} count"] = (
                (right * (weight == value)).sum(),
                (weight == value).sum(),
            )
        return sums


def padded_length(length: int) -> int:
    """Few distinct lengths: with many, no freed block fits the next batch and the process grows for ever."""
    return 2 if length <= 2 else 24 * -(-length // 24)


def dense_losses(out: Tensor, cells: Cells) -> dict[str, Tensor]:
    """Presence (BCE), type (CE) and box (smooth L1 in token units) losses of out [B, T, 1 + C + 4]."""
    presence, known = torch.from_numpy(cells.presence), torch.from_numpy(cells.known)
    positive = presence > 0
    bce = functional.binary_cross_entropy_with_logits(out[..., 0], presence, reduction="none") * known
    kinds = torch.from_numpy(cells.type)[positive]
    logits = out[..., 1:-4][positive]
    count = max(int(positive.sum()), 1)
    return {
        "presence": bce.sum() / count,
        "kind": functional.cross_entropy(logits, kinds, reduction="sum") / count,
        "box": functional.smooth_l1_loss(
            out[..., -4:][positive], torch.from_numpy(cells.box)[positive], beta=0.1, reduction="sum"
        )
        / count,
        "kind right": (logits.argmax(-1) == kinds).float().sum() / count,
    }


def marks_loss(out: Tensor, order: Tensor, marks: npt.NDArray[np.uint8]) -> Tensor:
    """Blocks (BCE, by the count of covered ones) and types (CE) of out [B, 64, 16 + types].

    `order` [64]: the row-order number of each patch of `out`, whose patches stand in merge-block order.
    """
    true = patch_marks(marks)
    covered, known = torch.from_numpy(true.covered)[:, order], torch.from_numpy(true.known)[:, order]
    kinds = torch.from_numpy(true.type)[:, order]
    blocks = functional.binary_cross_entropy_with_logits(out[..., :BLOCKS], covered, reduction="none")
    positive = kinds >= 0
    types = functional.cross_entropy(out[..., BLOCKS:][positive], kinds[positive], reduction="sum")
    where = (blocks * known[..., None]).sum() / covered.sum().clamp(min=1)
    return where + types / positive.sum().clamp(min=1)


def total(parts: dict[str, Tensor]) -> Tensor:
    """The training objective."""
    return parts["words"] + parts["presence"] + parts["kind"] + parts["box"] + parts["marks"]
