"""What is learnt of one part: right and wrong reports, and the made-up parts that would have passed."""

from __future__ import annotations

import numpy as np

from orinspect.evaluation.labelled.answers import clean_answers, defect_answers, fold_names, within_types
from orinspect.evaluation.scores import NamedBox
from orinspect.evaluation.sets.example import Example, Row
from orinspect.runtime.infer.fuse import CandidateDefect
from orinspect.runtime.infer.inspector import Inspection, Passes
from orinspect.runtime.judge.confidence import clean_features

A, B, C = (10.0, 10.0, 40.0, 40.0), (100.0, 10.0, 140.0, 50.0), (10.0, 100.0, 50.0, 140.0)
PICTURE = np.zeros((200, 200), np.uint8)


def example(*truth: NamedBox, ignored: tuple[NamedBox, ...] = ()) -> Example:
    return Example("part", "board", PICTURE, PICTURE, truth, ignored=ignored)


def defect(type: str, box: tuple[float, float, float, float], presence: float = 0.9) -> CandidateDefect:
    return CandidateDefect(type, box, presence, "dense", presence=presence)


def inspection(*defects: CandidateDefect, near: tuple[CandidateDefect, ...] = ()) -> Inspection:
    return Inspection(tuple(defects), (*defects, *near), (), (), {}, Passes(), None)


def test_a_report_is_right_with_its_type_and_place_once() -> None:
    said = inspection(defect("open", A), defect("open", A, 0.8), defect("short", B), defect("spur", C))
    found = defect_answers(example(NamedBox("open", A), NamedBox("spur", B)), said)
    assert [one.right for one in found] == [True, False, False, False]
    assert {one.picture for one in found} == {"part"}


def test_a_report_on_a_place_that_does_not_count_is_no_answer() -> None:
    assert defect_answers(example(ignored=(NamedBox("open", A),)), inspection(defect("open", A))) == []


def test_without_its_defects_a_part_is_clean_with_what_else_was_near() -> None:
    said = inspection(defect("open", A), near=(defect("spur", C, 0.2), defect("open", A, 0.7)))
    (clean,) = clean_answers(example(NamedBox("open", A)), said)
    assert clean.right
    assert clean.features == clean_features(0.2)


def test_a_false_report_makes_no_clean_part() -> None:
    assert clean_answers(example(NamedBox("open", A)), inspection(defect("open", A), defect("spur", C))) == []


def test_a_missed_defect_is_a_part_that_would_have_passed() -> None:
    said = inspection(defect("open", A), near=(defect("spur", B, 0.3),))
    truth = example(NamedBox("open", A), NamedBox("spur", B), NamedBox("copper", C))
    clean, seen, unseen = clean_answers(truth, said)
    assert (clean.right, seen.right, unseen.right) == (True, False, False)
    assert clean.features == clean_features(0.0)
    assert seen.features == clean_features(0.3)
    assert unseen.features == clean_features(0.0)


def test_a_report_of_another_type_is_no_escape() -> None:
    answers = clean_answers(example(NamedBox("open", A)), inspection(defect("short", A)))
    assert [one.right for one in answers] == [True]


def test_a_good_part_without_a_report_is_clean() -> None:
    (clean,) = clean_answers(example(), inspection())
    assert clean.right and clean.features == clean_features(0.0)


def test_labels_that_the_recipe_has_no_name_for_are_no_answers() -> None:
    """Any pictures may be given for INT8; a defect called Kratzer there makes no report wrong."""
    there = example(NamedBox("Kratzer", A), NamedBox("spur", B))
    known = within_types(there, ("open", "spur"))
    assert known.truth == (NamedBox("spur", B),)
    said = inspection(defect("open", A), defect("spur", B))
    assert [one.right for one in defect_answers(there, said)] == [False, True]
    assert [one.right for one in defect_answers(known, said)] == [True]
    same = example(NamedBox("spur", B))
    assert within_types(same, ("open", "spur")) is same


def test_exposures_of_one_tile_stand_on_one_side_of_every_fold() -> None:
    def rows(sessions: int) -> list[Row]:
        return [Row(f"{n}-{k}", f"session{n}", example) for n in range(sessions) for k in range(3)]

    assert fold_names(rows(12)) == [row.group for row in rows(12)]
    assert fold_names(rows(2)) == [row.name for row in rows(2)]  # two boards fill no five folds
