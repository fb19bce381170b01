"""Bare boards laid out by rule: routed boards, copper planes with slots, wide bars, sparse corners.

Every board draws its own house style (widths, gaps, pad shapes), then one family of layout. Copper is 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .planes import bars, plane
from .shapes import Point, Shape, Sheet, box, disc, octilinear_walk, offset_path, polygon, stroke, times


@dataclass(frozen=True)
class HouseStyle:
    """What the shapes of one board have in common; pixels."""

    thin_px: float
    wide_px: float
    gap_px: float
    pad_px: float
    rounding: float
    drilled: bool
    via_px: float


def copper_layout(rng: np.random.Generator, size_px: int) -> npt.NDArray[np.uint8]:
    """Copper (255) and background (0) of a defect-free board, uint8 [size_px, size_px]."""
    sheet = Sheet(size_px, rng)
    style = HouseStyle(
        thin_px=sheet.uniform(5, 11) if sheet.chance(0.7) else sheet.uniform(11, 18),
        wide_px=sheet.uniform(14, 45),
        gap_px=sheet.uniform(7, 18),
        pad_px=sheet.uniform(22, 46),
        rounding=sheet.uniform(0.0, 0.45) if sheet.chance(0.5) else 0.0,
        drilled=sheet.chance(0.55),
        via_px=sheet.uniform(14, 30),
    )
    family = float(rng.random())
    if family < 0.58:
        _routed(sheet, style)
    elif family < 0.74:
        plane(sheet)
    elif family < 0.88:
        bars(sheet, style.drilled)
    else:
        _sparse(sheet, style)
    turned = np.rot90(sheet.copper, int(rng.integers(4)))
    if sheet.chance(0.5):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _routed(sheet: Sheet, style: HouseStyle) -> None:
    """Parts' pads joined by traces, bundles of parallel traces, copper areas: most boards."""
    dense = sheet.uniform(0.3, 1.0)
    if sheet.chance(0.6):
        for _ in range(times(sheet, 1, 5)):
            _bundle(sheet, style)
    if sheet.chance(0.5):
        for _ in range(times(sheet, 1, 6)):
            _area(sheet, style)
    pads: list[Shape] = []
    for _ in range(times(sheet, 4, 22 * dense)):
        kind = sheet.count(0, 5)
        if kind == 0:
            pads += _leg_row(sheet, style)
        elif kind == 1:
            pads += _pair_of_pads(sheet, style)
        elif kind in (2, 3):
            pads += _drilled_row(sheet, style)
        else:
            pads += _vias(sheet, style)
    if sheet.chance(0.15):
        _delay_line(sheet, style)
    for _ in range(times(sheet, 15, 90 * dense)):
        start = pads[int(sheet.rng.integers(len(pads)))] if pads and sheet.chance(0.8) else None
        _trace(sheet, style, start)
    if sheet.chance(0.12):
        _lettering(sheet, style)
    _drill(sheet, style, pads)


def _bundle(sheet: Sheet, style: HouseStyle) -> None:
    """Parallel traces of one pitch that turn together."""
    width = style.thin_px if sheet.chance(0.75) else style.wide_px
    pitch = width + style.gap_px * sheet.uniform(0.8, 1.6)
    lanes = sheet.count(2, 9)
    heading = sheet.count(0, 7)
    reach = max(60.0, pitch * lanes * 1.3)
    through = sheet.point(-0.1 * sheet.size_px)
    path = octilinear_walk(sheet, through, heading, sheet.count(2, 6), (reach, reach * 3.5))
    if sheet.chance(0.7):  # the bundle comes in from outside
        back = (heading + sheet.count(3, 5)) * math.pi / 4
        x, y = (sheet.size_px * math.cos(back), sheet.size_px * math.sin(back))
        path.insert(0, (through[0] + x, through[1] + y))
    for lane in range(lanes):
        line = stroke(offset_path(path, (lane - lanes / 2) * pitch), width)
        if sheet.place([line], style.gap_px * 0.75) and sheet.chance(0.5):
            end = line.points[-1]
            sheet.place([disc(end, max(style.via_px / 2, width * 0.7))], style.gap_px * 0.6, [line])


