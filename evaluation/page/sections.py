"""The parts of the page: tables and charts from a result of `evaluate`, as HTML with every value escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..rates.confusion import INVENTED, MISSED
from ..rates.resampling import trusted_unit
from ..rates.tally import Tally, curve_of_type
from .charts import Axes, Line, line_chart


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A <table>; numbers to the right, None as a dash."""
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    above = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def figures_section(result: Mapping[str, Any]) -> str:
    """Detectors and floors, types, sizes and boards."""
    rows = [[name, *_prf(row), row["map"], row["agnostic"]["f"]]
            for name, row in result["per_detector"].items()]
    other = result["against"]
    if other:
        name = f"other bundle {other['bundle']['name']}"
        rows.append([name, *_prf(other["scores"]), other["scores"]["map"], other["scores"]["agnostic"]["f"]])
    floors = result["baseline"] or {}
    if floors.get("xor"):
        rows.append(["floor: XOR", None, None, None, None, floors["xor"]["f"]])
    if floors.get("cnn"):
        cnn = floors["cnn"]
        rows.append(["floor: CNN", *_prf(cnn), cnn["map"], cnn["agnostic"]["f"]])
    types = [[name, row["truth"], *_prf(row), row["ap"]] for name, row in result["per_class"].items()]
    sizes = [[name, row["truth"], row["precision"], row["recall"], row["f"], row["ap"]]
             for name, row in result["per_size"].items()]
    boards = [[name, row["parts"], *_prf(row)] for name, row in result["per_board"].items()]
    return (table(("detector", "P", "R", "F", "mAP", "F without type"), rows)
            + table(("type", "truth", "P", "R", "F", "AP"), types)
            + table(("longest side, px", "truth", "P", "R", "F", "AP"), sizes)
            + (table(("board", "parts", "P", "R", "F"), boards[:40]) if len(boards) > 1 else ""))


def verdict_section(result: Mapping[str, Any]) -> str:
    """Escapes, false alarms, reviews with their bounds, and the intervals of the bootstrap."""
    rows = []
    for name in ("escape", "false_alarm", "false_reject", "review"):
        row = result[name]
        keys = ("count", "parts", "rate", "low", "high")
        rows.append([name.replace("_", " "), *(row[key] for key in keys)])
    reasons = ", ".join(f"{name} {count}" for name, count in result["review"]["reasons"].items())
    text = table(("", "count", "of", "share", "95 % from", "to"), rows, "parts, exact binomial bounds")
    text += f"<p>Reviewed because: {html.escape(reasons)}.</p>" if reasons else ""
    bootstrap = result["bootstrap"]
    for unit in ("group", "part"):
        if bootstrap[unit]:
            text += table(("", "95 % from", "to"), [[name, *ends] for name, ends in bootstrap[unit].items()],
                          f"resampled by {unit}, {bootstrap['replicates']} times")
    return text + (f"<p>{html.escape(bootstrap['note'])}.</p>" if bootstrap["note"] else "")


def confusion_section(result: Mapping[str, Any]) -> str:
    """Which type is taken for which; darker is more of its row."""
    matrix = result["confusion"]
    columns = [*matrix["types"], MISSED]
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = ""
    for name in [*matrix["types"], INVENTED]:
        row = matrix["rows"].get(name, {})
        total = max(sum(row.values()), 1)
        cells = ""
        for column in columns:
            count = row.get(column, 0)
            hue = "0,114,178" if column == name else "213,94,0"
            share = count / total
            style = f' style="background:rgba({hue},{0.08 + 0.6 * share:.2f})"' if count else ""
            cells += f"<td{style}>{count or ''}</td>"
        body += f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
    matrix_table = (f'<table class="confusion"><caption>rows: true type; columns: reported type</caption>'
                    f"<thead><tr><th></th>{titles}</tr></thead><tbody>{body}</tbody></table>")
    accuracy = result["class_accuracy"]
    if not accuracy:
        return matrix_table
    keys = ("right", "pictures", "accuracy", "low", "high", "undecided")
    head = ("right", "pictures", "share", "95 % from", "to", "without evidence")
    return matrix_table + table(head, [[accuracy[key] for key in keys]], "class of the whole picture")


