"""recipe.toml: what is read, and the one sentence that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.runtime.errors import RecipeError
from orinspect.runtime.recipe import Recipe, load_recipe

REFERENCE = Path(__file__).parents[2] / "examples" / "reference" / "pcb-compare.toml"

SMALL = """
id = "board"
version = "1"
product = "board"
prompt = "List the defects."
[[defect]]
type = "open"
code = "E1"
severity = "critical"
"""


def recipe_file(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_recipe_has_the_six_pcb_types_in_their_order() -> None:
    recipe = load_recipe(REFERENCE)
    assert recipe.types == ("open", "short", "mousebite", "spur", "copper", "pin-hole")
    assert recipe.defect("open").severity == "critical"
    assert recipe.tiling.levels == (0.5, 1.0, 2.0)
    assert recipe.scale.mm_per_px is None


def test_defaults_fill_what_a_small_recipe_leaves_out(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, SMALL))
    assert recipe.coordinates == "0-99"
    assert recipe.tiling.tile_px == 128
    assert recipe.defects[0].code == "E1"


def test_json_gives_the_same_recipe_and_the_same_hash() -> None:
    recipe = load_recipe(REFERENCE)
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.sha256 == recipe.sha256


@pytest.mark.parametrize(
    ("keys", "pictures"),
    [
        ("", 1),
        ('compare = "temporal"', 1),
        ('compare = "two_images"', 2),
        ('mode = "single"', 1),
        ('mode = "clip"', 2),
        ('mode = "clip"\n[clip]\nframes = 5\nfps = 1', 3),
    ],
)
def test_a_recipe_knows_how_many_pictures_a_tile_shows(tmp_path: Path, keys: str, pictures: int) -> None:
    recipe = load_recipe(recipe_file(tmp_path, SMALL.replace("[[defect]]", f"{keys}\n[[defect]]")))
    assert recipe.pictures == pictures
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert (recipe.compare is None) == ("compare" not in keys)


def test_a_whole_number_may_stand_for_a_float(tmp_path: Path) -> None:
    recipe = load_recipe(
        recipe_file(tmp_path, SMALL.replace("[[defect]]", "[thresholds]\npresence = 1\n[[defect]]"))
    )
    assert recipe.thresholds.presence == 1.0
    assert isinstance(recipe.thresholds.presence, float)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('product = "board"', 'product = "board"\ncolour = 3', "unknown key 'colour'"),
        ("[[defect]]", "[tiling]\ntile = 1\n[[defect]]", "[tiling]: unknown key 'tile'"),
        ("[[defect]]", "[thresholds]\ncandiate = 0.1\n[[defect]]", "[thresholds]: unknown key 'candiate'"),
        ('code = "E1"', 'code = "E1"\nsize = 2', "[defect]: unknown key 'size'"),
        ("[[defect]]", "tiling = 3\n[[defect]]", "tiling must be a table, found a number"),
        ('product = "board"', "product = 7", "product must be a text, found a number 7"),
        ('version = "1"', "", "'version' is missing"),
        ('code = "E1"', "", "[defect]: 'code' is missing"),
        (
            "[[defect]]",
            "max_defects_per_tile = true\n[[defect]]",
            "max_defects_per_tile must be a whole number",
        ),
        ("[[defect]]", "token_budget = 2.5\n[[defect]]", "token_budget must be a whole number"),
        ("[[defect]]", "token_budget = 0\n[[defect]]", "token_budget is 0; it must be at least 1"),
        (
            "[[defect]]",
            'coordinates = "0-9"\n[[defect]]',
            "coordinates is '0-9'; expected '0-99' or '0-1000'",
        ),
        ("[[defect]]", "[tiling]\nlevels = 2\n[[defect]]", "tiling.levels must be a list"),
        ("[[defect]]", '[tiling]\nlevels = [1, "a"]\n[[defect]]', "tiling.levels must be a number"),
        ("[[defect]]", "[tiling]\nlevels = []\n[[defect]]", "tiling.levels holds 0"),
        ("[[defect]]", "[tiling]\nstride_px = 200\n[[defect]]", "tiles would leave gaps"),
        ("[[defect]]", "[thresholds]\npresence = 4\n[[defect]]", "thresholds.presence is 4.0"),
        ("[[defect]]", "[accuracy]\nmax_f_loss = 5\n[[defect]]", "accuracy.max_f_loss is 5.0"),
        ("[[defect]]", "[accuracy]\nmin_f = 0.9\n[[defect]]", "[accuracy]: unknown key 'min_f'"),
        ("[[defect]]", "[scale]\nmm_per_px = -1\n[[defect]]", "scale.mm_per_px is -1.0"),
        ('severity = "critical"', 'severity = "bad"', "severity is 'bad'"),
        ('type = "open"', 'type = ""', "must be a word"),
        ('type = "open"', "type = 'o\"pen'", "must be a word"),
        ('id = "board"', 'id = "../board"', "it names files"),
        ('id = "board"', "id = ", "not valid TOML"),
        ("[[defect]]", "free_text = true\n[[defect]]", "free_text is true"),
        ("[[defect]]", 'mode = "video"\n[[defect]]', "mode is 'video'; expected 'compare' or 'single'"),
        ("[[defect]]", 'compare = "both"\n[[defect]]', "compare is 'both'; expected 'temporal' or"),
        (
            "[[defect]]",
            'mode = "single"\ncompare = "temporal"\n[[defect]]',
            "compare is 'temporal', but mode is 'single'",
        ),
        ("[[defect]]", "[clip]\nframes = 1\n[[defect]]", "clip.frames is 1; it must be at least 2"),
        ("[[defect]]", "[clip]\nfps = 0\n[[defect]]", "clip.fps is 0.0; it must be more than 0"),
        ("[[defect]]", "[clip]\nseconds = 2\n[[defect]]", "[clip]: unknown key 'seconds'"),
        ("[[defect]]", "[tiling]\nattention_mb = 0\n[[defect]]", "tiling.attention_mb is 0"),
    ],
)
def test_a_mistake_is_one_sentence_that_names_it(tmp_path: Path, before: str, after: str, named: str) -> None:
    assert before in SMALL
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path, SMALL.replace(before, after)))
    message = str(caught.value)
    assert named in message
    assert "recipe.toml" in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_a_type_given_twice_is_named(tmp_path: Path) -> None:
    twice = SMALL + '[[defect]]\ntype = "open"\ncode = "E2"\n'
    with pytest.raises(RecipeError, match="'open' is given twice"):
        load_recipe(recipe_file(tmp_path, twice))


@pytest.mark.parametrize("text", ["", "defect = []\n"])
def test_a_recipe_without_types_is_refused(tmp_path: Path, text: str) -> None:
    head = SMALL[: SMALL.index("[[defect]]")]
    with pytest.raises(RecipeError, match=r"\[\[defect\]\]"):
        load_recipe(recipe_file(tmp_path, head + text))


def test_a_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.toml"):
        load_recipe(tmp_path / "nothing.toml")


def test_an_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="mousebite"):
        load_recipe(REFERENCE).defect("scratch")