def _area(sheet: Sheet, style: HouseStyle) -> None:
    """A large polygon with chamfered corners, now and then with a hole."""
    x, y = sheet.point(60)
    half_w, half_h = sheet.uniform(25, 110), sheet.uniform(25, 110)
    cut = [min(half_w, half_h) * (sheet.uniform(0.2, 0.8) if sheet.chance(0.5) else 0.0) for _ in range(4)]
    corners = ((-half_w, -half_h, 0), (half_w, -half_h, 1), (half_w, half_h, 2), (-half_w, half_h, 3))
    points: list[Point] = []
    for cx, cy, index in corners:
        chamfer = cut[index]
        first = (x + cx - math.copysign(chamfer, cx), y + cy)
        second = (x + cx, y + cy - math.copysign(chamfer, cy))
        points += [second, first] if index % 2 == 0 else [first, second]
    body = polygon(points, 4.0 if style.rounding else 0.0)
    if sheet.place([body], style.gap_px) and sheet.chance(0.4):
        hole = (x + sheet.uniform(-0.4, 0.4) * half_w, y + sheet.uniform(-0.4, 0.4) * half_h)
        sheet.cut([disc(hole, sheet.uniform(5, 18))])


def _leg_row(sheet: Sheet, style: HouseStyle) -> list[Shape]:
    """A row of pads at one pitch: one side of an IC or a connector."""
    legs = sheet.count(3, 10)
    width, height = style.pad_px * sheet.uniform(0.35, 0.8), style.pad_px * sheet.uniform(1.0, 2.2)
    pitch = width + style.gap_px * sheet.uniform(1.0, 2.0)
    x, y = sheet.point(30)
    upright = sheet.chance(0.5)
    placed = []
    for leg in range(legs):
        centre = (x + leg * pitch, y) if upright else (x, y + leg * pitch)
        size = (width, height) if upright else (height, width)
        pad = box(centre, *size, rounding_px=min(size) * style.rounding)
        if sheet.place([pad], style.gap_px * 0.7):
            placed.append(pad)
    return placed


def _pair_of_pads(sheet: Sheet, style: HouseStyle) -> list[Shape]:
    """Two pads facing each other: a resistor or capacitor; some stand at an angle."""
    side = style.pad_px * sheet.uniform(0.8, 1.3)
    distance = side * sheet.uniform(1.4, 2.2)
    angle = sheet.count(0, 1) * math.pi / 2 if sheet.chance(0.85) else sheet.uniform(0, math.pi)
    x, y = sheet.point(20)
    pads = [box((x + sign * distance / 2 * math.cos(angle), y + sign * distance / 2 * math.sin(angle)),
                side * 0.8, side, side * 0.8 * style.rounding, angle) for sign in (-1, 1)]
    return [pad for pad in pads if sheet.place([pad], style.gap_px * 0.8)]


def _drilled_row(sheet: Sheet, style: HouseStyle) -> list[Shape]:
    """Round or oblong through-hole pads in a row; the holes are cut at the end, after the traces."""
    radius = style.pad_px * sheet.uniform(0.45, 0.85)
    oblong = sheet.uniform(0.4, 1.4) * radius if sheet.chance(0.35) else 0.0
    pitch = 2 * radius + style.gap_px * sheet.uniform(1.2, 4.0) + oblong
    x, y = sheet.point(30)
    along = sheet.count(0, 1)
    placed: list[Shape] = []
    for index in range(sheet.count(1, 6)):
        centre = (x + index * pitch * along, y + index * pitch * (1 - along))
        ends = [(centre[0] - oblong / 2, centre[1]), (centre[0] + oblong / 2, centre[1])]
        pad = stroke(ends, 2 * radius) if oblong else disc(centre, radius)
        if sheet.place([pad], style.gap_px * 0.8):
            placed.append(pad)
    return placed


