"""Boards that are mostly copper: planes parted by slots, and wide bars side by side."""

from __future__ import annotations

import math

from .shapes import Point, Sheet, disc, octilinear_walk, polygon, stroke, times


def plane(sheet: Sheet) -> None:
    """Copper nearly everywhere, parted by slots, square waves of slots and round clearances."""
    size = sheet.size_px
    sheet.copper[:] = 255
    slot = sheet.uniform(6, 15)
    if sheet.chance(0.5):  # the plane ends inside the picture, straight or round
        if sheet.chance(0.5):
            edge = sheet.uniform(0.1, 0.7) * size
            sheet.copper[:] = 0
            sheet.paint([polygon([(-50, edge), (size + 50, edge), (size + 50, size + 50), (-50, size + 50)],
                                 sheet.uniform(0, 15))])
        else:
            sheet.copper[:] = 0
            sheet.paint([disc(sheet.point(0.3 * size), size * sheet.uniform(0.5, 0.95))])
    y = sheet.uniform(0, 90)
    while y < size and sheet.chance(0.85):  # slots right across
        sheet.cut([stroke([(-20, y), (size + 20, y + sheet.uniform(-2, 2))], slot * sheet.uniform(0.8, 2.4))])
        y += sheet.uniform(26, 180)
    for _ in range(times(sheet, 0, 5)):
        path = octilinear_walk(sheet, sheet.point(50), sheet.count(0, 7), sheet.count(2, 7), (40, 260),
                               square=sheet.chance(0.5))
        sheet.cut([stroke(path, slot * sheet.uniform(0.8, 1.5))])
    if sheet.chance(0.5):
        _square_wave(sheet, slot)
    for _ in range(times(sheet, 0, 4)):
        sheet.cut([disc(sheet.point(30), sheet.uniform(12, 85))])
    for _ in range(times(sheet, 0, 4)):  # an island in a clearance
        centre, radius = sheet.point(), sheet.uniform(14, 40)
        sheet.cut([disc(centre, radius + slot * sheet.uniform(1.0, 2.0))])
        sheet.paint([disc(centre, radius)])


def _square_wave(sheet: Sheet, slot: float) -> None:
    """A slot that runs as a square wave, its uprights narrower than its crests."""
    x, y = sheet.uniform(-40, 80), sheet.point()[1]
    period, height = sheet.uniform(60, 120), sheet.uniform(40, 75)
    while x < sheet.size_px and sheet.chance(0.95):
        sheet.cut([stroke([(x, y), (x + period / 2, y)], slot)])
        sheet.cut([stroke([(x + period / 2, y + height), (x + period, y + height)], slot)])
        narrow = max(slot * sheet.uniform(0.4, 1.0), 4.0)
        for upright in (x + period / 2, x + period):
            sheet.cut([stroke([(upright, y), (upright, y + height)], narrow)])
        x += period


def bars(sheet: Sheet, drilled: bool) -> None:
    """Wide conductors side by side, parted by slots that step sideways; now and then cut across."""
    size = sheet.size_px
    sheet.copper[:] = 255
    slot = sheet.uniform(20, 48)
    repeats = sheet.chance(0.5)
    jogs = [sheet.uniform(0, size) for _ in range(sheet.count(0, 3))]
    steps = [math.copysign(sheet.uniform(24, 80), sheet.uniform(-1, 1)) for _ in jogs]
    x = sheet.uniform(-60, 40)
    while x < size + 80:
        path: list[Point] = [(x, -60.0)]
        if repeats or sheet.chance(0.5):
            for at, step in sorted(zip(jogs, steps, strict=True)):
                path += [(path[-1][0], at), (path[-1][0] + step, at + abs(step))]
        path.append((path[-1][0], size + 200.0))
        sheet.cut([stroke(path, slot * sheet.uniform(0.8, 1.1))])
        pitch = slot + sheet.uniform(32, 120)
        if sheet.chance(0.4):
            across = sheet.uniform(0, size)
            sheet.cut([stroke([(x, across), (x + pitch, across)], slot * sheet.uniform(0.7, 1.1))])
        if drilled and sheet.chance(0.4):
            sheet.cut([disc((x + pitch / 2, sheet.uniform(0, size)), sheet.uniform(4, 8))])
        x += pitch
    if sheet.chance(0.3):
        edge = sheet.uniform(-20, size * 0.5)
        sheet.cut([polygon([(-9, -9), (size + 9, -9), (size + 9, edge), (-9, edge)])])
