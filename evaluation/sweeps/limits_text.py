"""The sweeps as a table for the terminal and the documentation."""

from __future__ import annotations

from typing import Any

UNITS = {
    "low_light": "of the light", "bright_light": "of the light", "blur": "px sigma", "motion": "px long",
    "glare": "of the area", "noise": "grey levels",
}


def limits_text(result: dict[str, Any]) -> str:
    """One block a kind of disturbance, the certified strengths marked, and the limits that are stored."""
    section = result["quality"]
    counts = f"{result['pictures']} pictures, {result['defects']} defects, F {result['f_clean']:.3f}"
    allowed = f"undisturbed; allowed loss {section['allowed_loss']:g}"
    lines = [f"{result['recipe']} ({result['mode']}): {counts} {allowed}"]
    if result["template"] == "clean":
        lines.append("the part is disturbed, its template is not")
    if result["two_tone_pictures"]:
        lines.append(
            f"{result['two_tone_pictures']} pictures are black and white only: no camera gives these"
            " disturbances after a threshold, so read the table with care"
        )
    for kind, curve in section["sweeps"].items():
        lines += ["", f"{kind} ({UNITS[kind]}), measured as {curve['quantity']}"]
        lines.append("   strength      F   95 % interval     loss  at most   measured   outside")
        for point in curve["points"]:
            is_in = curve["certified"] is not None and _at_most(point, curve)
            measured = "-" if point["measured"] is None else f"{point['measured']:.3g}"
            lines.append(
                f" {'*' if is_in else ' '} {point['strength']:8g}  {point['f']:.3f}"
                f"   {point['f_low']:.3f}..{point['f_high']:.3f}   {point['loss']:+.3f}"
                f"   {point['loss_high']:+.3f}   {measured:>8}   {100 * point['outside']:5.0f} %"
                + (f"   given up after {point['pictures']}" if point["pictures"] < result["pictures"] else "")
            )
    lines += ["", "certified (* above), and stored: " + ", ".join(_limits(section["limits"]))]
    return "\n".join(lines)


def _at_most(point: dict[str, Any], curve: dict[str, Any]) -> bool:
    strengths = [row["strength"] for row in curve["points"]]
    return bool(strengths.index(point["strength"]) <= strengths.index(curve["certified"]))


def _limits(limits: dict[str, dict[str, float]]) -> list[str]:
    return [
        f"{name} {'>=' if side == 'min' else '<='} {value:.3g}"
        for name, sides in limits.items()
        for side, value in sides.items()
    ]
