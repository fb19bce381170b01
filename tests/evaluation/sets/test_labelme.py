"""LabelMe folders: shapes with an area, packed masks, flags, good parts, files that are wrong."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import (
    HEIGHT,
    TYPES,
    WIDTH,
    draw,
    jpeg_with_orientation,
    shape,
    write_labelme,
)


def test_polygons_rectangles_circles_and_masks(tmp_path: Path) -> None:
    png = cv2.imencode(".png", np.full((4, 6), 255, np.uint8))[1].tobytes()
    write_labelme(
        tmp_path, "part 1", shape("dent", "polygon", [[10, 5], [20, 5], [20, 9], [10, 9]]),
        shape("scratch", "rectangle", [[30, 20], [25, 12]]),  # drawn from the lower right corner
        shape("rust", "circle", [[40, 20], [43, 24]]),
        shape("rust", "mask", [[1, 2], [6, 5]], mask=base64.b64encode(png).decode()))
    draw(tmp_path / "part 2.png")
    rows = rows_from_source(str(tmp_path), types=TYPES, box_margin_px=1)
    assert [row.name for row in rows] == ["part 1.png", "part 2.png"]
    part, good = (row.read() for row in rows)
    assert [(box.type, box.bbox_xyxy) for box in part.truth] == [
        ("dent", (9.0, 4.0, 21.0, 10.0)), ("scratch", (25.0, 12.0, 30.0, 20.0)),
        ("rust", (34.0, 14.0, 46.0, 26.0)), ("rust", (0.0, 1.0, 8.0, 7.0))]
    dent, scratch, circle, packed = part.masks
    assert dent is not None and dent.sum() == 40 and scratch is None
    assert circle is not None and abs(int(circle.sum()) - np.pi * 25) < 6
    assert packed is not None and np.argwhere(packed).min(axis=0).tolist() == [2, 1] and packed.sum() == 24
    assert part.label is None and good.is_good


def test_flags_take_a_shape_out_of_scoring(tmp_path: Path) -> None:
    write_labelme(tmp_path, "a", shape("dent", "rectangle", [[1, 1], [9, 9]], flags={"difficult": True}))
    example = rows_from_source(f"labelme:{tmp_path}", types=TYPES)[0].read()
    assert not example.truth and len(example.ignored) == 1


def test_files_may_lie_in_folders_and_name_pictures_elsewhere(tmp_path: Path) -> None:
    draw(tmp_path / "pictures" / "x.png", 50)
    path = write_labelme(tmp_path / "json", "a", imagePath="..\\pictures\\x.png")
    (path.parent / "a.png").unlink()
    rows = rows_from_source(f"labelme:{tmp_path}", types=TYPES)
    assert [row.name for row in rows] == ["pictures/x.png"] and rows[0].read().image[0, 0] == 50


def test_a_picture_turned_by_its_exif_flag_fits_as_labelme_shows_it(tmp_path: Path) -> None:
    write_labelme(tmp_path, "a", shape("dent", "rectangle", [[1, 1], [9, 55]]), imagePath="a.jpg",
                  imageWidth=HEIGHT, imageHeight=WIDTH)
    (tmp_path / "a.png").unlink()
    jpeg_with_orientation(tmp_path / "a.jpg", 6)
    example = rows_from_source(str(tmp_path))[0].read()
    assert example.image.shape == (WIDTH, HEIGHT) and example.truth[0].bbox_xyxy == (1.0, 1.0, 9.0, 55.0)


@pytest.mark.parametrize(("shapes", "changes", "said"), [
    ([shape("dent", "line", [[1, 1], [5, 5]])], {}, r"shape 1 \(line\): has no area"),
    ([shape("dent", "polygon", [[1, 1], [5, 5]])], {}, r"shape 1 \(polygon\): expected at least 3 points"),
    ([shape("dent", "mask", [[1, 1], [5, 5]], mask="bm90IGEgUE5H")], {}, "the mask is no PNG"),
    ([shape("hole", "rectangle", [[1, 1], [5, 5]])], {}, "shape 1: the class 'hole' is none"),
    ([], {"imagePath": "gone.png"}, r"its picture gone\.png is not at"),
    ([], {"imagePath": None}, "has shapes and imagePath"),
    ([], {"imageWidth": 99}, "says 99 x 40"),
    ([shape("dent", "mask", [[58, 1], [63, 4]], mask="")], {}, "the mask is no PNG"),
])
def test_a_file_that_is_wrong_is_named(
    tmp_path: Path, shapes: list[Any], changes: dict[str, Any], said: str
) -> None:
    write_labelme(tmp_path, "a", *shapes, **changes)
    with pytest.raises(DataSetError, match=rf"a\.json.*{said}"):
        rows_from_source(f"labelme:{tmp_path}", types=TYPES)[0].read()


def test_two_files_about_one_picture_are_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path, "a")
    (tmp_path / "b.json").write_text((tmp_path / "a.json").read_text())
    with pytest.raises(DataSetError, match="are about one picture"):
        rows_from_source(f"labelme:{tmp_path}")
