"""Mask folders: classes by folder and by pixel value, pieces that belong together, good parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from orinspect.evaluation.sets.formats.marks import pieces_of_mask
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.runtime.errors import DataSetError
from orinspect.tests.evaluation.sets.drawn_sets import TYPES, draw, draw_mask


def test_folders_name_the_class_as_mvtec_lays_them_out(tmp_path: Path) -> None:
    draw(tmp_path / "test" / "scratch" / "001.png")
    draw_mask(tmp_path / "ground_truth" / "scratch" / "001_mask.png", (10, 5, 30, 9, 255))
    draw(tmp_path / "test" / "good" / "000.png")
    draw(tmp_path / "train" / "good" / "777.png")
    rows = rows_from_source(str(tmp_path), types=TYPES, box_margin_px=3)
    assert [row.name for row in rows] == ["test/good/000.png", "test/scratch/001.png"]
    good, part = (row.read() for row in rows)
    assert good.is_good
    assert [(box.type, box.bbox_xyxy) for box in part.truth] == [("scratch", (7.0, 2.0, 33.0, 12.0))]
    assert part.masks[0] is not None and part.masks[0].sum() == 80 and part.label == "scratch"


def test_masks_may_lie_beside_their_pictures(tmp_path: Path) -> None:
    draw(tmp_path / "dent" / "a.jpg")
    draw_mask(tmp_path / "dent" / "a.png", (10, 5, 30, 9, 1))
    draw(tmp_path / "free" / "b.jpg")
    dent, good = (row.read() for row in rows_from_source(f"masks:{tmp_path}", types=TYPES, box_margin_px=0))
    assert dent.truth[0].bbox_xyxy == (10.0, 5.0, 30.0, 9.0) and dent.name == "dent/a.jpg"
    assert good.is_good and good.name == "free/b.jpg"


def test_pixel_values_name_the_class_by_a_file(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "a.jpg")
    draw(tmp_path / "images" / "b.jpg")
    draw_mask(tmp_path / "masks" / "a.png", (10, 5, 30, 9, 1), (40, 20, 50, 30, 2), (0, 30, 9, 40, 9))
    with pytest.raises(DataSetError, match=r"a\.png: pixel value 1: the class '1' is none of the recipe's"):
        rows_from_source(str(tmp_path), types=TYPES)[0].read()
    (tmp_path / "classes.json").write_text('{"1": "scratch", "2": "rust", "9": "ignore"}')
    part, good = (row.read() for row in rows_from_source(str(tmp_path), types=TYPES, box_margin_px=0))
    assert [(box.type, box.bbox_xyxy) for box in part.truth] == [
        ("scratch", (10.0, 5.0, 30.0, 9.0)), ("rust", (40.0, 20.0, 50.0, 30.0))]
    assert [box.bbox_xyxy for box in part.ignored] == [(0.0, 30.0, 9.0, 40.0)]
    assert good.is_good


def test_near_pieces_are_one_defect_and_specks_are_none() -> None:
    mask = np.zeros((60, 120), bool)
    mask[10:14, 10:40] = True
    mask[10:14, 46:80] = True  # 6 px further
    mask[40:44, 10:40] = True
    mask[40:44, 52:80] = True  # 12 px further
    mask[55:58, 100:103] = True  # 9 px in all
    pieces = pieces_of_mask(mask)
    assert [(int(piece.any(axis=0).argmax()), int(piece.sum())) for piece in pieces] == [
        (10, 256), (10, 120), (52, 112)]
    assert not pieces_of_mask(np.zeros((9, 9), bool))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    draw(tmp_path / "images" / "dent" / "a.jpg")
    path = draw_mask(tmp_path / "masks" / "dent" / "a.png", (1, 1, 20, 20, 255), size_wh=(30, 30))
    source = f"masks:{tmp_path}"
    with pytest.raises(DataSetError, match=r"a\.png has 30 x 30 pixels .* 60 x 40"):
        rows_from_source(source, types=TYPES)[0].read()
    draw_mask(path)
    with pytest.raises(DataSetError, match=r"a\.png is empty, and its folder says 'dent'"):
        rows_from_source(source, types=TYPES)[0].read()
    cv2.imwrite(str(path), np.dstack([np.eye(40, 60, dtype=np.uint8)] * 2 + [np.zeros((40, 60), np.uint8)]))
    with pytest.raises(DataSetError, match=r"a\.png is a mask in colours"):
        rows_from_source(source, types=TYPES)[0].read()
    path.write_bytes(b"cut")
    with pytest.raises(DataSetError, match=r"a\.png \(3 bytes\) is not a mask"):
        rows_from_source(source, types=TYPES)[0].read()
    path.unlink()
    with pytest.raises(DataSetError, match=r"lies in the folder of 'dent' and has no mask"):
        rows_from_source(source, types=TYPES)
    with pytest.raises(DataSetError, match="holds no pictures with masks"):
        rows_from_source(f"masks:{tmp_path / 'masks'}")
