"""A recipe, a tokenizer and a decoder to what the device runs: ids, guide, prefix keys and values.

The guide is the recipe's answer schema as the device's token automaton. Qwen's pre-tokenizer cuts at every
digit, so an answer is digits between fixed pieces of text, and each piece always becomes the same tokens. The
compiler builds on that and then proves it for the tokenizer at hand: random canonical answers must tokenise
to exactly a path of the automaton, and random paths must be canonical. A tokenizer that merges digits, or a
label that changes the tokens around it, is a RecipeError naming it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from ..runtime.errors import RecipeError
from ..runtime.infer.bundle import CompiledRecipe
from ..runtime.infer.engines.engine import Engine
from ..runtime.infer.guide import BINS, Guide, text_from_ids
from ..runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments
from ..runtime.infer.shape import ModelShape
from ..runtime.recipe import Recipe
from .graph.checkpoint import Weights
from .prompt import IM_END, answer_ids, answer_text_from_bins, between_ids, encode, prompt_ids, token_id

LEAST_FRAME_DIFFERENCE = 0.1
"""Below this ratio the two frames' patch weights are too equal to tell template from part."""

PATCH_WEIGHT = "model.visual.patch_embed.proj.weight"

OPENING = '[{"bbox_2d":['


def compiled_from_recipe(tokenizer: Any, recipe: Recipe) -> CompiledRecipe:
    """Prompt ids, proven guide and vocabulary; the prefix is still empty, see `with_prefix`.

    RecipeError when the tokenizer cannot write the recipe's answers.
    """
    guide = compile_guide(tokenizer, recipe)
    prefix, suffix = prompt_ids(tokenizer, recipe)
    return CompiledRecipe(
        recipe=recipe,
        guide=guide,
        prefix_kv=np.zeros((0, 2, 0, 0, 0), np.float32),
        prefix_ids=tuple(prefix),
        suffix_ids=tuple(suffix),
        between_ids=between_ids(tokenizer, recipe),
        next_position=len(prefix),
        kept_ids=guide.kept_ids,
        vocabulary=vocabulary_from_guide(tokenizer, guide),
    )


def with_prefix(
    compiled: CompiledRecipe, shape: ModelShape, decoder: Engine, embeddings: npt.NDArray[Any]
) -> CompiledRecipe:
    """The recipe with the keys and values of its prefix, from one run of the float decoder.

    `embeddings` is [V, H]; the keys and values are [layers, 2, kv_heads, prefix tokens, head_dim] float32.
    """
    count = len(compiled.prefix_ids)
    positions, following = positions_for_segments([count])
    cos, sin = mrope_cos_sin(positions[None], shape)
    feeds = {
        "embeds": embeddings[list(compiled.prefix_ids)][None].astype(np.float32),
        "deepstack": np.zeros((1, len(shape.deepstack), count, shape.hidden), np.float32),
        "cos": cos,
        "sin": sin,
        # one past slot that nobody sees: an empty axis is the one shape that engines disagree about
        "past_kv": np.zeros(shape.past_kv_shape(1, 1), np.float32),
        "mask": mask_for([0], [count], 1, count),
    }
    return dataclasses.replace(compiled, prefix_kv=decoder.run(feeds)["new_kv"][0], next_position=following)


def frame_difference(weights: Weights, shape: ModelShape) -> float:
    """||W0 - W1|| / ||W0 + W1|| of the patch weights' first and last frame."""
    size = (shape.vision_hidden, shape.channels, shape.temporal_patch, shape.patch_px, shape.patch_px)
    kernel = weights.read(PATCH_WEIGHT, size)
    first, last = kernel[:, :, 0], kernel[:, :, -1]
    return float(np.linalg.norm(first - last) / max(float(np.linalg.norm(first + last)), 1e-30))


def check_recipes(recipes: list[Recipe]) -> None:
    """RecipeError unless the recipes can share one bundle: one tile size, different ids, at least one."""
    if not recipes:
        raise RecipeError("no recipe is given; add at least one --recipe R.toml")
    sizes = sorted({recipe.tiling.tile_px for recipe in recipes})
    if len(sizes) > 1:
        raise RecipeError(f"the recipes' tiling.tile_px are {sizes}; one bundle has one tile size")
    ids = [recipe.id for recipe in recipes]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise RecipeError(f"two recipes have the id {twice[0]!r}; give each its own")


