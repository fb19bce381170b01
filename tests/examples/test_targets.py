"""What the training asks of the network, against the guide that the device decodes under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("tokenizers")

from orinspect.examples.reference.training.targets import (
    CELL_PX,
    LIST_WEIGHT,
    MAX_DEFECTS,
    TYPE_WEIGHT,
    Answer,
    AnswerWriter,
    Cells,
    cells_from_boxes,
)
from orinspect.export.prompt import answer_ids, answer_text, encode, tokenizer_from_checkpoint
from orinspect.export.recipe_compile import compile_guide
from orinspect.runtime.capture.scenes import DEFECT_TYPES
from orinspect.runtime.infer.guide import Guide
from orinspect.runtime.recipe import load_recipe

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"
Boxes = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_from_checkpoint(REFERENCE / "tokenizer")


@pytest.fixture(scope="module")
def writer(tokenizer: Any) -> AnswerWriter:
    return AnswerWriter(tokenizer, DEFECT_TYPES)


@pytest.fixture(scope="module")
def guide(tokenizer: Any) -> Guide:
    return compile_guide(tokenizer, load_recipe(REFERENCE / "pcb-compare.toml"), proofs=50)


def random_boxes(rng: np.random.Generator, count: int) -> Boxes:
    """[count, 5] in tile pixels; a third of them in the corner where numbers have one digit."""
    reach = 12.0 if rng.random() < 0.34 else 128.0
    corners = np.sort(rng.uniform(0, reach, (count, 2, 2)), axis=1).reshape(count, 4)
    types = rng.integers(0, len(DEFECT_TYPES), (count, 1))
    return np.hstack([corners, types]).astype(np.float32)


def choices_on_path(guide: Guide, answer: Answer) -> list[bool]:
    """For each token of an answer, whether the guide leaves a choice where it stands."""
    state, choices = guide.start, []
    for token in answer.ids:
        choices.append(guide.is_choice(state))
        following = guide.walk([token], state)
        assert following is not None
        state = following
    return choices


def test_only_the_guides_choices_weigh_and_all_of_them_do(writer: AnswerWriter, guide: Guide) -> None:
    rng = np.random.default_rng(0)
    for count in [*range(MAX_DEFECTS), *range(MAX_DEFECTS)] * 12:
        answer = writer.answer(random_boxes(rng, count))
        assert [weight > 0 for weight in answer.weights] == choices_on_path(guide, answer)


def test_a_full_list_weighs_its_end_though_the_guide_forces_it(writer: AnswerWriter, guide: Guide) -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        answer = writer.answer(random_boxes(rng, MAX_DEFECTS))
        choices = choices_on_path(guide, answer)
        differing = [i for i, c in enumerate(choices) if c != (answer.weights[i] > 0)]
        assert all(answer.weights[i] == LIST_WEIGHT and not choices[i] for i in differing)
        assert len(differing) == 1 and differing[0] > len(answer.ids) - 8


def test_an_answer_is_the_canonical_text_of_its_largest_defects(writer: AnswerWriter, tokenizer: Any) -> None:
    rng = np.random.default_rng(2)
    boxes = random_boxes(rng, MAX_DEFECTS + 3)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    largest = boxes[np.argsort(-areas)[:MAX_DEFECTS]]
    text = answer_text([(DEFECT_TYPES[int(row[4])], row[:4].tolist()) for row in largest])
    answer = writer.answer(boxes)
    assert answer.ids == answer_ids(tokenizer, text)[:-1]
    assert len(answer.weights) == len(answer.ids)


def test_every_defect_has_one_type_to_choose(writer: AnswerWriter, tokenizer: Any) -> None:
    first = {encode(tokenizer, name)[0] for name in DEFECT_TYPES}
    assert len(first) == len(DEFECT_TYPES)  # no two types begin alike: one choice settles the type
    for count in (0, 1, 5):
        answer = writer.answer(random_boxes(np.random.default_rng(count), count))
        assert answer.weights.count(TYPE_WEIGHT) == count


def test_an_empty_tile_is_one_choice(writer: AnswerWriter, tokenizer: Any) -> None:
    answer = writer.answer(np.zeros((0, 5), np.float32))
    assert answer.ids == encode(tokenizer, "[]")
    assert answer.weights == [LIST_WEIGHT]


def boxes_of(*rows: tuple[float, float, float, float, int]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 5)


def box_px(cells: Cells, index: int) -> list[float]:
    """A cell's target back in tile pixels."""
    row, column = divmod(index, 4)
    left, up, right, down = cells.box[index]
    edges = (column + 0.5 - left, row + 0.5 - up, column + 0.5 + right, row + 0.5 + down)
    return [float(edge) * CELL_PX for edge in edges]


