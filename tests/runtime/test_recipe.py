"""recipe.toml: what is read, and the one sentence that each mistake gets."""

from __future__ import annotations

import dataclasses
import json
import re
from decimal import Decimal
from pathlib import Path

import pytest

from orinspect.runtime.errors import RecipeError
from orinspect.runtime.limits import (
    ComplianceRule,
    DefectType,
    Grade,
    Measuring,
    QualityLimits,
    Review,
    SampleRule,
)
from orinspect.runtime.recipe import (
    Accuracy,
    CameraSettings,
    Clip,
    Gate,
    Recipe,
    Registration,
    Scale,
    Thresholds,
    Tiling,
    load_recipe,
)

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


def test_the_shipped_recipe_explains_every_key() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    sections = (Recipe, *(Tiling, Clip, Registration, Gate, CameraSettings, Scale, Thresholds, Accuracy))
    judging = (DefectType, Grade, Measuring, ComplianceRule, Review, SampleRule, QualityLimits)
    names = [
        entry.metadata.get("table", entry.name)
        for section in (*sections, *judging)
        for entry in dataclasses.fields(section)
    ]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


def test_what_the_shipped_recipe_gives_as_examples_can_be_read(tmp_path: Path) -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    given = re.sub(r"^# (\[compliance\]|\w+ = )", r"\1", text, flags=re.MULTILINE)
    given = re.sub(r"^#   (\w+ = .*)$", "", given, flags=re.MULTILINE)
    graded = "\n".join(re.findall(r"^#   (\w+ = .*)$", text, flags=re.MULTILINE))
    recipe = load_recipe(recipe_file(tmp_path, given.replace('severity = "major"', graded, 1)))
    assert recipe.compliance is not None and recipe.review.sample is not None
    assert recipe.quality.bands.keys() == {"blur_added_px"}
    assert [grade.severity for grade in recipe.defect("mousebite").grades] == ["ignore", "minor", "major"]


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
        ("[[defect]]", "[scale]\nmm_per_px = inf\n[[defect]]", "scale.mm_per_px is inf"),
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
        ("[[defect]]", "[scale]\nstandard_uncertainty_mm_per_px = -1\n[[defect]]", "must be at least 0"),
        ("[[defect]]", "[measure]\nmax_defects = 0\n[[defect]]", "measure.max_defects is 0"),
        ("[[defect]]", "[review]\nminor = 'ignore'\n[[defect]]", "review.minor is 'ignore'; expected 'pass'"),
        ("[[defect]]", "[review.sample]\nlot_size = 1\n[[defect]]", "review.sample.lot_size is 1"),
        (
            "[[defect]]",
            "[review.sample]\nlot_size = 9\nlevel = 'IV'\n[[defect]]",
            "review.sample.level is 'IV'",
        ),
        ("[[defect]]", "[review]\nsample = 5\n[[defect]]", "review.sample must be a table, found a number"),
        ("[[defect]]", "[quality.blur_px]\nmax = 'two'\n[[defect]]", "quality.blur_px.max must be a number"),
        ("[[defect]]", "[quality]\nblur = 2\n[[defect]]", "[quality]: unknown key 'blur'"),
        ("[[defect]]", "[quality.contrast]\nmin = 9\nmax = 3\n[[defect]]", "quality.contrast is 9 to 3"),
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


GRADES = 'grades = [{below = 0.1, severity = "ignore"}, {severity = "major"}]'


def test_grades_and_sections_of_judging_are_read_and_survive_json(tmp_path: Path) -> None:
    keys = (
        f'measure = "length"\n{GRADES}\n[compliance]\nstandard = "ISO 2768-1"\nclass = "m"\nnominal_mm = 30\n'
    )
    keys += "[review]\nminor = 'review'\nsample = {lot_size = 500}\n[quality.blur_px]\nmax = 2\n"
    recipe = load_recipe(recipe_file(tmp_path, SMALL + keys))
    (entry,) = recipe.defects
    assert [(step.below, step.severity) for step in entry.grades] == [(0.1, "ignore"), (None, "major")]
    assert recipe.compliance is not None
    assert (recipe.compliance.grade, recipe.compliance.rule) == ("m", "ISO 14253-1")
    assert recipe.review.sample is not None
    assert recipe.review.sample.level == "II"
    assert recipe.quality.bands["blur_px"].max == 2.0
    assert Recipe.from_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (f'id = {"[" * 2000}', "recursion|nested"),  # tomllib's word, tomli's word
        ("[scale]\nmm_per_px = inf", "finite"),
        (f"[scale]\nmm_per_px = 1{'0' * 400}", "finite"),
    ],
)
def test_what_python_cannot_follow_or_hold_is_one_sentence(tmp_path: Path, change: str, named: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(change, encoding="utf-8")
    if "id =" not in change:
        path.write_text(f'id = "a"\nversion = "1"\nproduct = "p"\nprompt = "p"\n{change}', encoding="utf-8")
        path.write_text(path.read_text() + '\n[[defect]]\ntype = "t"\ncode = "c"\n', encoding="utf-8")
    with pytest.raises(RecipeError, match=named):
        load_recipe(path)


def test_a_recipe_of_an_older_bundle_still_loads() -> None:
    """Its JSON knows none of the sections by which a part is judged; their defaults decide as before."""
    table = json.loads(load_recipe(REFERENCE).to_json())
    for name in ("measure", "compliance", "review", "quality"):
        del table[name]
    del table["scale"]["standard_uncertainty_mm_per_px"]
    for defect in table["defects"]:
        del defect["measure"], defect["grades"]
    recipe = Recipe.from_json(json.dumps(table))
    assert recipe == load_recipe(REFERENCE)
    assert recipe.compliance is None
    assert recipe.review.minor == "reject"


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        (GRADES, "has grades and no measure"),
        ("measure = 'depth'", "defect.measure is 'depth'; expected 'length' or 'width' or 'area'"),
        ("measure = 'length'\ngrades = [{below = 0.1, severity = 'minor'}]", "its last grade ends at 0.1"),
        ("measure = 'length'\ngrades = [{severity = 'minor'}, {severity = 'major'}]", "only its last grade"),
        (
            (
                "measure = 'area'\n"
                "grades = [{below=2, severity='minor'}, {below=1, severity='major'}, {severity='major'}]"
            ),
            "'below' is 1 after 2; the limits must rise",
        ),
        (
            "measure = 'length'\ngrades = [{below = 0, severity = 'ignore'}, {severity = 'major'}]",
            "'below' is 0 after 0",
        ),
        (
            "measure = 'length'\ngrades = [{below = 1, severity = 'major'}, {severity = 'minor'}]",
            "a larger size is milder (major, minor)",
        ),
        ("measure = 'length'\ngrades = [{below_mm = 1, severity = 'major'}]", "unknown key 'below_mm'"),
        ("measure = 'length'\ngrades = [{severity = 'bad'}]", "defect.grades.severity is 'bad'"),
    ],
)
def test_grades_that_leave_a_size_undecided_are_refused(tmp_path: Path, keys: str, named: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path, SMALL + keys))
    assert named in str(caught.value)
    assert "recipe.toml" in str(caught.value)


