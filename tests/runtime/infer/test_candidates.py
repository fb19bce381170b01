"""Both detectors to boxes: votes small enough to check by hand, answers whose tokens can be read.

The dense head has a grid of 4 x 4 tokens of 32 px.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from orinspect.runtime.errors import EngineError
from orinspect.runtime.infer.candidates import (
    Candidate,
    Words,
    clipped,
    dense_candidates,
    is_cut,
    item_probabilities,
    overlap,
    thinned,
    words_from_answers,
)
from orinspect.runtime.infer.decode import Answer, Decision
from orinspect.runtime.infer.engines.engine import FloatArray
from orinspect.runtime.infer.pictures.tiles import Box, Tile

TYPES = 3
FINE = Tile(1, 1.0, 64, 128, (96, 160, 160, 224))
COARSE = Tile(2, 2.0, 0, 0, (0, 0, 96, 96))
ASIDE = Tile(2, 2.0, 64, 0, (96, 0, 160, 96))
NAMES = ("open", "short", "pin-hole")
END = "<end>"


def silence(tiles: int) -> dict[str, FloatArray]:
    return {
        "presence": np.full((tiles, 16), -9.0, np.float32),
        "type": np.zeros((tiles, 16, TYPES), np.float32),
        "box": np.full((tiles, 16, 4), 0.5, np.float32),
    }


def read_votes(
    tiles: list[Tile], outputs: dict[str, FloatArray], columns: tuple[int, ...] = (0, 1, 2)
) -> list[Candidate]:
    return dense_candidates(
        tiles,
        outputs,
        columns=columns,
        tile_px=128,
        cell_px=32,
        limit=0.05,
        picture_wh=(640, 640),
        nms_iou=0.3,
    )


def candidate(box: Box, confidence: float, *, cut: bool = False, tile: int = 0) -> Candidate:
    return Candidate(box, tile, confidence, (confidence, 0.0, 0.0), cut)


def test_a_vote_becomes_a_box_around_its_cell_in_picture_pixels() -> None:
    outputs = silence(2)
    outputs["presence"][0, 6] = 2.0  # row 1, column 2: centre (80, 48) of the tile
    outputs["type"][0, 6] = [0.0, 3.0, 0.0]
    outputs["box"][0, 6] = [0.5, 0.25, 1.0, 0.125]
    outputs["presence"][1, 0] = 0.0
    found = read_votes([FINE, COARSE], outputs)
    assert [one.tile for one in found] == [0, 1]
    assert list(found[0].box_xyxy) == [64 + 80 - 16, 128 + 48 - 8, 64 + 80 + 32, 128 + 48 + 4]
    assert found[0].presence == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert found[0].type_index == 1
    assert found[0].confidence == pytest.approx(found[0].presence * np.exp(3) / (np.exp(3) + 2))
    assert list(found[1].box_xyxy) == [
        0,
        0,
        64,
        64,
    ]  # half scale: 16 +- 16 of the tile is 0..64 of the picture
    assert found[1].presence == 0.5


def test_the_recipes_types_are_columns_of_the_head() -> None:
    outputs = silence(1)
    outputs["presence"][0, 3] = 5.0
    outputs["type"][0, 3] = [0.0, 0.0, 4.0]
    (found,) = read_votes([FINE], outputs, columns=(2, 0))
    assert found.type_index == 0
    assert len(found.probabilities) == 2


def test_votes_of_one_tile_for_one_defect_are_one_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, [5, 6]] = [1.0, 3.0]  # neighbours at (48, 48) and (80, 48)
    outputs["box"][0, 5] = [0.0, 0.5, 1.0, 0.5]  # both draw x 48..80
    outputs["box"][0, 6] = [1.0, 0.5, 0.0, 0.5]
    (found,) = read_votes([FINE], outputs)
    assert found.presence == pytest.approx(1 / (1 + np.exp(-3.0)))


def test_an_empty_or_inverted_vote_is_no_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, [0, 1, 2]] = 4.0
    outputs["box"][0, 0] = [0.5, 0.5, -0.5, 0.5]
    outputs["box"][0, 1] = [-1.0, 0.5, 0.5, 0.5]
    (found,) = read_votes([FINE], outputs)
    assert found.box_xyxy == (64 + 64, 128, 64 + 96, 128 + 32)


def test_a_vote_below_the_limit_is_no_candidate() -> None:
    outputs = silence(1)
    outputs["presence"][0, 0] = np.log(0.049 / 0.951)
    outputs["presence"][0, 15] = np.log(0.051 / 0.949)
    assert len(read_votes([FINE], outputs)) == 1


@pytest.mark.parametrize("name", ["presence", "type", "box"])
def test_numbers_that_are_not_finite_are_an_engine_error(name: str) -> None:
    outputs = silence(1)
    outputs[name].flat[3] = np.nan
    with pytest.raises(EngineError, match=f"dense head's {name}"):
        read_votes([FINE], outputs)


def test_boxes_end_at_the_picture() -> None:
    assert clipped((-5.0, 630.0, 20.0, 650.0), (640, 640)) == (0.0, 630.0, 20.0, 640.0)
    corner = Tile(1, 1.0, 512, 512, (544, 544, 640, 640))
    outputs = silence(1)
    outputs["presence"][0, 15] = 4.0
    outputs["box"][0, 15] = 2.0
    (found,) = read_votes([corner], outputs)
    assert found.box_xyxy == (560.0, 560.0, 640.0, 640.0)


@pytest.mark.parametrize(
    ("box", "tile", "cut"),
    [
        ((1.0, 50.0, 40.0, 90.0), FINE, True),  # left edge of the tile, the picture goes on
        ((50.0, 50.0, 128.0, 90.0), FINE, True),
        ((5.0, 5.0, 123.0, 123.0), FINE, False),
        ((0.0, 0.0, 40.0, 40.0), COARSE, False),  # the picture's own corner
        ((90.0, 90.0, 128.0, 110.0), COARSE, True),
        ((90.0, 90.0, 128.0, 128.0), Tile(1, 1.0, 512, 512, (544, 544, 640, 640)), False),
    ],
)
def test_a_box_is_cut_where_the_tile_ends_and_the_picture_does_not(box: Box, tile: Tile, cut: bool) -> None:
    assert is_cut(box, tile, 128, (640, 640)) is cut


def test_overlap_is_over_the_union_and_over_the_first() -> None:
    assert overlap((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx((1 / 3, 1 / 2))
    assert overlap((0, 0, 10, 10), (10, 0, 20, 10)) == (0.0, 0.0)
    assert overlap((2, 2, 4, 4), (0, 0, 10, 10)) == pytest.approx((0.04, 1.0))


def test_thinning_keeps_the_best_and_neighbours() -> None:
    near, best, far = (
        candidate((0, 0, 30, 30), 0.5),
        candidate((3, 3, 33, 33), 0.9),
        candidate((25, 0, 55, 30), 0.4),
    )
    assert thinned([near, best, far], 0.3) == [best, far]


def test_a_cut_box_gives_way_to_a_whole_one_however_sure_it_is() -> None:
    whole, cut = candidate((0, 0, 100, 40), 0.6), candidate((0, 0, 30, 40), 0.95, cut=True)
    (kept,) = thinned([cut, whole], 0.3)
    assert kept.box_xyxy == whole.box_xyxy and not kept.is_cut
    assert kept.presence == 0.95  # the surer view lends its probability, so that no certain defect is lost
    assert thinned([cut], 0.3) == [cut]


def test_a_fine_box_comes_before_a_coarse_one_that_holds_it_or_lies_in_it() -> None:
    fine = candidate((0, 0, 60, 60), 0.5)
    coarse = dataclasses.replace(candidate((4, 4, 56, 20), 0.9), level=2)
    (kept,) = thinned([coarse, fine], 0.3)
    assert (kept.box_xyxy, kept.level, kept.presence) == (fine.box_xyxy, fine.level, 0.9)
    apart = dataclasses.replace(coarse, box_xyxy=(50, 50, 130, 90))
    assert thinned([apart, fine], 0.3) == [apart, fine]


def answer(
    *tokens: str, sure: dict[int, float] | None = None, cut: bool = False
) -> tuple[Answer, dict[int, bytes]]:
    """An answer of these tokens; `sure`: probability of the tokens that were chosen."""
    ids = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    vocabulary = {number: b"" if token == END else token.encode() for token, number in ids.items()}
    decisions = tuple(Decision(index, probability) for index, probability in sorted((sure or {}).items()))
    return Answer(tuple(ids[token] for token in tokens), decisions, len(decisions), cut), vocabulary


def tokens_of(box: str, label: list[str], last: str) -> list[str]:
    numbers = [part for number in box.split(",") for part in [*number, ","]][:-1]
    return [*numbers, '],"', "label", '":"', *label, last]


def read_answer(
    given: Answer, vocabulary: dict[int, bytes], tile: Tile = FINE, coordinates: str = "0-99"
) -> Words:
    return words_from_answers(
        [(0, given)],
        [tile],
        vocabulary,
        NAMES,
        coordinates=coordinates,
        tile_px=128,
        picture_wh=(320, 320),
        token_budget=256,
    )


def one_item(box: str, label: str = "open") -> tuple[Answer, dict[int, bytes]]:
    return answer('[{"bbox_2d":[', *tokens_of(box, [label], '"}]'), END)


def test_numbers_mean_the_middle_of_their_bin() -> None:
    words = read_answer(*one_item("10,0,49,25"))
    (found,) = words.candidates
    assert found.box_xyxy == pytest.approx((64 + 13.44, 128 + 0.64, 64 + 63.36, 128 + 32.64))
    assert NAMES[found.type_index] == "open"
    assert not words.dropped
    assert not words.failures


def test_a_coarse_tile_and_thousandths() -> None:
    (found,) = read_answer(*one_item("100,0,500,250"), tile=ASIDE, coordinates="0-1000").candidates
    assert found.box_xyxy == pytest.approx(((64 + 12.8) * 2, 0, (64 + 64) * 2, 64))


def test_boxes_of_an_answer_end_at_the_picture() -> None:
    (found,) = read_answer(
        *one_item("50,50,99,99"), tile=Tile(1, 1.0, 240, 240, (240, 240, 320, 320))
    ).candidates
    assert found.box_xyxy[2:] == (320.0, 320.0)


def test_an_empty_answer_is_a_clean_tile_and_no_failure() -> None:
    assert read_answer(*answer("[]", END, sure={0: 0.9})) == Words((), (), ())


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("40,10,30,20", "inverted"),
        ("40,20,50,10", "inverted"),
        ("40,10,40,20", "empty"),
        ("40,10,50,10", "empty"),
    ],
)
def test_a_box_without_area_is_dropped_with_its_reason(box: str, reason: str) -> None:
    words = read_answer(*one_item(box, "short"))
    assert not words.candidates
    assert not words.failures
    (dropped,) = words.dropped
    assert dropped.reason.startswith(reason)
    assert dropped.type == "short"


def test_a_box_outside_the_picture_is_dropped() -> None:
    words = read_answer(*one_item("80,10,90,20"), tile=Tile(1, 1.0, 240, 0, (240, 0, 320, 320)))
    assert [dropped.reason for dropped in words.dropped] == ["box outside the picture"]


def test_a_cut_answer_fails_and_names_tile_and_budget() -> None:
    given, vocabulary = answer('[{"bbox_2d":[', "1", "2", cut=True)
    words = read_answer(given, vocabulary)
    assert not words.candidates
    assert words.failures == (
        "tile at (64, 128) of level 1: the answer was cut after 3 tokens, the recipe's token_budget is 256",
    )


def test_a_cut_answer_that_happens_to_parse_fails_too() -> None:
    given, vocabulary = answer("[]", cut=True)
    assert read_answer(given, vocabulary).failures


@pytest.mark.parametrize("text", ['[{"bbox_2d":[1,2,3],"label":"open"}]', "nonsense", '{"a":1}', ""])
def test_an_answer_that_does_not_parse_fails(text: str) -> None:
    words = read_answer(*answer(text, END))
    assert not words.candidates
    assert "not in the recipe's schema" in words.failures[0]


def test_a_label_that_the_recipe_does_not_know_fails() -> None:
    assert read_answer(*one_item("1,2,30,40", "rust")).failures


def test_confidence_is_starting_the_item_times_its_label() -> None:
    """Numbers do not count; the choice that ends item one by starting item two counts for item two."""
    first = tokens_of("10,10,40,40", ["pin", "-", "hole"], '"},{"')
    second = tokens_of("50,50,90,90", ["short"], '"}]')
    tokens = ['[{"', "bbox_2d", '":[', *first, "bbox_2d", '":[', *second, END]
    at = {token: index for index, token in enumerate(tokens)}
    sure = {
        0: 0.9,  # there is a first item
        3: 0.5,  # its first digit
        at["pin"]: 0.8,
        at["hole"]: 0.75,
        at['"},{"']: 0.7,  # there is a second one
        at["short"]: 0.6,
        at['"}]']: 0.99,  # and no third
    }
    given, vocabulary = answer(*tokens, sure=sure)
    text = "".join(tokens[:-1])
    assert item_probabilities(given, text, vocabulary) == [
        pytest.approx((0.9, 0.8 * 0.75)),
        pytest.approx((0.7, 0.6)),
    ]
    candidates = read_answer(given, vocabulary).candidates
    assert [found.confidence for found in candidates] == pytest.approx([0.9 * 0.6, 0.42])
    assert [found.presence for found in candidates] == pytest.approx([0.9, 0.7])


def test_a_label_of_many_bytes_is_measured_in_bytes() -> None:
    tokens = [
        '[{"bbox_2d":[',
        *tokens_of("1,1,9,9", ["Löcher", "ö"], '"},{"bbox_2d":['),
        *tokens_of("1,1,9,9", ["x"], '"}]'),
    ]
    chosen = {tokens.index("ö"): 0.5, tokens.index('"},{"bbox_2d":['): 0.25, tokens.index("x"): 0.125}
    given, vocabulary = answer(*tokens, END, sure=chosen)
    assert item_probabilities(given, "".join(tokens), vocabulary) == [(1.0, 0.5), (0.25, 0.125)]


def test_a_choice_between_quote_and_more_of_the_label_counts_for_the_next_item_only() -> None:
    """`"}` behind the label is a choice of the list, not of the name."""
    tokens = ['[{"bbox_2d":[', *tokens_of("1,1,9,9", ["open"], '"}]')]
    given, vocabulary = answer(*tokens, END, sure={len(tokens) - 1: 0.1})
    assert item_probabilities(given, "".join(tokens), vocabulary) == [(1.0, 1.0)]