def test_the_cell_under_the_centre_answers_with_the_box() -> None:
    cells = cells_from_boxes(boxes_of((70, 36, 90, 60, 3)))  # centre (80, 48): the middle of cell 6
    assert np.flatnonzero(cells.presence).tolist() == [6]
    assert cells.type[6] == 3
    assert box_px(cells, 6) == pytest.approx([70, 36, 90, 60], abs=1e-3)
    assert (cells.known == 1).all()


def test_four_cells_answer_for_a_box_centred_where_they_meet() -> None:
    cells = cells_from_boxes(boxes_of((50, 54, 78, 74, 1)))  # centre (64, 64): the middle of the tile
    assert np.flatnonzero(cells.presence).tolist() == [5, 6, 9, 10]
    for index in (5, 6, 9, 10):
        assert cells.type[index] == 1
        assert box_px(cells, index) == pytest.approx([50, 54, 78, 74], abs=1e-3)


def test_a_cell_that_the_centre_nearly_reaches_is_undecided() -> None:
    for x, asked in ((89, [6, 7]), (87, [6]), (84, [6])):  # 23, 25 and 28 px from the middle of cell 7
        cells = cells_from_boxes(boxes_of((x - 10, 38, x + 10, 58, 0)))
        assert np.flatnonzero(cells.presence).tolist() == asked
        assert np.flatnonzero(cells.known == 0).tolist() == ([7] if x in (87, 84) else [])


def test_a_cell_between_two_defects_answers_for_the_nearer() -> None:
    near, far = (
        (72, 42, 86, 56, 1),
        (52, 20, 92, 60, 4),
    )  # centres (79, 49) and (72, 40); cell 6 is at (80, 48)
    for rows in ((near, far), (far, near)):
        cells = cells_from_boxes(boxes_of(*rows))
        assert cells.type[6] == 1 and cells.type[5] == 4
        assert box_px(cells, 6) == pytest.approx(near[:4], abs=1e-3)


def test_a_cell_with_a_defect_is_always_known() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        cells = cells_from_boxes(random_boxes(rng, 6))
        assert (cells.known[cells.presence > 0] == 1).all()
        inside = random_boxes(rng, 1)
        cells = cells_from_boxes(inside)
        x, y = (inside[0, :2] + inside[0, 2:4]) / 2
        assert cells.presence[int(y // CELL_PX) * 4 + int(x // CELL_PX)] == 1  # under every centre


def test_no_defects_are_sixteen_known_empty_cells() -> None:
    cells = cells_from_boxes(np.zeros((0, 5), np.float32))
    assert cells.presence.sum() == 0 and cells.known.sum() == 16
    assert cells.type.dtype == np.int64 and cells.box.shape == (16, 4)


def test_the_tokens_of_a_long_label_weigh_where_labels_part(tokenizer: Any) -> None:
    types = ("pit", "pitted", "rust")
    writer = AnswerWriter(tokenizer, types)
    pitted, rust = (writer.answer(boxes_of((10, 10, 30, 30, index))) for index in (1, 2))
    named = [pitted.ids[index] for index, weight in enumerate(pitted.weights) if weight == TYPE_WEIGHT]
    assert named == encode(tokenizer, "pitted")  # "pit" may end, or go on to "pitted": both are choices
    assert rust.weights.count(TYPE_WEIGHT) == 1
