"""COCO files: boxes, outlines, crowds, names, and one sentence for each entry that is wrong."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.evaluation.sets.example import Example
from orinspect.evaluation.sets.formats.shapes import polygons_outline, runs_from_text, runs_outline
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import HEIGHT, TYPES, WIDTH, draw, write_coco

SQUARE = {"id": 1, "image_id": 7, "category_id": 1}
# What pycocotools 2.0.11 packs for a field of 700 x 900 px with two blocks.
PACKED_BLOCKS = (
    "TjX4d?X6000bWj=f@hWVB00000000000000000000000000000000000000000000000000000000000000000000000000000Vi6"
)


def _read(path: Path, **options: Any) -> Example:
    return rows_from_source(f"coco:{path}", types=TYPES, **options)[0].read()


def test_a_box_is_read_from_corner_and_size(tmp_path: Path) -> None:
    rows = rows_from_source(str(write_coco(tmp_path)), types=TYPES)
    assert [row.name for row in rows] == ["part one.png", "good.png"]
    part, good = (row.read() for row in rows)
    assert [(box.type, box.bbox_xyxy) for box in part.truth] == [("scratch", (5.5, 10.0, 25.5, 14.0))]
    assert (part.image[0, 0], part.template, part.label, part.is_good) == (128, None, "scratch", False)
    assert good.is_good and good.truth == () and good.label is None


def test_names_of_classes_are_mapped_by_the_file_beside_or_the_one_given(tmp_path: Path) -> None:
    path = write_coco(tmp_path, annotations=[{**SQUARE, "category_id": 2, "bbox": [1, 1, 9, 9]}])
    with pytest.raises(DataSetError, match="annotation 1: the class 'Delle' is none of the recipe's: scr"):
        _read(path)
    given = tmp_path / "elsewhere.json"
    given.write_text('{"Delle": "dent"}')
    assert _read(path, classes=given).truth[0].type == "dent"
    (tmp_path / "classes.json").write_text('{"Delle": "ignore"}')
    ignored = _read(path)
    assert not ignored.truth and len(ignored.ignored) == 1 and not ignored.is_good
    given.write_text('{"Delle": "beule"}')
    with pytest.raises(DataSetError, match="'beule' is no type of the recipe"):
        _read(path, classes=given)


def test_without_a_recipe_classes_keep_their_names(tmp_path: Path) -> None:
    path = write_coco(tmp_path, annotations=[{**SQUARE, "category_id": 2, "bbox": [1, 1, 9, 9]}])
    assert rows_from_source(str(path))[0].read().truth[0].type == "Delle"


def test_crowds_and_ignored_boxes_are_kept_out_of_scoring(tmp_path: Path) -> None:
    path = write_coco(tmp_path, annotations=[
        {**SQUARE, "bbox": [0, 0, 8, 8], "iscrowd": 1},
        {**SQUARE, "id": 2, "bbox": [20, 0, 8, 8], "ignore": 1}])
    example = _read(path)
    assert example.truth == () and len(example.ignored) == 2 and not example.is_good


def test_polygons_and_runs_give_the_same_mask_and_a_box_that_is_widened(tmp_path: Path) -> None:
    # Columns 10..19 of rows 5..8, run lengths down the columns.
    runs = [10 * HEIGHT + 5]
    for _ in range(9):
        runs += [4, HEIGHT - 4]
    runs += [4, HEIGHT - 9 + (WIDTH - 20) * HEIGHT]
    polygon = [10, 5, 20, 5, 20, 9, 10, 9]
    path = write_coco(tmp_path, annotations=[
        {**SQUARE, "segmentation": [polygon]},
        {**SQUARE, "id": 2, "segmentation": {"size": [HEIGHT, WIDTH], "counts": runs}},
        {**SQUARE, "id": 3, "segmentation": [polygon], "bbox": [9, 4, 12, 6]}])
    example = _read(path, box_margin_px=2)
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[5:9, 10:20] = True
    assert len(example.masks) == 3
    for mask in example.masks:
        assert mask is not None and np.array_equal(mask, wanted)
    outlined, run, drawn = (box.bbox_xyxy for box in example.truth)
    assert outlined == run == (8.0, 3.0, 22.0, 11.0)
    assert drawn == (9.0, 4.0, 21.0, 10.0)  # a drawn box stands


def test_packed_runs_are_what_pycocotools_packs() -> None:
    eye = np.eye(4, 6, dtype=bool)
    assert np.array_equal(runs_outline(runs_from_text("014000004"), (4, 6))(4, 6), eye)
    blocks = np.zeros((700, 900), bool)
    blocks[100:600, 200:203] = True
    blocks[50:60, 850:890] = True
    assert np.array_equal(runs_outline(runs_from_text(PACKED_BLOCKS), (700, 900))(700, 900), blocks)


def test_a_polygon_has_the_pixels_whose_centres_it_holds() -> None:
    triangle = np.array([[2.13, 1.07], [18.31, 3.23], [7.19, 14.41]])
    mask = polygons_outline([triangle])(16, 20)
    edges = [(triangle[i], triangle[(i + 1) % 3]) for i in range(3)]
    for y, x in np.ndindex(16, 20):
        sides = [(b[0] - a[0]) * (y + 0.5 - a[1]) - (b[1] - a[1]) * (x + 0.5 - a[0]) for a, b in edges]
        assert mask[y, x] == all(side > 0 for side in sides)


def test_boxes_beyond_the_picture_are_cut_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_coco(tmp_path, annotations=[
        {**SQUARE, "bbox": [50, 30, 40, 40]}, {**SQUARE, "id": 2, "bbox": [0, 0, 5, 5]}])
    with caplog.at_level(logging.WARNING):
        example = _read(path)
    assert example.truth[0].bbox_xyxy == (50.0, 30.0, 60.0, 40.0)
    assert "1 boxes reach beyond their pictures" in caplog.text
    path = write_coco(tmp_path, annotations=[{**SQUARE, "bbox": [70, 0, 5, 5]}])
    with pytest.raises(DataSetError, match="no pixel on the picture"):
        _read(path)


def test_pictures_are_found_beside_in_images_and_in_the_folder_of_their_split(tmp_path: Path) -> None:
    source = json.loads(write_coco(tmp_path / "a").read_text())
    draw(tmp_path / "val2017" / "part one.png", 33)
    draw(tmp_path / "val2017" / "good.png")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(source))
    assert _read(tmp_path / "annotations" / "instances_val2017.json").image[0, 0] == 33
    assert _read(tmp_path).image[0, 0] == 33  # the only annotation file of the folder


@pytest.mark.parametrize(("changes", "said"), [
    ({"annotations": [{**SQUARE, "bbox": [1, 1, 0, 5]}]}, "annotation 1: the bbox .* has no area"),
    ({"annotations": [{**SQUARE, "bbox": [1, 1, 5]}]}, r"annotation 1: .*expected bbox \[x, y, width"),
    ({"annotations": [SQUARE]}, "annotation 1: neither bbox nor segmentation"),
    ({"annotations": [{**SQUARE, "image_id": 99, "bbox": [1, 1, 5, 5]}]}, "image_id 99 is not in the file"),
    ({"annotations": [{**SQUARE, "category_id": 9, "bbox": [1, 1, 5, 5]}]}, "category_id 9 is not in"),
    ({"annotations": [{**SQUARE, "segmentation": [[1, 2, 3, 4]]}]}, "at least 3 points"),
    ({"annotations": [{**SQUARE, "segmentation": {"size": [4, 4], "counts": [3]}}]}, "cover 3 pixels"),
    ({"annotations": [{**SQUARE, "segmentation": {"size": [4, 4], "counts": "0P"}}]}, "cut in the middle"),
    ({"annotations": None}, "'annotations' is no list"),
    ({"images": [{"id": 7, "file_name": "gone.png"}]}, "image 7: gone.png is neither beside"),
    ({"images": [{"id": 7}]}, "image 7 has no file_name"),
    ({"images": [{"file_name": "good.png"}]}, "id = None"),
    ({"images": [{"id": 7, "file_name": "good.png", "width": 61, "height": 40}]}, "says 61 x 40 pixels"),
])
def test_an_entry_that_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write_coco(tmp_path, **changes)
    with pytest.raises(DataSetError, match=said) as error:
        _read(path)
    assert "annotations.json" in str(error.value)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataSetError, match=r"annotations\.json is not whole JSON"):
        _read(path)
