"""Line charts as inline SVG: axes, ticks, lines, bands, dots and a legend; no script, no font, no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 440, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 40
# Eight colours that colour-blind readers can tell apart: Okabe and Ito, 2008.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d00")
TICKS = 5


@dataclass(frozen=True)
class Line:
    """One line of a chart: points (x, y); `band` as (x, low, high); `dots` marks the points, radius in px."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()
    radius_px: Sequence[float] = ()
    is_dashed: bool = False


@dataclass(frozen=True)
class Axes:
    """What the axes say and the range that they show."""

    x_label: str
    y_label: str
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)


def line_chart(lines: Sequence[Line], axes: Axes, title: str) -> str:
    """An <svg> element; every text in it is escaped."""
    body = [*_frame(axes)]
    for index, line in enumerate(lines):
        colour = "#888888" if line.is_dashed else COLOURS[index % len(COLOURS)]
        body += _line(line, axes, colour)
    body += _legend(lines)
    label = html.escape(title, quote=True)
    return (f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            f'aria-label="{label}"><title>{label}</title>{"".join(body)}</svg>')


def _frame(axes: Axes) -> list[str]:
    """Grid, ticks and labels."""
    inner = f'width="{WIDTH - LEFT - RIGHT}" height="{HEIGHT - TOP - BOTTOM}"'
    parts = [f'<rect x="{LEFT}" y="{TOP}" {inner} fill="none" stroke="#bbbbbb"/>']
    for step in range(TICKS + 1):
        share = step / TICKS
        x_value = axes.x_range[0] + share * (axes.x_range[1] - axes.x_range[0])
        y_value = axes.y_range[0] + share * (axes.y_range[1] - axes.y_range[0])
        x, y = _place(x_value, y_value, axes)
        parts.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#eeeeee"/>'
                     f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#eeeeee"/>'
                     f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 14}" text-anchor="middle">{x_value:.3g}</text>'
                     f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{y_value:.3g}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
                 f'{html.escape(axes.x_label)}</text>'
                 f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
                 f'{html.escape(axes.y_label)}</text>')
    return parts


def _line(line: Line, axes: Axes, colour: str) -> list[str]:
    """One line with its band and dots."""
    parts = []
    if line.band:
        upper = [_place(x, high, axes) for x, _, high in line.band]
        lower = [_place(x, low, axes) for x, low, _ in reversed(line.band)]
        parts.append(f'<polygon points="{_points([*upper, *lower])}" fill="{colour}" fill-opacity="0.15"/>')
    places = [_place(x, y, axes) for x, y in line.points]
    dashes = ' stroke-dasharray="4 4"' if line.is_dashed else ""
    if len(places) > 1:
        parts.append(f'<polyline points="{_points(places)}" fill="none" stroke="{colour}" '
                     f'stroke-width="1.8"{dashes}/>')
    for (x, y), radius in zip(places, line.radius_px, strict=False):
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}" '
                     'fill-opacity="0.7"/>')
    return parts


def _legend(lines: Sequence[Line]) -> list[str]:
    """Names in the lower left corner, which curves of a good detector leave free."""
    parts = []
    for index, line in enumerate(lines):
        colour = "#888888" if line.is_dashed else COLOURS[index % len(COLOURS)]
        y = HEIGHT - BOTTOM - 10 - 15 * (len(lines) - 1 - index)
        parts.append(f'<line x1="{LEFT + 8}" y1="{y - 4}" x2="{LEFT + 26}" y2="{y - 4}" stroke="{colour}" '
                     f'stroke-width="3"/><text x="{LEFT + 31}" y="{y}">{html.escape(line.name)}</text>')
    return parts


def _place(x: float, y: float, axes: Axes) -> tuple[float, float]:
    """A value's place in the picture, kept inside the frame."""
    (x_low, x_high), (y_low, y_high) = axes.x_range, axes.y_range
    right = min(max((x - x_low) / max(x_high - x_low, 1e-12), 0.0), 1.0)
    up = min(max((y - y_low) / max(y_high - y_low, 1e-12), 0.0), 1.0)
    return LEFT + right * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
