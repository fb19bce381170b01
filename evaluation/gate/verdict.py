"""Measurements against the recipe's limits, and the sentence that says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...runtime.errors import AccuracyError
from ...runtime.recipe import Accuracy
from .agreement import Agreement
from .differences import ComponentError
from .scores import FChange

if TYPE_CHECKING:
    from .gate import GateReport

LEAST_DECISIONS = 20
"""Choices below which a share of equal ones says nothing."""
NAMED = 8
"""Linears that the error names; more is no advice."""


def failures(
    limits: Accuracy,
    pictures: Mapping[str, tuple[Mapping[str, ComponentError], Agreement, FChange | None]],
) -> tuple[str, ...]:
    """What lies below the limits, set of pictures by set of pictures.

    One answer of one defect is never proof: on few labelled parts it moves F by more than the limit, so a
    loss counts when it exceeds the limit and 1.5 answers.
    """
    found = []
    for name, (components, tokens, change) in pictures.items():
        where = f"on {name} pictures"
        for component, error in components.items():
            if not error.cosine >= limits.min_cosine:  # NaN fails too
                found.append(
                    f"{component}: cosine {error.cosine:.4f} of {error.output} {where},"
                    f" at least {limits.min_cosine:g} is asked"
                )
        if limits.min_token_agreement and tokens.decisions < LEAST_DECISIONS:
            found.append(
                f"{tokens.decisions} choices under the guide {where} are too few to judge, at least"
                f" {LEAST_DECISIONS} are asked; give more parts with defects"
            )
        if tokens.share < limits.min_token_agreement:
            found.append(
                f"{tokens.agreed} of {tokens.decisions} tokens ({tokens.share:.1%}) as float {where},"
                f" at least {limits.min_token_agreement:.1%} is asked"
            )
        if change is not None and -change.change > max(limits.max_f_loss, 1.5 * change.resolution):
            found.append(
                f"F {change.f_float:.3f} in float and {change.f_int8:.3f} in INT8 {where},"
                f" at most {100 * limits.max_f_loss:g} points may be lost"
            )
    return tuple(found)


def check(report: GateReport, kept: Sequence[str] = ()) -> None:
    """AccuracyError when a limit does not hold: what fails, which linears to keep float, and the commands.

    `kept` are linears that the user keeps float already: the advice goes on from there.
    """
    if report.passed:
        return
    failed = f"recipe {report.recipe}: {_spoken(report.precision)} is below the limits of [accuracy]:"
    failed += f" {'; '.join(report.failures)};"
    if report.precision != "int8":
        raise AccuracyError(
            f"{failed} see whether the pictures are those that the model knows, or take --precision float32"
        )
    names = [*kept, *report.worst_linears[:NAMED]]
    linears = ", ".join(
        f"{one.component}/{one.linear} ({one.mode}, error {one.error:.2f})" for one in report.culprits[:NAMED]
    )
    advice = (
        f"the linears that lose most: {linears}; keep them float with --keep-float {','.join(names)},"
        if report.culprits
        else "no linear stands out;"
    )
    raise AccuracyError(f"{failed} {advice} or export all of it with --precision float16")


def _spoken(precision: str) -> str:
    return "INT8" if precision == "int8" else precision
