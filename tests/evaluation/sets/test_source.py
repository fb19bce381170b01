"""Rows of a DeepPCB folder and of scenes: the fixed split, lists, warps, one sentence for each bad row."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.evaluation.sets.deeppcb import VALIDATION_BOARDS
from orinspect.evaluation.sets.scene_rows import truth_from_scene
from orinspect.evaluation.sets.source import default_split, rows_from_source, training_rows
from orinspect.runtime.capture.scenes import pcb_scene
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import write_labelme, write_voc
from orinspect.tests.evaluation.small_data_set import write_deeppcb

BOARDS = {"group00041": 2, "group13000": 3, "group92000": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_deeppcb(tmp_path / "set", BOARDS)


def _annotation(folder: Path) -> Path:
    return folder / "PCBData" / "group00041" / "00041_not" / "00041000.txt"


def test_the_default_split_is_the_two_validation_boards(folder: Path) -> None:
    assert [row.name for row in rows_from_source(str(folder))] == [
        "group00041/00041/00041000.jpg", "group00041/00041/00041001.jpg", "group92000/92000/92000000.jpg"]


def test_training_and_validation_share_no_board_and_make_up_all(folder: Path) -> None:
    train, held = (rows_from_source(str(folder), split=split) for split in ("train", "validation"))
    assert {row.group for row in held} == set(VALIDATION_BOARDS)
    assert not {row.group for row in train} & {row.group for row in held}
    assert len(train) + len(held) == len(rows_from_source(str(folder), split="all")) == 6


def test_the_inner_folder_is_the_same_data_set(folder: Path) -> None:
    inner = rows_from_source(str(folder / "PCBData"), split="all")
    assert [row.name for row in inner] == [row.name for row in rows_from_source(str(folder), split="all")]


def test_a_row_gives_part_template_and_named_boxes(folder: Path) -> None:
    example = rows_from_source(str(folder))[0].read()
    assert example.image.shape == example.golden.shape == (192, 192)
    assert example.group == "group00041" and example.truth
    lines = _annotation(folder).read_text().split("\n")[: len(example.truth)]
    assert [tuple(map(int, line.split()[:4])) for line in lines] == [box.bbox_xyxy for box in example.truth]


def test_a_list_of_rows_replaces_the_split(folder: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "rows.txt"
    chosen.write_text("group13000/13000/13000002.jpg group13000/13000_not/13000002.txt\n\n")
    rows = rows_from_source(str(folder), list_path=chosen)
    assert [row.name for row in rows] == ["group13000/13000/13000002.jpg"]


def test_a_warp_changes_the_template_only_and_is_repeated_by_its_seed(folder: Path) -> None:
    plain, once, again, other = (rows_from_source(str(folder), warp_seed=seed)[1].read()
                                 for seed in (None, 3, 3, 4))
    assert np.array_equal(plain.image, once.image) and plain.truth == once.truth
    assert np.array_equal(once.golden, again.golden)
    assert not np.array_equal(once.golden, plain.golden)
    assert not np.array_equal(once.golden, other.golden)


def test_scene_truth_is_widened_by_the_margin_and_clipped() -> None:
    scene = pcb_scene(5, size_px=256, defects=3)
    for tight, wide in zip(scene.defects, truth_from_scene(scene, 10), strict=True):
        x1, y1, x2, y2 = tight.bbox_xyxy
        assert wide.type == tight.type
        assert wide.bbox_xyxy == (max(0, x1 - 10), max(0, y1 - 10), min(256, x2 + 10), min(256, y2 + 10))


def test_scenes_are_repeated_by_their_source_and_seeds_differ() -> None:
    rows = rows_from_source("scenes:pcb?seed=3&parts=2&size_px=192&defects=1")
    again = rows_from_source("scenes:pcb?seed=3&parts=2&size_px=192&defects=1")
    other = rows_from_source("scenes:pcb?seed=4&parts=2&size_px=192&defects=1")
    assert np.array_equal(rows[1].read().image, again[1].read().image)
    assert not np.array_equal(rows[1].read().image, rows[0].read().image)
    assert not np.array_equal(rows[0].read().image, other[0].read().image)


def test_the_floor_trains_on_no_board_that_is_scored(folder: Path, tmp_path: Path) -> None:
    scored = rows_from_source(str(folder))
    assert {row.group for row in training_rows(str(folder), scored)} == {"group13000"}
    chosen = tmp_path / "rows.txt"
    chosen.write_text("group13000/13000/13000002.jpg group13000/13000_not/13000002.txt\n")
    only_training_board = rows_from_source(str(folder), list_path=chosen)
    assert {row.group for row in training_rows(str(folder), only_training_board)} == {"scenes"}


def test_scenes_for_training_have_other_seeds_and_the_same_options() -> None:
    source = "scenes:pcb?seed=3&parts=2&style=grey&size_px=192"
    scored = rows_from_source(source)
    training = training_rows(source, scored)
    assert not {row.name for row in scored} & {row.name for row in training}
    assert training[0].read().image.shape == (192, 192)


@pytest.mark.parametrize(("line", "said"), [
    ("1 2 3 4", "x1 y1 x2 y2 class"), ("1 2 30 40 9", "1..6"), ("30 2 3 40 1", "x1 < x2"),
    ("a b c d 1", "x1 y1 x2 y2 class"),
])
def test_a_wrong_annotation_is_named_with_its_line(folder: Path, line: str, said: str) -> None:
    _annotation(folder).write_text(f"10 10 40 40 1\n{line}\n")
    with pytest.raises(DataSetError, match=r"00041000\.txt:2") as error:
        rows_from_source(str(folder))
    assert said in str(error.value) and line in str(error.value)


def test_a_row_without_its_picture_is_named(folder: Path) -> None:
    (folder / "PCBData" / "group00041" / "00041" / "00041001_temp.jpg").unlink()
    with pytest.raises(DataSetError, match=r"trainval\.txt:2.*00041001_temp\.jpg does not exist"):
        rows_from_source(str(folder))


def test_a_row_of_another_form_is_named(folder: Path, tmp_path: Path) -> None:
    chosen = tmp_path / "rows.txt"
    chosen.write_text("group13000/13000/13000002.jpg\n")
    with pytest.raises(DataSetError, match=r"rows\.txt:1: expected"):
        rows_from_source(str(folder), list_path=chosen)


def test_a_file_that_is_no_picture_fails_when_its_row_is_read(folder: Path) -> None:
    (folder / "PCBData" / "group00041" / "00041" / "00041000_test.jpg").write_bytes(b"no picture")
    row = rows_from_source(str(folder))[0]
    with pytest.raises(DataSetError, match=r"00041000_test\.jpg"):
        row.read()


@pytest.mark.parametrize(("source", "said"), [
    ("nowhere/at/all", "is not a folder"), ("scenes:pcb?sed=1", "'sed' is unknown"),
    ("scenes:steel?seed=1", "'steel' do not exist"), ("scenes:pcb?parts=0", "at least 1"),
    ("scenes:pcb?seed=x", "give a number"),
])
def test_a_source_that_cannot_be_read_is_refused(source: str, said: str) -> None:
    with pytest.raises(DataSetError, match=said):
        rows_from_source(source)


def test_an_impossible_style_of_scenes_is_refused() -> None:
    with pytest.raises(DataSetError, match="style"):
        rows_from_source("scenes:pcb?style=pink&parts=1")[0].read()


def test_a_folder_without_a_list_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="--list FILE"):
        rows_from_source(str(tmp_path))


def test_a_folder_without_validation_boards_says_which_they_are(tmp_path: Path) -> None:
    folder = write_deeppcb(tmp_path / "set", {"group13000": 1})
    with pytest.raises(DataSetError, match="group00041, group92000"):
        rows_from_source(str(folder))


def test_scenes_take_no_split_and_no_list(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="no list and no split"):
        rows_from_source("scenes:pcb?seed=1", split="train")


def test_a_folder_without_a_list_is_read_only_where_labels_are_not_needed(tmp_path: Path) -> None:
    for index in (2, 10, 1):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((8, 8), index, np.uint8))
    with pytest.raises(DataSetError, match="does not exist; give --list"):
        rows_from_source(str(tmp_path))
    rows = rows_from_source(str(tmp_path), unlabelled=True)
    assert [row.name for row in rows] == ["1.png", "2.png", "10.png"]
    example = rows[1].read()
    assert not example.is_labelled
    assert np.array_equal(example.image, example.golden)
    (clip,) = rows_from_source(str(tmp_path), unlabelled=True, clip_frames=2)
    frame = clip.read().frame(1)
    assert (frame.earlier[0][0, 0], frame.image[0, 0]) == (1, 2)


def test_a_folder_of_pairs_brings_its_templates(tmp_path: Path) -> None:
    for name, grey in (("a_test", 1), ("a_temp", 2)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((8, 8), grey, np.uint8))
    (row,) = rows_from_source(str(tmp_path), unlabelled=True)
    example = row.read()
    assert (example.image[0, 0], example.golden[0, 0]) == (1, 2)
    cv2.imwrite(str(tmp_path / "a_temp.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(DataSetError, match="give pictures of one size"):
        row.read()


def test_a_folder_that_can_be_read_in_two_ways_asks_which(tmp_path: Path) -> None:
    write_voc(tmp_path, {"a": ()})
    write_labelme(tmp_path, "b")
    with pytest.raises(DataSetError, match=r"2 ways; say which: voc:.* or labelme:"):
        rows_from_source(str(tmp_path))
    assert [row.name for row in rows_from_source(f"voc:{tmp_path}")] == ["a.jpg"]
    with pytest.raises(DataSetError, match="does not exist"):
        rows_from_source(f"coco:{tmp_path}/gone.json")


@pytest.mark.parametrize(("split", "said"), [
    (None, "validation"), ("all", "all")])
def test_a_deeppcb_folder_may_be_said_outright(folder: Path, split: str | None, said: str) -> None:
    rows = rows_from_source(f"deeppcb:{folder}", split=split)
    assert len(rows) == (3 if said == "validation" else 6)
    assert default_split(f"deeppcb:{folder}") == "validation" and default_split("scenes:pcb") == "scenes"


def test_a_recipe_of_other_types_is_refused(folder: Path) -> None:
    with pytest.raises(DataSetError, match=r"shows open, .* knows only dent"):
        rows_from_source(str(folder), types=("dent",))