def check_compare(recipes: list[Recipe], difference: float) -> None:
    """RecipeError for a way of comparing that a checkpoint with this frame difference cannot do."""
    for recipe in recipes:
        if recipe.compare == "temporal" and difference < LEAST_FRAME_DIFFERENCE:
            raise RecipeError(
                f"recipe {recipe.id}: compare = 'temporal', but the frame weights of this checkpoint differ"
                f" by {difference:.3f}, less than {LEAST_FRAME_DIFFERENCE}: it cannot tell template from"
                " part; use compare = 'two_images'"
            )


def recipe_graph(folder: Path, compiled: CompiledRecipe) -> Path:
    """Where the schema head of a recipe lies in a folder of graphs."""
    return folder / f"head_schema.{compiled.recipe.id}.onnx"


def compile_guide(tokenizer: Any, recipe: Recipe, *, proofs: int = 2000, seed: int = 0) -> Guide:
    """The proven automaton of a recipe; RecipeError names the text that has no path with this tokenizer."""
    end = token_id(tokenizer, IM_END)
    digits = [_digit_id(tokenizer, digit) for digit in range(10)]
    comma = encode(tokenizer, ",")
    last_number = BINS[recipe.coordinates] - 1
    automaton = _Automaton()
    start, terminal = automaton.state(), automaton.state()
    following: int | None = None  # where the next defect's first number starts; the last defect has none
    for _ in range(recipe.max_defects_per_tile):
        after = automaton.state()
        for label in recipe.types:
            automaton.path(after, [*encode(tokenizer, f'],"label":"{label}"}}]'), end], terminal, label)
            if following is not None:
                more = encode(tokenizer, f'],"label":"{label}"}},{OPENING[1:]}')
                automaton.path(after, more, following, label)
        following = _number(automaton, digits, last_number, after)
        for _ in range(3):
            before = automaton.state()
            automaton.path(before, comma, following, ",")
            following = _number(automaton, digits, last_number, before)
    assert following is not None
    automaton.path(start, [*encode(tokenizer, "[]"), end], terminal, "[]")
    automaton.path(start, encode(tokenizer, OPENING), following, OPENING)
    guide = Guide(automaton.states, terminal)
    prove_guide(guide, tokenizer, recipe, proofs, seed)
    return guide


def vocabulary_from_guide(tokenizer: Any, guide: Guide) -> dict[int, bytes]:
    """Token id -> the bytes it writes, for every id of the guide; the end token writes none."""
    byte_of = _byte_of_sign()
    vocabulary = {}
    for identity in map(int, guide.kept_ids):
        token = tokenizer.id_to_token(identity)
        if token == IM_END:
            vocabulary[identity] = b""
        elif token is not None and all(sign in byte_of for sign in token):
            vocabulary[identity] = bytes(byte_of[sign] for sign in token)
        else:
            raise RecipeError(f"token {identity} ({token!r}) is not byte-level; use Qwen's tokenizer")
    return vocabulary


