"""What is on sound parts and is no defect: machined edges, holes, markings, glare, dust."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from .outlines import Window
from .surfaces import clouds

Field = npt.NDArray[np.float32]
Taken = npt.NDArray[np.uint8]  # [H, W], 1 where a distractor is

_FINE = 4
_SHIFT = 4
_LETTERS = "ABCDEFHKLMNPRSTXZ0123456789"


def add_distractors(surface: Field, rng: np.random.Generator) -> Taken:
    """Put one to three of them onto `surface` [H, W, 3] reflectance, in place; where they are."""
    size_px = surface.shape[0]
    taken: Taken = np.zeros((size_px, size_px), np.uint8)
    kinds = [_machined_edge, _drilled_hole, _bolt_circle, _marking, _glare]
    for index in rng.permutation(len(kinds))[:int(rng.integers(1, 4))]:
        kinds[int(index)](surface, taken, rng)
    return taken


def add_dust(surfaces: Sequence[Field], keep_clear: Sequence[Window], rng: np.random.Generator) -> None:
    """Specks under 3 px, the same on all `surfaces` [H, W, 3], in place, none in `keep_clear`."""
    size_px = surfaces[0].shape[0]
    for _ in range(int(rng.integers(3, 15) * (size_px / 512) ** 2) + 1):
        x, y = (int(value) for value in rng.integers(4, size_px - 4, 2))
        wide, high = (int(value) for value in rng.integers(1, 3, 2))
        factor = np.float32(rng.uniform(0.45, 0.75) if rng.random() < 0.5 else rng.uniform(1.3, 1.7))
        if any(x1 - 2 <= x + wide and x - 2 <= x2 and y1 - 2 <= y + high and y - 2 <= y2
               for x1, y1, x2, y2 in keep_clear):
            continue
        for surface in surfaces:
            surface[y:y + high, x:x + wide] *= factor


def _machined_edge(surface: Field, taken: Taken, rng: np.random.Generator) -> None:
    """A straight edge across the whole picture: another face beyond it, and a chamfer between."""
    size_px = surface.shape[0]
    angle = float(rng.integers(4)) * math.pi / 2 + float(rng.normal(0.0, 0.03))
    if rng.random() < 0.4:
        angle = rng.uniform(0.0, 2 * math.pi)
    axis = np.arange(size_px, dtype=np.float32) + np.float32(0.5 - size_px / 2)
    far = axis[None, :] * np.float32(math.cos(angle)) + axis[:, None] * np.float32(math.sin(angle))
    far = far - np.float32(rng.uniform(0.05, 0.45) * size_px)
    wide = np.float32(rng.uniform(2.0, 16.0))
    beyond, chamfer = rng.uniform(0.55, 1.15), rng.uniform(0.5, 1.6)
    on_chamfer, on_face = np.clip(far + 0.5, 0.0, 1.0), np.clip(far - wide + 0.5, 0.0, 1.0)
    tone = 1.0 + on_chamfer * np.float32(chamfer - 1.0) + on_face * np.float32(beyond - chamfer)
    surface *= tone[..., None].astype(np.float32)
    taken[(far > -3) & (far < wide + 3)] = 1


def _disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> Field:
    """Coverage [h, w] 0..1 of a disc; the centre in pixels."""
    x = np.arange(shape[1], dtype=np.float32) + np.float32(0.5 - centre[0])
    y = np.arange(shape[0], dtype=np.float32) + np.float32(0.5 - centre[1])
    away = np.sqrt(x[None, :] ** 2 + y[:, None] ** 2)
    return np.asarray(np.clip(np.float32(radius + 0.5) - away, 0.0, 1.0), np.float32)


def _free(taken: Taken, x: float, y: float, half_w: float, half_h: float) -> Window | None:
    """The window around x, y when it is within the picture and nothing stands in it."""
    window = (int(x - half_w) - 3, int(y - half_h) - 3, int(x + half_w) + 4, int(y + half_h) + 4)
    size_px = taken.shape[0]
    if min(window) < 0 or max(window) > size_px:
        return None
    return None if taken[window[1]:window[3], window[0]:window[2]].any() else window


def _hole(surface: Field, taken: Taken, x: float, y: float, radius: float,
          rng: np.random.Generator) -> None:
    """A clean round hole with a turned chamfer; nothing when there is no room."""
    rim = radius * rng.uniform(1.06, 1.25) + 1.0
    window = _free(taken, x, y, rim, rim)
    if window is None:
        return
    x1, y1, x2, y2 = window
    place = surface[y1:y2, x1:x2]
    shape, centre = (y2 - y1, x2 - x1), (x - x1, y - y1)
    turn = rng.uniform(0.0, 2 * math.pi)
    away_x = (np.arange(shape[1], dtype=np.float32) - centre[0]) / rim
    away_y = (np.arange(shape[0], dtype=np.float32) - centre[1]) / rim
    facing = away_x[None, :] * math.cos(turn) + away_y[:, None] * math.sin(turn)
    chamfer = 1.05 + rng.uniform(0.2, 0.55) * facing
    floor = rng.uniform(0.06, 0.3) * (1.0 - rng.uniform(0.0, 0.8) * facing)
    outer, inner = _disc(shape, centre, rim), _disc(shape, centre, radius)
    tone = 1.0 + outer * (chamfer - 1.0) + inner * (floor - chamfer)
    place *= np.maximum(tone, 0.02)[..., None].astype(np.float32)
    taken[y1:y2, x1:x2] = 1


def _drilled_hole(surface: Field, taken: Taken, rng: np.random.Generator) -> None:
    size_px = surface.shape[0]
    radius = rng.uniform(0.03, 0.13) * min(size_px, 700)
    x, y = rng.uniform(radius, size_px - radius, 2)
    _hole(surface, taken, float(x), float(y), float(radius), rng)


def _bolt_circle(surface: Field, taken: Taken, rng: np.random.Generator) -> None:
    """Three to eight equal holes on a circle, as far as they are in the picture."""
    size_px = surface.shape[0]
    x, y = rng.uniform(0.1, 0.9, 2) * size_px
    circle, radius = rng.uniform(0.15, 0.5) * size_px, rng.uniform(0.02, 0.045) * min(size_px, 700)
    count, first = int(rng.integers(3, 9)), rng.uniform(0.0, 2 * math.pi)
    state = rng.integers(2**63)
    for index in range(count):
        turn = first + index * 2 * math.pi / count
        # One drill: every hole looks the same.
        _hole(surface, taken, float(x + circle * math.cos(turn)), float(y + circle * math.sin(turn)),
              float(radius), np.random.default_rng(state))


def _marking(surface: Field, taken: Taken, rng: np.random.Generator) -> None:
    """A short part number, printed or engraved, in any quarter turn and a little askew."""
    size_px = surface.shape[0]
    text = "".join(_LETTERS[int(index)] for index in rng.integers(0, len(_LETTERS), int(rng.integers(3, 8))))
    high = rng.uniform(0.03, 0.07) * min(size_px, 800)
    font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_PLAIN)[int(rng.integers(3))]
    pen = max(round(high * rng.uniform(0.08, 0.16) * _FINE), _FINE)
    scale = cv2.getFontScaleFromHeight(font, max(int(high * _FINE), 8), pen)
    (text_w, text_h), _ = cv2.getTextSize(text, font, scale, pen)
    half = (text_w / 2 + pen) / _FINE + 2
    x, y = rng.uniform(0.0, size_px, 2)
    window = _free(taken, float(x), float(y), half, half)
    if window is None:
        return
    x1, y1, x2, y2 = window
    canvas: npt.NDArray[np.uint8] = np.zeros(((y2 - y1) * _FINE, (x2 - x1) * _FINE), np.uint8)
    middle = (canvas.shape[1] / 2, canvas.shape[0] / 2)
    cv2.putText(canvas, text, (int(middle[0] - text_w / 2), int(middle[1] + text_h / 2)), font, scale, (255,),
                pen, cv2.LINE_8)
    turn = cv2.getRotationMatrix2D(middle, float(rng.integers(4) * 90 + rng.normal(0.0, 3.0)), 1.0)
    canvas = np.asarray(cv2.warpAffine(canvas, turn, (canvas.shape[1], canvas.shape[0])), np.uint8)
    cover = cv2.resize(canvas.astype(np.float32), (x2 - x1, y2 - y1), interpolation=cv2.INTER_AREA)
    cover = np.asarray(cover * np.float32(1 / 255), np.float32)
    place = surface[y1:y2, x1:x2]
    if rng.random() < 0.5:
        ink = np.float32(rng.uniform(0.04, 0.2) if float(place.mean()) > 0.3 else rng.uniform(0.7, 0.9))
        worn = np.clip(0.9 + 0.15 * clouds(rng, (y2 - y1, x2 - x1), 3.0), 0.5, 1.0)
        place += (cover * worn)[..., None].astype(np.float32) * (ink - place)
    else:
        step = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 1.2]])
        lower = cv2.warpAffine(cover, step, (x2 - x1, y2 - y1))
        tone = 1.0 - cover * rng.uniform(0.25, 0.6) + np.maximum(lower - cover, 0.0) * rng.uniform(0.1, 0.5)
        place *= tone[..., None].astype(np.float32)
    taken[y1:y2, x1:x2] = 1


def _glare(surface: Field, taken: Taken, rng: np.random.Generator) -> None:
    """A soft pool of mirrored lamp light, longer than wide."""
    size_px = surface.shape[0]
    long, wide = rng.uniform(0.05, 0.14) * size_px, rng.uniform(0.02, 0.06) * size_px
    x, y = rng.uniform(0.0, size_px, 2)
    half = 3.2 * long
    x1, y1 = max(int(x - half), 0), max(int(y - half), 0)
    x2, y2 = min(int(x + half), size_px), min(int(y + half), size_px)
    angle = rng.uniform(0.0, math.pi)
    away_x = np.arange(x1, x2, dtype=np.float32)[None, :] - np.float32(x)
    away_y = np.arange(y1, y2, dtype=np.float32)[:, None] - np.float32(y)
    along = (away_x * np.float32(math.cos(angle)) + away_y * np.float32(math.sin(angle))) / np.float32(long)
    across = (away_y * np.float32(math.cos(angle)) - away_x * np.float32(math.sin(angle))) / np.float32(wide)
    pool = np.exp(-0.5 * (along * along + across * across))
    surface[y1:y2, x1:x2] += pool[..., None] * np.float32(rng.uniform(0.1, 0.35))
    taken[y1:y2, x1:x2][pool > 0.1] = 1
