"""VOC folders: pixels counted from 1, difficult objects, good parts, own splits, files that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import (
    TYPES,
    draw,
    jpeg_with_orientation,
    voc_xml,
    write_voc,
)


def test_boxes_count_from_one_and_hold_both_ends(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {"part 2": (("scratch", 1, 1, 60, 40),), "part 10": None, "part 1": (
        ("dent", 11, 5, 20, 8), ("rust", 30, 5, 30, 5, True))})
    rows = rows_from_source(str(folder), types=TYPES)
    assert [row.name for row in rows] == ["part 1.jpg", "part 2.jpg", "part 10.jpg"]
    first, whole, good = (row.read() for row in rows)
    assert [(box.type, box.bbox_xyxy) for box in first.truth] == [("dent", (10.0, 4.0, 20.0, 8.0))]
    assert [box.type for box in first.ignored] == ["rust"] and first.label == "dent"
    assert whole.truth[0].bbox_xyxy == (0.0, 0.0, 60.0, 40.0)
    assert good.is_good and not whole.is_good


def test_a_picture_of_two_classes_has_no_label(tmp_path: Path) -> None:
    """Or the class of its first object would be scored as that of the whole picture."""
    folder = write_voc(tmp_path, {"a": (("dent", 2, 2, 9, 9), ("rust", 20, 2, 29, 9)),
                                  "b": (("rust", 2, 2, 9, 9), ("rust", 20, 2, 29, 9))})
    assert [row.read().label for row in rows_from_source(str(folder), types=TYPES)] == [None, "rust"]


def test_a_flat_folder_is_read_and_a_class_of_another_name_is_refused(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "set", {"a": (("Kratzer", 2, 2, 9, 9),)})
    for path in [*folder.glob("*/*.xml"), *folder.glob("*/*.jpg")]:
        path.rename(tmp_path / path.name)
    source = f"voc:{tmp_path}"
    with pytest.raises(DataSetError, match=r"a\.xml: object 1: the class 'Kratzer'"):
        rows_from_source(source, types=TYPES)
    (tmp_path / "classes.json").write_text('{"Kratzer": "scratch"}')
    assert rows_from_source(source, types=TYPES)[0].read().truth[0].type == "scratch"


def test_the_sets_of_the_folder_are_its_split(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, dict.fromkeys("abc") | {"d": (("dent", 2, 2, 9, 9),)})
    with pytest.raises(DataSetError, match="says nothing about a split 'train'"):
        rows_from_source(str(folder), split="train")
    main = folder / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("a\nc\n")
    (main / "val.txt").write_text("b\nd\n")
    assert [row.name for row in rows_from_source(str(folder))] == ["b.jpg", "d.jpg"]
    assert [row.name for row in rows_from_source(str(folder), split="train")] == ["a.jpg", "c.jpg"]
    assert len(rows_from_source(str(folder), split="all")) == 4
    chosen = tmp_path / "rows.txt"
    chosen.write_text("d.jpg\na.jpg\n")
    assert [row.name for row in rows_from_source(str(folder), list_path=chosen)] == ["d.jpg", "a.jpg"]
    chosen.write_text("e.jpg\n")
    with pytest.raises(DataSetError, match=r"rows\.txt:1: the data set has no picture 'e\.jpg'"):
        rows_from_source(str(folder), list_path=chosen)


def test_a_picture_that_its_exif_flag_turns_must_be_annotated_as_shown(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {"a": (("dent", 2, 2, 9, 39),)})
    jpeg_with_orientation(folder / "JPEGImages" / "a.jpg", 6)
    row = rows_from_source(str(folder))[0]
    with pytest.raises(DataSetError, match=r"a\.xml: says 60 x 40 pixels .* has 40 x 60; annotate .* shown"):
        row.read()
    (folder / "Annotations" / "a.xml").write_text(voc_xml(("dent", 2, 2, 9, 59), size_wh=(40, 60)))
    example = rows_from_source(str(folder))[0].read()
    assert example.image.shape == (60, 40) and example.truth[0].bbox_xyxy == (1.0, 1.0, 9.0, 59.0)


@pytest.mark.parametrize(("text", "said"), [
    (voc_xml(("dent", 9, 2, 3, 9)), "object 1: xmin <= xmax"),
    (voc_xml(("dent", "x", 2, 3, 9)), "object 1: expected a bndbox"),
    (voc_xml(("dent", 2, 2, 9, 9))[:-20], "is not whole XML"),
    (voc_xml().replace("<width>60", "<width>wide"), "size is not two whole numbers"),
    ("<annotation><object><name>dent</name></object></annotation>", "expected a bndbox"),
])
def test_a_file_that_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    folder = write_voc(tmp_path, {"a": ()})
    (folder / "Annotations" / "a.xml").write_text(text)
    with pytest.raises(DataSetError, match=rf"a\.xml.*{said}"):
        rows_from_source(str(folder), types=TYPES)


def test_an_annotation_without_its_picture_is_named(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {"a": (), "b": ()})
    (folder / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(DataSetError, match=r"b\.xml has no picture b .*1 of 2"):
        rows_from_source(str(folder))


def test_calibration_takes_a_set_without_a_split_whole(tmp_path: Path) -> None:
    folder = write_voc(tmp_path, {"a": (("dent", 2, 2, 9, 9),), "b": None})
    assert len(rows_from_source(str(folder), split="train", unlabelled=True)) == 2


def test_two_pictures_of_one_name_are_refused_and_other_xml_is_no_annotation(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "set", {"a": (("dent", 2, 2, 9, 9),)})
    draw(folder / "JPEGImages" / "a.png")
    with pytest.raises(DataSetError, match=r"a\.png and a\.jpg have one name"):
        rows_from_source(f"voc:{folder}")
    draw(tmp_path / "plain" / "a.png")
    (tmp_path / "plain" / "camera.xml").write_text("<settings/>")
    (row,) = rows_from_source(str(tmp_path / "plain"), unlabelled=True)
    assert not row.read().is_labelled
