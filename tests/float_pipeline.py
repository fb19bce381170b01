"""The exported float graphs with the host half around them: what is compared with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from orinspect.export.graph.graphs import GraphFiles
from orinspect.runtime.infer.sequence import (
    Segment,
    mask_for,
    mrope_cos_sin,
    positions_for_segments,
    store_new_kv,
)

Floats = npt.NDArray[np.float32]


@dataclass
class Prompt:
    """One row's tokens for the decoder: embeds [K, H], deepstack [D, K, H], positions [3, K]."""

    embeds: Floats
    deepstack: Floats
    positions: npt.NDArray[np.int64]
    next_position: int

    def part(self, begin: int, end: int) -> Prompt:
        return Prompt(
            self.embeds[begin:end],
            self.deepstack[:, begin:end],
            self.positions[:, begin:end],
            self.next_position,
        )


@dataclass
class Cache:
    """Past keys and values [B, L, 2, Hkv, P, hd] and how many slots of each row are filled."""

    past_kv: Floats
    lengths: list[int] = field(default_factory=list)


def session_from_file(path: Path) -> ort.InferenceSession:
    """One thread, so that tests neither spin on busy cores nor depend on their number."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class FloatPipeline:
    """vision, decoder and head on ONNX Runtime, one thread."""

    def __init__(self, files: GraphFiles) -> None:
        self.shape = files.shape
        self.embeddings: Floats = np.load(files.embeddings)
        self._vision, self._decoder, self._head = (
            session_from_file(path) for path in (files.vision, files.decoder, files.head_schema)
        )

    def see(self, patches: Floats) -> tuple[Floats, Floats]:
        """patches [B, N, F] -> image tokens [B, T, H], deepstack [B, D, T, H]."""
        tokens, deepstack = self._vision.run(["image_tokens", "deepstack"], {"patches": patches})
        return tokens, deepstack

    def prompt(self, token_ids: Sequence[int], pictures: Sequence[Floats] = (), start: int = 0) -> Prompt:
        """Embed token ids; the runs of image tokens take `pictures` (patches [N, F]) in order."""
        ids = np.asarray(token_ids)
        embeds = self.embeddings[ids]
        deepstack = np.zeros((len(self.shape.deepstack), len(ids), self.shape.hidden), np.float32)
        places = np.flatnonzero(ids == self.shape.image_token_id)
        if pictures:
            tokens, features = self.see(np.stack(pictures))
            embeds[places] = tokens.reshape(-1, self.shape.hidden)
            deepstack[:, places] = features.transpose(1, 0, 2, 3).reshape(
                len(deepstack), -1, self.shape.hidden
            )
        segments: list[Segment] = []
        at = 0
        for picture in range(len(pictures)):
            first = int(places[picture * self.shape.tokens])
            segments += [first - at, self.shape.token_grid_hw]
            at = first + self.shape.tokens
        positions, following = positions_for_segments([*segments, len(ids) - at], start)
        return Prompt(embeds, deepstack, positions, following)

    def cache(self, batch: int, slots: int, stale: float = 0.0) -> Cache:
        """An empty cache; `stale` fills the slots that nobody wrote."""
        return Cache(np.full(self.shape.past_kv_shape(batch, slots), stale, np.float32), [0] * batch)

    def feed(self, cache: Cache, rows: Sequence[Prompt]) -> Floats:
        """One decoder call over ragged rows, padded on the left -> hidden [B, K, H]; keeps new_kv."""
        counts = [len(row.embeds) for row in rows]
        columns = max(counts)
        shape = self.shape
        embeds = np.zeros((len(rows), columns, shape.hidden), np.float32)
        deepstack = np.zeros((len(rows), len(shape.deepstack), columns, shape.hidden), np.float32)
        positions = np.zeros((len(rows), 3, columns), np.int64)
        for index, (row, count) in enumerate(zip(rows, counts, strict=True)):
            if count:
                embeds[index, -count:] = row.embeds
                deepstack[index, :, -count:] = row.deepstack
                positions[index, :, -count:] = row.positions
        cos, sin = mrope_cos_sin(positions, shape)
        mask = mask_for(cache.lengths, counts, cache.past_kv.shape[4], columns)
        hidden, new_kv = self._decoder.run(
            ["hidden", "new_kv"],
            {
                "embeds": embeds,
                "deepstack": deepstack,
                "cos": cos,
                "sin": sin,
                "past_kv": cache.past_kv,
                "mask": mask,
            },
        )
        store_new_kv(cache.past_kv, new_kv, cache.lengths, counts)
        cache.lengths = [past + count for past, count in zip(cache.lengths, counts, strict=True)]
        return np.asarray(hidden)

    def logits(self, hidden: Floats) -> Floats:
        """hidden [B, H] -> logits [B, V]."""
        return np.asarray(self._head.run(["logits"], {"hidden": hidden})[0])

    def all_logits(self, prompt: Prompt, chunks: Sequence[int] = ()) -> Floats:
        """Logits [K, V] of one prompt, fed in chunks of the given sizes (none: at once)."""
        cache = self.cache(1, len(prompt.embeds) + 3)
        ends = np.cumsum(chunks or [len(prompt.embeds)]).tolist()
        begins = [0, *ends[:-1]]
        hidden = [
            self.feed(cache, [prompt.part(begin, end)])[0] for begin, end in zip(begins, ends, strict=True)
        ]
        return self.logits(np.concatenate(hidden))

    def greedy(
        self, prompts: Sequence[Prompt], steps: int, *, slots: int = 0, stale: float = 0.0
    ) -> list[list[int]]:
        """The most probable continuation of every row, `steps` tokens each, all rows in one batch."""
        cache = self.cache(len(prompts), slots or max(len(row.embeds) for row in prompts) + steps, stale)
        hidden = self.feed(cache, prompts)
        chosen: list[list[int]] = [[] for _ in prompts]
        places = [row.next_position for row in prompts]
        for step in range(steps):
            tokens = self.logits(hidden[:, -1]).argmax(axis=1).tolist()
            for row, token in enumerate(tokens):
                chosen[row].append(token)
            if step + 1 < steps:
                hidden = self.feed(
                    cache,
                    [
                        self.prompt([token], start=place + step)
                        for token, place in zip(tokens, places, strict=True)
                    ],
                )
        return chosen