def prove_guide(guide: Guide, tokenizer: Any, recipe: Recipe, proofs: int = 2000, seed: int = 0) -> None:
    """Show that automaton and tokenizer agree on `proofs` random answers and a tenth as many random paths.

    The answers cover every count from none to the most, every label, and the smallest and largest numbers of
    each length. RecipeError names the first text that does not fit.
    """
    random = Random(seed)
    vocabulary = vocabulary_from_guide(tokenizer, guide)
    for number in range(proofs):
        text = answer_text_from_bins(_random_rows(random, recipe, number))
        ids = answer_ids(tokenizer, text)
        # a normalizer may also write another text on a path of its own, so the text is read back
        if guide.walk(ids) != guide.terminal or text_from_ids(ids, vocabulary) != text:
            raise RecipeError(
                f"recipe {recipe.id}: with this tokenizer the guide cannot write {text};"
                " rename the labels or use the checkpoint's own tokenizer"
            )
    for _ in range(proofs // 10):
        ids = _random_path(random, guide)
        text = text_from_ids(ids, vocabulary)
        if answer_ids(tokenizer, text) != ids:
            raise RecipeError(
                f"recipe {recipe.id}: the guide writes {text} in other tokens than the tokenizer"
            )


def longest_answer(guide: Guide) -> int:
    """Tokens of the longest answer, the end token included."""
    longest: dict[int, int] = {guide.terminal: 0}
    pending = [guide.start]
    while pending:  # depth first; the automaton has no circles, so every state is settled once
        state = pending[-1]
        missing = [following for following in guide.states[state].values() if following not in longest]
        if missing:
            pending.extend(missing)
            continue
        pending.pop()
        longest.setdefault(state, 1 + max((longest[to] for to in guide.states[state].values()), default=0))
    return longest[guide.start]


class _Automaton:
    """States under construction; paths that share their first tokens share their first states."""

    def __init__(self) -> None:
        self.states: list[dict[int, int]] = []

    def state(self, edges: dict[int, int] | None = None) -> int:
        self.states.append(edges or {})
        return len(self.states) - 1

    def path(self, state: int, ids: list[int], target: int, text: str) -> None:
        """Lead from `state` over `ids` to `target`; RecipeError when another path uses the last edge."""
        for token in ids[:-1]:
            following = self.states[state].get(token)
            if following is None:
                following = self.states[state][token] = self.state()
            state = following
        if self.states[state].setdefault(ids[-1], target) != target or not ids:
            raise RecipeError(f"the tokens of {text!r} are the beginning of another piece; rename this label")


def _number(automaton: _Automaton, digits: list[int], last: int, after: int) -> int:
    """A state from which the numbers 0..last lead to `after`, without leading zeros.

    Where a number may end or go on, the state has the edges of `after` beside its digits. Equal tails merge.
    """
    known: dict[tuple[tuple[int, int], ...], int] = {}

    def edges(prefix: str) -> tuple[tuple[int, int], ...]:
        further = [] if prefix == "0" else [digit for digit in range(10) if int(f"{prefix}{digit}") <= last]
        return tuple((digits[digit], tail(f"{prefix}{digit}")) for digit in further)

    def tail(prefix: str) -> int:
        further = edges(prefix)
        if not further:
            return after
        if further not in known:
            known[further] = automaton.state({**dict(further), **automaton.states[after]})
        return known[further]

    return automaton.state(dict(edges("")))


def _digit_id(tokenizer: Any, digit: int) -> int:
    ids = encode(tokenizer, str(digit))
    if len(ids) != 1:
        raise RecipeError(f"this tokenizer writes {digit} in {len(ids)} tokens; the guide needs one a digit")
    return ids[0]


def _random_rows(random: Random, recipe: Recipe, number: int) -> list[tuple[str, list[int]]]:
    """Defects for one proof; `number` walks through counts and labels so that none is left to chance."""
    last = BINS[recipe.coordinates] - 1
    edges = [value for value in (0, 1, 9, 10, 99, 100, 999, 1000) if value <= last]
    count = number % (recipe.max_defects_per_tile + 1)
    rows = []
    for index in range(count):
        label = recipe.types[(number + index) % len(recipe.types)]
        box = [random.choice(edges) if random.random() < 0.5 else random.randint(0, last) for _ in range(4)]
        rows.append((label, box))
    return rows


def _random_path(random: Random, guide: Guide) -> list[int]:
    ids: list[int] = []
    state = guide.start
    while state != guide.terminal:
        token = random.choice(list(guide.states[state]))
        ids.append(token)
        state = guide.states[state][token]
    return ids


def _byte_of_sign() -> dict[str, int]:
    """Byte of each sign in a byte-level BPE vocabulary (Radford et al. 2019, `bytes_to_unicode` of GPT-2)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    signs = {chr(byte): byte for byte in printable}
    others = [byte for byte in range(256) if byte not in printable]
    signs.update({chr(256 + position): byte for position, byte in enumerate(others)})
    return signs
