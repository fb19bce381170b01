"""The device half of the guide, on a small automaton written by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from orinspect.runtime.errors import BundleError
from orinspect.runtime.infer.guide import (
    Guide,
    answer_from_text,
    bin_from_px,
    px_from_bin,
    text_from_ids,
)

# 0 -a-> 1 -b-> 2, there c or d; c -> 3 -e-> 4 (end), d -> 4
STATES = [{70: 1}, {30: 2}, {50: 3, 20: 4}, {90: 4}, {}]


def test_forced_tokens_are_one_run_up_to_the_choice() -> None:
    guide = Guide(STATES, terminal=4)
    assert guide.forced_run(guide.start) == ((70, 30), 2)
    assert guide.forced_run(2) == ((), 2)
    assert guide.forced_run(3) == ((90,), 4)
    assert guide.forced_run(4) == ((), 4)


def test_rows_index_the_sorted_kept_ids() -> None:
    guide = Guide(STATES, terminal=4)
    rows, following = guide.choices(2)
    assert guide.kept_ids.tolist() == [20, 30, 50, 70, 90]
    assert guide.kept_ids[rows].tolist() == guide.choice(2).token_ids.tolist() == [50, 20]
    assert following.tolist() == [3, 4]
    assert [guide.is_choice(state) for state in range(5)] == [False, False, True, False, False]


def test_walk_follows_the_automaton_or_says_no() -> None:
    guide = Guide(STATES, terminal=4)
    assert guide.walk([70, 30, 20]) == guide.terminal
    assert guide.walk([70, 30]) == 2
    assert guide.walk([70, 20]) is None


def test_json_gives_the_same_guide() -> None:
    guide = Guide(STATES, terminal=4)
    again = Guide.from_json(guide.to_json())
    assert again.states == guide.states
    assert again.terminal == guide.terminal


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        json.dumps({"terminal": 0, "states": []}),
        json.dumps({"terminal": 1, "states": [[[5, 7]], []]}),
        json.dumps({"terminal": 1, "states": [[[5, 1]], [], []]}),
        json.dumps({"terminal": 2, "states": [[[5, 1]], [[6, 0]], []]}),
        json.dumps({"terminal": 1, "states": [[[10**30, 1]], []]}),
    ],
)
def test_a_broken_guide_is_refused(text: str) -> None:
    with pytest.raises(BundleError, match=r"guide\.json"):
        Guide.from_json(text)


def test_a_bin_holds_its_own_centre_and_covers_the_tile() -> None:
    for number in range(100):
        assert bin_from_px(px_from_bin(number, "0-99", 128), "0-99", 128) == number
    for number in range(1001):
        assert bin_from_px(px_from_bin(number, "0-1000", 128), "0-1000", 128) == number
    assert (bin_from_px(-3, "0-99", 128), bin_from_px(128, "0-99", 128)) == (0, 99)
    assert (bin_from_px(-3, "0-1000", 128), bin_from_px(140, "0-1000", 128)) == (0, 1000)
    pixels = np.linspace(0, 127.999, 777)
    apart = [abs(px_from_bin(bin_from_px(x, "0-99", 128), "0-99", 128) - x) for x in pixels]
    assert max(apart) <= 0.64 + 1e-9


def test_text_comes_from_bytes_and_the_end_token_writes_none() -> None:
    vocabulary = {1: b"[", 2: b"\xc3", 3: b"\xa9", 9: b""}
    assert text_from_ids([1, 2, 3, 9], vocabulary) == "[é"


def test_an_answer_is_read_whole_or_not_at_all() -> None:
    text = '[{"bbox_2d":[1,2,3,4],"label":"open"},{"bbox_2d":[5,6,7,8],"label":"spur"}]'
    answer = answer_from_text(text)
    assert answer is not None
    assert [item["label"] for item in answer] == ["open", "spur"]
    assert answer_from_text("[]") == []
    for length in range(len(text)):
        assert answer_from_text(text[:length]) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[1]",
        '[{"bbox_2d":[1,2,3],"label":"open"}]',
        '[{"bbox_2d":[1,2,3,true],"label":"open"}]',
        '[{"bbox_2d":[1,2,3,4],"label":7}]',
        '[{"bbox_2d":[1,2,3,4]}]',
    ],
)
def test_json_of_another_form_is_no_answer(text: str) -> None:
    assert answer_from_text(text) is None