def _vias(sheet: Sheet, style: HouseStyle) -> list[Shape]:
    """A few small discs near each other."""
    x, y = sheet.point(10)
    placed = []
    for _ in range(sheet.count(1, 5)):
        centre = (x + sheet.uniform(-90, 90), y + sheet.uniform(-90, 90))
        via = disc(centre, style.via_px * sheet.uniform(0.4, 0.65))
        if sheet.place([via], style.gap_px):
            placed.append(via)
    return placed


def _trace(sheet: Sheet, style: HouseStyle, start: Shape | None) -> None:
    """One trace from a pad (or from anywhere) in octilinear steps, often ending in a via."""
    origin = sheet.point(60)
    joined: list[Shape] = []
    if start is not None:
        joined = [start]
        origin = (float(np.mean([p[0] for p in start.points])), float(np.mean([p[1] for p in start.points])))
    width = style.thin_px * sheet.uniform(0.85, 1.15) if sheet.chance(0.75) else style.wide_px
    for segments in (sheet.count(2, 6), 2, 1):
        path = octilinear_walk(sheet, origin, sheet.count(0, 3) * 2, segments, (30, 220))
        line = stroke(path, width)
        parts = [line]
        if sheet.chance(0.55):
            parts.append(disc(path[-1], max(style.via_px * 0.5, width * 0.75)))
        if sheet.place(parts, style.gap_px * 0.7, joined):
            return


def _delay_line(sheet: Sheet, style: HouseStyle) -> None:
    """A trace that runs to and fro."""
    pitch = style.thin_px * sheet.uniform(2.0, 3.2)
    height = sheet.uniform(40, 140)
    x, y = sheet.point(-40)
    path: list[Point] = []
    for turn in range(sheet.count(4, 14)):
        ends = [(x + turn * pitch, y), (x + turn * pitch, y + height)]
        path += ends if turn % 2 == 0 else ends[::-1]
    sheet.place([stroke(path, style.thin_px)], style.gap_px * 0.7)


def _lettering(sheet: Sheet, style: HouseStyle) -> None:
    """A part number in copper."""
    text = "".join(str(sheet.count(0, 9)) for _ in range(sheet.count(2, 7)))
    scale, pen = sheet.uniform(0.9, 1.8), sheet.count(3, 6)
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, pen)
    x, y = (int(value) for value in sheet.point())
    window = sheet.copper[max(y - height - 12, 0):y + 12, max(x - 12, 0):x + width + 12]
    if window.size and not window.any():
        cv2.putText(sheet.copper, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255,), pen)


def _drill(sheet: Sheet, style: HouseStyle, pads: list[Shape]) -> None:
    """Cut the holes of round pads: centred, or as far off as a worn drill goes."""
    if not style.drilled:
        return
    share = sheet.uniform(0.25, 0.5)
    off = sheet.uniform(0.0, 0.25) if sheet.chance(0.3) else 0.0
    for pad in pads:
        if pad.filled or pad.width_px < style.via_px * 1.1:
            continue
        x, y = pad.points[0]
        radius = pad.width_px / 2 * share
        sheet.cut([disc((x + off * radius, y - off * radius), radius)])


def _sparse(sheet: Sheet, style: HouseStyle) -> None:
    """A corner with little on it: rows of discs, rings, a few long thin traces."""
    placed: list[Shape] = []
    for _ in range(times(sheet, 1, 5)):
        placed += _drilled_row(sheet, style)
    for _ in range(times(sheet, 0, 3)):
        placed += _vias(sheet, style)
    for _ in range(times(sheet, 0, 3)):
        centre, radius = sheet.point(40), sheet.uniform(18, 90)
        if sheet.place([disc(centre, radius)], style.gap_px) and sheet.chance(0.5):
            sheet.cut([disc(centre, radius * sheet.uniform(0.35, 0.8))])
    for _ in range(times(sheet, 2, 10)):
        start = placed[int(sheet.rng.integers(len(placed)))] if placed and sheet.chance(0.5) else None
        _trace(sheet, style, start)
    _drill(sheet, style, placed)