def precision_recall_chart(tally: Tally, types: Sequence[str]) -> str:
    """A curve a type over all candidates, reported or not."""
    lines = []
    for name in types:
        if name not in tally.ranked:
            continue
        recall, precision = curve_of_type(tally.ranked[name])
        if len(recall):
            curve = [(float(x), float(y)) for x, y in zip(recall, precision, strict=True)]
            lines.append(Line(name, [(0.0, curve[0][1]), *curve]))
    lowest = min((y for line in lines for _, y in line.points), default=0.0)
    shown = (0.5 if lowest >= 0.5 else 0.0, 1.0)
    return line_chart(lines, Axes("recall", "precision", y_range=shown), "precision over recall")


def reliability_chart(result: Mapping[str, Any]) -> str:
    """Share right over stated confidence, bins of equal mass; a dot's area is what lies in its bin."""
    lines = [Line("honest", [(0.0, 0.0), (1.0, 1.0)], is_dashed=True)]
    rows = []
    for name in ("raw", "calibrated"):
        figures = result["ece"][name]
        if figures is None:
            continue
        bins = figures["bins"]["equal_mass"]
        most = max((row["count"] for row in bins), default=1)
        lines.append(Line(name, [(row["confidence"], row["right"]) for row in bins],
                          radius_px=[2.0 + 5.0 * (row["count"] / most) ** 0.5 for row in bins]))
        rows.append([name, figures["n"], figures["mean_confidence"], figures["right"],
                     figures["equal_width"], figures["equal_mass"]])
    return (line_chart(lines, Axes("stated confidence", "share right"), "reliability of the confidence")
            + table(("confidence", "defects", "mean", "right", "ECE, width", "ECE, mass"), rows))


def alarm_chart(result: Mapping[str, Any]) -> str:
    """Escapes over false alarms with the bounds of the escapes; empty where there is no curve."""
    curve = result["alarm_curve"]
    if curve is None:
        return ""
    points = [(row["false_alarm"], row["escape"]) for row in curve["points"]]
    band = [(row["false_alarm"], row["escape_low"], row["escape_high"]) for row in curve["points"]]
    rows = [[row["limit"], row["false_alarm"], row["escape"], row["escape_low"], row["escape_high"]]
            for row in curve["at"]]
    return (line_chart([Line("pictures", points, band)],
                       Axes("good parts with an alarm", "defective parts that escape"),
                       "escapes over false alarms")
            + table(("at most", "false alarms", "escapes", "95 % from", "to"), rows))


def size_section(result: Mapping[str, Any]) -> str:
    """Size errors where the truth is known."""
    sizes = result["size_error_mm"]
    if not sizes:
        return ""
    rows = [[name, row["unit"], row["n"], row["unmeasured"], row["median"], row["p95"], row["bias"],
             row["inside"] and row["inside"]["rate"]] for name, row in sizes.items()]
    head = ("", "unit", "measured", "not", "median", "p95", "bias", "inside stated")
    return table(head, rows, "size errors")


def against_section(result: Mapping[str, Any]) -> str:
    """The other bundle beside this one, paired."""
    other = result["against"]
    if not other:
        return ""
    unit = trusted_unit(other)
    rows = [[name, row["first"], row["second"], row["difference"],
             *(row.get(unit) or row["group"])]  # each part may be a group of its own
            for name, row in other["difference"].items()]
    tests = [[name, row["both"], row["only_first"], row["only_second"], row["neither"], row["p"]]
             for name, row in other["mcnemar"].items()]
    return (table(("", "this", "other", "difference", "95 % from", "to"), rows, f"resampled by {unit}")
            + table(("right", "both", "only this", "only other", "neither", "p"), tests, "McNemar, exact"))


def cost_section(result: Mapping[str, Any]) -> str:
    """Milliseconds by stage."""
    rows = [[name, value, result["ms_per_part_p95"][name]] for name, value in result["ms_per_part"].items()]
    return table(("stage", "mean ms", "95th percentile"), rows)


def _cell(value: object) -> str:
    if value is None:
        return '<td class="n">–</td>'
    if isinstance(value, float):
        return f'<td class="n">{value:.4g}</td>' if abs(value) >= 10 else f'<td class="n">{value:.4f}</td>'
    if isinstance(value, int):
        return f'<td class="n">{value}</td>'
    return f"<td>{html.escape(str(value))}</td>"


def _prf(row: Mapping[str, Any]) -> list[Any]:
    return [row["precision"], row["recall"], row["f"]]
