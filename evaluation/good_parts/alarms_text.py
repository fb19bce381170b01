"""The result of `good_part_figures` as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST_LISTED = 8


def good_parts_text(result: Mapping[str, Any]) -> str:
    """A block a setting of the gate, then the first false alarms."""
    bundle = result["bundle"]
    lines = [
        f"{result['dataset']}: {result['parts']} good parts, bundle {bundle['id']} {bundle['precision']}",
        f"{result['templates']} templates, {result['copies']} re-captured each, seed {result['seed']}",
        "",
        "gate  parts   tiles  looked at  false alarms  a part, under  a tile, under  stopped  ms a part",
    ]
    for name, row in result["gate"].items():
        alarm, tile = row["false_alarm"], row["a_tile"]
        lines.append(
            f"{name:<4}{row['parts']:>7}{row['tiles']:>8}{row['tiles_looked_at']:>11}{alarm['count']:>14}"
            f"{_share(alarm['upper_95']):>15}{_share(tile['upper_95']):>15}{row['stopped']['count']:>9}"
            f"{row['ms_per_part']:>11.0f}")
    lines += ["", "under: the one-sided upper 95 % bound; stopped: rejected or sent to review"]
    for name, row in result["gate"].items():
        if not row["alarms"]:
            continue
        blamed = ", ".join(f"{kind} {count}" for kind, count in row["silenced_without"].items() if count)
        lines.append(f"gate {name}: {row['false_alarm']['count']} parts on {row['templates_with_alarms']} "
                     f"templates; silent without {blamed or 'no single disturbance'}")
        for entry in row["alarms"][:MOST_LISTED]:
            said = ", ".join(f"{one['type']} {one['confidence']:.2f} at {_place(one['bbox'])}"
                             for one in entry["defects"])
            lines.append(f"  {entry['image']} copy {entry['copy']}: {said}")
    return "\n".join(lines)


def _share(value: float) -> str:
    return f"{100.0 * value:.3f} %"


def _place(box: list[float]) -> str:
    return f"({(box[0] + box[2]) / 2:.0f}, {(box[1] + box[3]) / 2:.0f})"
