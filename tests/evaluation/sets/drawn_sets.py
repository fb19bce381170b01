"""Writes small labelled data sets in the forms that other programs write them: no file of a real one."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np

TYPES = ("scratch", "dent", "rust")
WIDTH, HEIGHT = 60, 40


def draw(path: Path, level: int = 128, size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A picture of one grey level at `path`; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((size_wh[1], size_wh[0]), level, np.uint8))
    return path


def draw_mask(path: Path, *boxes: tuple[int, int, int, int, int], size_wh: tuple[int, int] = (WIDTH, HEIGHT)
              ) -> Path:
    """A mask at `path`: 0, and each box (x1, y1, x2, y2) filled with its fifth number."""
    mask = np.zeros((size_wh[1], size_wh[0]), np.uint8)
    for x1, y1, x2, y2, value in boxes:
        mask[y1:y2, x1:x2] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return path


def write_coco(folder: Path, **changes: Any) -> Path:
    """`folder`/annotations.json with two pictures in `images`; `changes` replace whole tables."""
    document = {
        "images": [{"id": 7, "file_name": "part one.png", "width": WIDTH, "height": HEIGHT},
                   {"id": 3, "file_name": "good.png", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 1, "name": "scratch"}, {"id": 2, "name": "Delle"}],
        "annotations": [{"id": 11, "image_id": 7, "category_id": 1, "bbox": [5.5, 10, 20, 4], "iscrowd": 0}],
        **changes,
    }
    draw(folder / "images" / "part one.png")
    draw(folder / "images" / "good.png", 200)
    path = folder / "annotations.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def voc_xml(*objects: tuple[Any, ...], size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> str:
    """One annotation; each object is (name, xmin, ymin, xmax, ymax) or with difficult as a sixth."""
    said = "".join(
        f"<object><name>{name}</name><difficult>{int(bool(rest and rest[0]))}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, *rest in objects)
    return (f"<annotation><filename>any.jpg</filename><size><width>{size_wh[0]}</width>"
            f"<height>{size_wh[1]}</height><depth>1</depth></size>{said}</annotation>")


def write_voc(folder: Path, pictures: dict[str, tuple[tuple[Any, ...], ...] | None]) -> Path:
    """`folder`/JPEGImages and Annotations; None writes a picture without annotation."""
    (folder / "Annotations").mkdir(parents=True)
    for stem, objects in pictures.items():
        draw(folder / "JPEGImages" / f"{stem}.jpg")
        if objects is not None:
            (folder / "Annotations" / f"{stem}.xml").write_text(voc_xml(*objects), encoding="utf-8")
    return folder


def shape(label: str, form: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    """One shape as LabelMe 5 writes it."""
    return {"label": label, "points": points, "group_id": None, "description": "", "shape_type": form,
            "flags": {}, "mask": None, **more}


def write_labelme(folder: Path, name: str, *shapes: dict[str, Any], **changes: Any) -> Path:
    """A picture NAME.png and NAME.json beside it; `changes` replace entries of the document."""
    draw(folder / f"{name}.png")
    document = {"version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": f"{name}.png",
                "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH, **changes}
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def jpeg_with_orientation(path: Path, orientation: int, size_wh: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A JPEG stored as `size_wh` with an EXIF orientation (6: shown turned by 90 degrees)."""
    coded, data = cv2.imencode(".jpg", np.full((size_wh[1], size_wh[0]), 90, np.uint8))
    assert coded
    # TIFF header, one directory with one entry: tag 0x0112, type SHORT, one value (EXIF 2.3, section 4.6)
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"Exif\0\0" + tiff
    bytes_ = data.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes_[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + bytes_[2:])
    return path
