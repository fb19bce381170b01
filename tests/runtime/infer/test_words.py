"""Answers to boxes and confidences, with a vocabulary whose tokens can be read."""

from __future__ import annotations

import pytest

from orinspect.runtime.infer.decode import Answer, Decision
from orinspect.runtime.infer.tiles import Tile
from orinspect.runtime.infer.words import Words, item_probabilities, words_from_answers

TYPES = ("open", "short", "pin-hole")
TILE = Tile(1, 1.0, 64, 128, (96, 160, 160, 224))
COARSE = Tile(2, 2.0, 64, 0, (96, 0, 160, 96))
END = "<end>"


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


def read(given: Answer, vocabulary: dict[int, bytes], tile: Tile = TILE, coordinates: str = "0-99") -> Words:
    return words_from_answers(
        [(0, given)],
        [tile],
        vocabulary,
        TYPES,
        coordinates=coordinates,
        tile_px=128,
        picture_wh=(320, 320),
        token_budget=256,
    )


def one(box: str, label: str = "open") -> tuple[Answer, dict[int, bytes]]:
    return answer('[{"bbox_2d":[', *tokens_of(box, [label], '"}]'), END)


def test_numbers_mean_the_middle_of_their_bin() -> None:
    words = read(*one("10,0,49,25"))
    (found,) = words.candidates
    assert found.box_xyxy == pytest.approx((64 + 13.44, 128 + 0.64, 64 + 63.36, 128 + 32.64))
    assert TYPES[found.type_index] == "open"
    assert not words.dropped
    assert not words.failures


def test_a_coarse_tile_and_thousandths() -> None:
    (found,) = read(*one("100,0,500,250"), tile=COARSE, coordinates="0-1000").candidates
    assert found.box_xyxy == pytest.approx(((64 + 12.8) * 2, 0, (64 + 64) * 2, 64))


def test_boxes_end_at_the_picture() -> None:
    (found,) = read(*one("50,50,99,99"), tile=Tile(1, 1.0, 240, 240, (240, 240, 320, 320))).candidates
    assert found.box_xyxy[2:] == (320.0, 320.0)


def test_an_empty_answer_is_a_clean_tile_and_no_failure() -> None:
    assert read(*answer("[]", END, sure={0: 0.9})) == Words((), (), ())


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
    words = read(*one(box, "short"))
    assert not words.candidates
    assert not words.failures
    (dropped,) = words.dropped
    assert dropped.reason.startswith(reason)
    assert dropped.type == "short"


def test_a_box_outside_the_picture_is_dropped() -> None:
    words = read(*one("80,10,90,20"), tile=Tile(1, 1.0, 240, 0, (240, 0, 320, 320)))
    assert [dropped.reason for dropped in words.dropped] == ["box outside the picture"]


def test_a_cut_answer_fails_and_names_tile_and_budget() -> None:
    given, vocabulary = answer('[{"bbox_2d":[', "1", "2", cut=True)
    words = read(given, vocabulary)
    assert not words.candidates
    assert words.failures == (
        "tile at (64, 128) of level 1: the answer was cut after 3 tokens, the recipe's token_budget is 256",
    )


def test_a_cut_answer_that_happens_to_parse_fails_too() -> None:
    given, vocabulary = answer("[]", cut=True)
    assert read(given, vocabulary).failures


@pytest.mark.parametrize("text", ['[{"bbox_2d":[1,2,3],"label":"open"}]', "nonsense", '{"a":1}', ""])
def test_an_answer_that_does_not_parse_fails(text: str) -> None:
    words = read(*answer(text, END))
    assert not words.candidates
    assert "not in the recipe's schema" in words.failures[0]


def test_a_label_that_the_recipe_does_not_know_fails() -> None:
    assert read(*one("1,2,30,40", "rust")).failures


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
    candidates = read(given, vocabulary).candidates
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
