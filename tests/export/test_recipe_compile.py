"""The recipe compiler, against the reference tokenizer and against tokenizers that must be refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

tokenizers = pytest.importorskip("tokenizers")

from orinspect.export.prompt import (  # noqa: E402
    answer_ids,
    answer_text,
    answer_text_from_bins,
    between_ids,
    prompt_ids,
    tokenizer_from_checkpoint,
)
from orinspect.export.recipe_compile import compile_guide, longest_answer, prove_guide, vocabulary_from_guide  # noqa: E402
from orinspect.runtime.errors import CheckpointError, RecipeError  # noqa: E402
from orinspect.runtime.infer.guide import Guide, answer_from_text, text_from_ids  # noqa: E402
from orinspect.runtime.recipe import DefectType, Recipe, load_recipe  # noqa: E402

REFERENCE = Path(__file__).parents[2] / "examples" / "reference"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_from_checkpoint(REFERENCE / "tokenizer")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(REFERENCE / "pcb-compare.toml")


@pytest.fixture(scope="module")
def guide(tokenizer: Any, recipe: Recipe) -> Guide:
    return compile_guide(tokenizer, recipe)


def labelled(recipe: Recipe, *labels: str) -> Recipe:
    return dataclasses.replace(recipe, defects=tuple(DefectType(label, label) for label in labels))


def changed(tokenizer: Any, change: Any) -> Any:
    table = json.loads(tokenizer.to_str())
    change(table)
    return tokenizers.Tokenizer.from_str(json.dumps(table))


def test_the_answer_is_minified_json_in_reading_order() -> None:
    text = answer_text([("spur", (64, 70, 90, 95)), ("open", (100, 0, 128, 12.7)), ("short", (3, 0, 20, 20))])
    assert text == (
        '[{"bbox_2d":[2,0,15,15],"label":"short"},{"bbox_2d":[78,0,99,9],"label":"open"},'
        '{"bbox_2d":[50,54,70,74],"label":"spur"}]'
    )
    assert answer_text([]) == "[]"
    assert answer_text([("open", (0, 1, 64, 128))], "0-1000") == '[{"bbox_2d":[0,8,500,1000],"label":"open"}]'


def test_the_prompt_surrounds_the_image_tokens(tokenizer: Any, recipe: Recipe) -> None:
    prefix, suffix = prompt_ids(tokenizer, recipe)
    decoded = tokenizer.decode(prefix, skip_special_tokens=False)
    assert decoded == f"<|im_start|>user\n{recipe.prompt}<|vision_start|>"
    assert (
        tokenizer.decode(suffix, skip_special_tokens=False)
        == "<|vision_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert between_ids(tokenizer, recipe) == ()
    with pytest.raises(RecipeError, match="vision_start"):
        prompt_ids(tokenizer, dataclasses.replace(recipe, prompt="see <|vision_start|>"))


def test_true_answers_are_paths_and_only_choices_are_left_to_the_model(
    tokenizer: Any, recipe: Recipe, guide: Guide
) -> None:
    ids = answer_ids(tokenizer, answer_text([("pin-hole", (7, 0, 30, 128))]))
    assert guide.walk(ids) == guide.terminal
    state, chosen = guide.start, []
    run, state = guide.forced_run(state)
    position = len(run)
    while state != guide.terminal:
        assert guide.is_choice(state)
        chosen.append(tokenizer.id_to_token(ids[position]))
        state = guide.states[state][ids[position]]
        run, state = guide.forced_run(state)
        assert tuple(ids[position + 1 : position + 1 + len(run)]) == run
        position += 1 + len(run)
    # 5 (then a comma: it could go on), 0 (closes itself), 2 3, 9 9, the label, the end
    assert chosen == ['[{"', "5", ",", "0", "2", "3", "9", "9", "pin", '"}]']
    assert recipe.types[5] == "pin-hole"


@pytest.mark.parametrize("coordinates", ["0-99", "0-1000"])
def test_the_automaton_proves_itself_both_ways(tokenizer: Any, recipe: Recipe, coordinates: Any) -> None:
    other = dataclasses.replace(recipe, coordinates=coordinates)
    guide = compile_guide(tokenizer, other, proofs=500, seed=7)
    prove_guide(guide, tokenizer, other, proofs=2000, seed=8)
    most = answer_text_from_bins([("pin-hole", [99 if coordinates == "0-99" else 1000] * 4)] * 8)
    assert longest_answer(guide) == len(answer_ids(tokenizer, most)) <= recipe.token_budget


@pytest.mark.parametrize("row", [[100, 1, 2, 3], [1, 2, 3], [1, 2, 3, 4, 5]])
def test_what_the_schema_forbids_has_no_path(tokenizer: Any, guide: Guide, row: list[int]) -> None:
    assert guide.walk(answer_ids(tokenizer, answer_text_from_bins([("open", row)]))) != guide.terminal


def test_leading_zeros_foreign_labels_and_too_many_defects_have_no_path(tokenizer: Any, guide: Guide) -> None:
    box = [1, 2, 3, 4]
    assert guide.walk(answer_ids(tokenizer, answer_text_from_bins([("open", box)] * 8))) == guide.terminal
    for text in (
        '[{"bbox_2d":[07,2,3,4],"label":"open"}]',
        answer_text_from_bins([("scratch", box)]),
        answer_text_from_bins([("open", box)] * 9),
    ):
        assert guide.walk(answer_ids(tokenizer, text)) is None


def test_labels_may_share_tokens_and_begin_each_other(tokenizer: Any, recipe: Recipe) -> None:
    labels = ("pin", "pin-hole", "pin-hole-edge", "solder bridge", "lötbrücke", "孔", "type 2", "2")
    other = labelled(recipe, *labels)
    guide = compile_guide(tokenizer, other, proofs=800)
    vocabulary = vocabulary_from_guide(tokenizer, guide)
    random = Random(1)
    seen: set[str] = set()
    for _ in range(300):
        ids, state = [], guide.start
        while state != guide.terminal:
            token = random.choice(list(guide.states[state]))
            ids.append(token)
            state = guide.states[state][token]
        answer = answer_from_text(text_from_ids(ids, vocabulary))
        assert answer is not None and len(answer) <= other.max_defects_per_tile
        seen.update(item["label"] for item in answer)
        assert all(0 <= number <= 99 for item in answer for number in item["bbox_2d"])
    assert seen == set(labels)


def test_the_vocabulary_writes_what_the_tokenizer_writes(tokenizer: Any, guide: Guide) -> None:
    vocabulary = vocabulary_from_guide(tokenizer, guide)
    text = answer_text([("mousebite", (1, 2, 30, 40)), ("copper", (50, 50, 99, 99))])
    assert text_from_ids(answer_ids(tokenizer, text), vocabulary) == text
    assert set(vocabulary) == set(guide.kept_ids.tolist())


def test_a_tokenizer_that_merges_digits_is_refused(tokenizer: Any, recipe: Recipe) -> None:
    def merge_digits(table: dict[str, Any]) -> None:
        table["pre_tokenizer"] = {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        }
        table["model"]["vocab"]["99"] = len(table["model"]["vocab"]) + 100
        table["model"]["merges"].append(["9", "9"])

    with pytest.raises(RecipeError, match=r'cannot write .*"bbox_2d"'):
        compile_guide(changed(tokenizer, merge_digits), recipe)


def test_a_label_that_the_normalizer_changes_is_refused_by_its_text(tokenizer: Any, recipe: Recipe) -> None:
    def lower(table: dict[str, Any]) -> None:
        table["normalizer"] = {"type": "Lowercase"}

    with pytest.raises(RecipeError, match=r'cannot write .*"Open"'):
        compile_guide(changed(tokenizer, lower), labelled(recipe, "Open", "short"))


def test_a_folder_without_a_usable_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is missing"):
        tokenizer_from_checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not a tokenizer"):
        tokenizer_from_checkpoint(tmp_path)