COMPLIANCE = 'standard = "ISO 286-1"\ngrade = "IT7"\nnominal_mm = 120'


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ('"IT7"', '"Ra 1.6"', "compliance: 'Ra 1.6' of 'ISO 286-1' is a limit of surface roughness"),
        (
            "nominal_mm = 120",
            "nominal_mm = 120\nra_um = 1.6",
            "compliance.ra_um: a limit of surface roughness",
        ),
        ('"IT7"', '"IT3"', "compliance: ISO 286-1:2010 has no grade 'IT3'"),
        ('"ISO 286-1"', '"DIN 7168"', "standard 'DIN 7168' is not known here"),
        ("nominal_mm = 120", "nominal_mm = 4000", "nominal_mm is 4000"),
        ("nominal_mm = 120", "nominal_inch = 4.7", "compliance.nominal_inch: sizes are in mm"),
        ("nominal_mm = 120", 'nominal_mm = "4.7 in"', "compliance.nominal_mm must be a number"),
        ("nominal_mm = 120", 'nominal_mm = 120\nunit = "inch"', "compliance.unit: sizes are in mm"),
        ("nominal_mm = 120", "", "'nominal_mm' is missing"),
        ('grade = "IT7"', 'grade = "IT7"\nclass = "m"', "both 'grade' and 'class'"),
        ("= 120", '= 120\nof = "area"', "compliance.of is 'area'; expected 'length' or 'width'"),
        ("= 120", '= 120\nrule = "generous"', "compliance.rule is 'generous'; expected 'ISO 14253-1' or"),
        ("= 120", '= 120\ntypes = ["hole"]', "compliance.types names 'hole'; the recipe's types are open"),
        ("= 120", '= 120\ncompared = "size"', "name its type in types"),
        ("= 120", '= 120\nzone = "H"', "compliance.zone is 'H'"),
        ("= 120", "= 120\nmax_uncertainty_ratio = 0", "compliance.max_uncertainty_ratio is 0"),
        ("= 120", '= 120\ndimension = "radius"', "linear sizes only"),
        ("= 120", "= 120\ntolerance = 3", "[compliance]: unknown key 'tolerance'"),
    ],
)
def test_a_standard_that_cannot_be_applied_is_refused_at_load(
    tmp_path: Path, before: str, after: str, named: str
) -> None:
    assert before in COMPLIANCE
    text = f"{SMALL}[compliance]\n{COMPLIANCE.replace(before, after)}\n"
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe_file(tmp_path, text))
    assert named in str(caught.value)
    assert "recipe.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_recipe_in_the_page_on_grades_loads(tmp_path: Path) -> None:
    """docs/grades.md: its fragment, behind the head of any recipe, is what it says it is."""
    page = (Path(__file__).parents[2] / "docs" / "grades.md").read_text(encoding="utf-8")
    (fragment,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    recipe = load_recipe(recipe_file(tmp_path, SMALL[: SMALL.index("[[defect]]")] + fragment))
    scratch = recipe.defect("scratch")
    assert [(step.below, step.severity) for step in scratch.grades] == [
        (0.1, "ignore"),
        (0.2, "minor"),
        (1.0, "major"),
        (None, "critical"),
    ]
    assert recipe.compliance is not None
    assert recipe.compliance.tolerance.deviation_mm == Decimal("0.035")
    assert recipe.review.minor == "pass"
    assert recipe.review.sample is not None
    assert recipe.quality.bands
