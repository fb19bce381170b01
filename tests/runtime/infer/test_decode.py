"""Guided decoding on a real decoder graph, against a plain one-token-at-a-time run of the same graph."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.bundle import Bundle, CompiledRecipe
from orinspect.runtime.infer.decode import Answer, Decoder
from orinspect.runtime.infer.engines.engine import Dimensions, Engine, FloatArray, engine_from_bundle
from orinspect.runtime.infer.engines.past import BUCKET, PastBuffer, bucket_of
from orinspect.runtime.infer.guide import text_from_ids
from orinspect.runtime.infer.sequence import mask_for, mrope_cos_sin, positions_for_segments

TILES = 12


@dataclass
class Recording:
    """An engine that keeps what it was fed; with `poison` its first output is not a number from that call
    on.
    """

    engine: Engine
    feeds: list[dict[str, FloatArray]] = dataclasses.field(default_factory=list)
    poison: int | None = None

    @property
    def inputs(self) -> Mapping[str, Dimensions]:
        return self.engine.inputs

    @property
    def outputs(self) -> Mapping[str, Dimensions]:
        return self.engine.outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        self.feeds.append({name: array.copy() for name, array in feeds.items()})
        outputs = self.engine.run(feeds)
        if self.poison is not None and len(self.feeds) > self.poison:
            first = next(iter(outputs))
            outputs[first] = np.full_like(outputs[first], np.nan)
        return outputs

    def close(self) -> None:
        self.engine.close()


@dataclass
class Setup:
    bundle: Bundle
    compiled: CompiledRecipe
    decoder: Recording
    head: Recording
    image_tokens: FloatArray
    deepstack: FloatArray

    def build(self, max_rows: int | None = None) -> Decoder:
        return Decoder(
            self.bundle.shape,
            self.compiled,
            self.bundle.embeddings,
            self.decoder,
            self.head,
            clock=time.perf_counter,
            max_rows=max_rows,
        )


@pytest.fixture
def setup(small_bundle: Bundle) -> Iterator[Setup]:
    shape, draw = small_bundle.shape, np.random.default_rng(0)
    engines = [
        engine_from_bundle(small_bundle, component, threads=1)
        for component in ("decoder", "head_schema.pcb-compare")
    ]
    yield Setup(
        small_bundle,
        small_bundle.recipe(),
        Recording(engines[0]),
        Recording(engines[1]),
        draw.normal(size=(TILES, shape.tokens, shape.hidden)).astype(np.float32),
        draw.normal(size=(TILES, len(shape.deepstack), shape.tokens, shape.hidden)).astype(np.float32),
    )
    for engine in engines:
        engine.close()


def plain_answer(setup: Setup, tile: int) -> tuple[list[int], list[float]]:
    """Greedy decoding as slow as it gets: the whole sequence after the prefix is run again for every
    choice.
    """
    shape, compiled, guide = setup.bundle.shape, setup.compiled, setup.compiled.guide
    ids, probabilities, state = [], [], guide.start
    while state != guide.terminal:
        if not guide.is_choice(state):
            ((token, state),) = guide.states[state].items()
            ids.append(token)
            continue
        text = [*compiled.suffix_ids, *ids]
        embeds = np.concatenate(
            [setup.image_tokens[tile], np.asarray(setup.bundle.embeddings[text], np.float32)]
        )
        count = len(embeds)
        deepstack = np.zeros((1, len(shape.deepstack), count, shape.hidden), np.float32)
        deepstack[0, :, : shape.tokens] = setup.deepstack[tile]
        positions, _ = positions_for_segments([shape.token_grid_hw, len(text)], compiled.next_position)
        cos, sin = mrope_cos_sin(positions[None], shape)
        past = compiled.prefix_kv.shape[3]
        outputs = setup.decoder.engine.run(
            {
                "embeds": embeds[None],
                "deepstack": deepstack,
                "cos": cos,
                "sin": sin,
                "past_kv": compiled.prefix_kv[None],
                "mask": mask_for([past], [count], past, count),
            }
        )
        logits = setup.head.engine.run({"hidden": outputs["hidden"][:, -1].copy()})["logits"][0].astype(
            np.float64
        )
        choice = guide.choice(state)
        allowed = np.exp(logits[choice.rows] - logits[choice.rows].max())
        best = int(np.argmax(allowed))
        probabilities.append(float(allowed[best] / allowed.sum()))
        ids.append(int(choice.token_ids[best]))
        state = int(choice.next_states[best])
    return ids, probabilities


def test_answers_are_those_of_plain_decoding(setup: Setup) -> None:
    decoded = setup.build(max_rows=5).answers(setup.image_tokens, setup.deepstack)
    assert len(decoded.answers) == TILES
    for tile, answer in enumerate(decoded.answers):
        ids, probabilities = plain_answer(setup, tile)
        assert list(answer.ids) == ids
        assert [decision.probability for decision in answer.decisions] == pytest.approx(
            probabilities, abs=1e-4
        )
    # the comparison is worth something only when the tiles differ and some answers are long
    assert len({answer.ids for answer in decoded.answers}) > 3
    assert max(answer.row_passes for answer in decoded.answers) > 10


def test_a_row_does_not_depend_on_its_batch(setup: Setup) -> None:
    together = setup.build().answers(setup.image_tokens, setup.deepstack).answers
    alone = setup.build(max_rows=1).answers(setup.image_tokens, setup.deepstack).answers
    order = [7, 0, 3, 11, 1, 9, 2, 10, 4, 8, 6, 5]
    shuffled = setup.build(max_rows=7).answers(setup.image_tokens[order], setup.deepstack[order]).answers
    for tile in range(TILES):
        assert together[tile].ids == alone[tile].ids == shuffled[order.index(tile)].ids


def test_every_row_pass_ends_in_a_choice_and_none_runs_what_is_forced(setup: Setup) -> None:
    decoded = setup.build().answers(setup.image_tokens, setup.deepstack)
    answers, guide = decoded.answers, setup.compiled.guide
    for answer in answers:
        assert answer.row_passes == len(answer.decisions)
        assert answer.row_passes <= 10 * text(setup, answer).count("label") + 2
        # the tokens behind the last choice are known: they are in the answer and were never fed
        state = guide.walk(answer.ids[: answer.decisions[-1].index + 1])
        assert state is not None
        assert guide.forced_run(state)[1] == guide.terminal
    rows = [len(feeds["embeds"]) for feeds in setup.decoder.feeds]
    assert sum(rows) == decoded.row_passes == sum(answer.row_passes for answer in answers)
    assert decoded.engine_calls == len(setup.decoder.feeds) + len(setup.head.feeds)
    # no token is fed twice: prefill, then exactly what stands between the first and the last choice
    fed = sum(_real_tokens(feeds) for feeds in setup.decoder.feeds)
    lead = setup.bundle.shape.tokens + len(setup.compiled.suffix_ids)
    assert fed == sum(lead + answer.decisions[-1].index for answer in answers)


def test_finished_rows_leave_the_batch(setup: Setup) -> None:
    setup.build().answers(setup.image_tokens, setup.deepstack)
    rows = [len(feeds["embeds"]) for feeds in setup.decoder.feeds]
    assert rows[0] == TILES
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < TILES / 2


def test_the_past_is_zero_behind_every_row_at_first_and_a_whole_number_of_buckets(setup: Setup) -> None:
    setup.build().answers(setup.image_tokens, setup.deepstack)
    first = setup.decoder.feeds[0]["past_kv"]
    prefix = setup.compiled.prefix_kv.shape[3]
    assert not first[:, :, :, :, prefix:].any()
    assert (first[:, :, :, :, :prefix] == setup.compiled.prefix_kv).all()
    slots = [feeds["past_kv"].shape[4] for feeds in setup.decoder.feeds]
    assert all(count % BUCKET == 0 for count in slots)
    assert slots == sorted(slots)
    assert len(set(slots)) > 1


def test_an_answer_longer_than_the_budget_is_cut_and_says_so(setup: Setup) -> None:
    whole = setup.build().answers(setup.image_tokens, setup.deepstack).answers
    budget = max(len(answer.ids) for answer in whole) - 10
    recipe = dataclasses.replace(setup.compiled.recipe, token_budget=budget)
    setup.compiled = dataclasses.replace(setup.compiled, recipe=recipe)
    cut = setup.build().answers(setup.image_tokens, setup.deepstack).answers
    for before, after in zip(whole, cut, strict=True):
        assert after.is_cut == (len(before.ids) > budget)
        assert after.ids == before.ids[: len(after.ids)]
        assert after.is_cut or after.ids == before.ids
    assert 0 < sum(answer.is_cut for answer in cut) < TILES


@pytest.mark.parametrize("poison", [0, 3])
def test_a_logit_that_is_no_number_is_an_engine_error(setup: Setup, poison: int) -> None:
    setup.head.poison = poison
    with pytest.raises(EngineError, match="logits"):
        setup.build().answers(setup.image_tokens, setup.deepstack)
    assert len(setup.head.feeds) == poison + 1


def test_no_tiles_are_no_work(setup: Setup) -> None:
    decoded = setup.build().answers(setup.image_tokens[:0], setup.deepstack[:0])
    assert decoded.answers == ()
    assert (decoded.row_passes, decoded.engine_calls) == (0, 0)
    assert not setup.decoder.feeds


def test_the_past_buffer_keeps_every_row_while_rows_leave_and_it_grows(small_bundle: Bundle) -> None:
    """Three rows of unlike length; the middle one leaves; then the others outgrow their bucket."""
    shape, draw = small_bundle.shape, np.random.default_rng(1)
    prefix = draw.normal(size=shape.past_kv_shape(1, 5)[1:]).astype(np.float32)
    past = PastBuffer(shape, prefix, 3, 90)
    expected = [prefix] * 3

    def store(counts: list[int]) -> None:
        columns = max(counts)
        new = draw.normal(size=shape.past_kv_shape(len(counts), columns)).astype(np.float32)
        past.store(new, counts)
        for row, count in enumerate(counts):
            expected[row] = np.concatenate([expected[row], new[row, :, :, :, columns - count :]], axis=3)

    def check() -> None:
        assert past.lengths == [rows.shape[3] for rows in expected]
        for row, rows in enumerate(expected):
            assert (past.view[row, :, :, :, : rows.shape[3]] == rows).all()

    store([4, 20, 9])
    memory = past.view.base
    check()
    past.drop(1)
    expected[1] = expected.pop()
    check()
    store([30, 2])
    assert past.view.shape[4] == bucket_of(39)
    check()
    store([1, 60])
    check()
    assert past.view.base is memory  # one allocation, whatever happened
    with pytest.raises(EngineError, match="token_budget"):
        store([1, 60])


def test_buckets() -> None:
    assert [bucket_of(slots) for slots in (0, 1, 32, 33)] == [32, 32, 32, 64]


def text(setup: Setup, answer: Answer) -> str:
    return text_from_ids(answer.ids, setup.compiled.vocabulary)


def _real_tokens(feeds: Mapping[str, FloatArray]) -> int:
    """Tokens of a call that are no padding: padding sees one key only, itself."""
    return int(((feeds["mask"] == 0).sum(axis=2) > 1).sum())
