"""Whether a part meets the standard that its recipe names: yes, no, or not decidable, with the numbers.

Two decision rules (U: expanded uncertainty, k = 2; T: width of the tolerance, from 0 where a deviation is
compared):
  ISO 14253-1   conforms when value - U and value + U are inside the limits, does not conform when both are
                outside on one side, else not decidable. U as guard band is the rule of the editions before
                2017; the edition of 2017 takes 0.83 U for a conformance probability of 95 %, so this is the
                stricter one.
  simple        the value alone (simple acceptance, JCGM 106, 8.2)
Under both nothing is shown to conform when U / T exceeds the recipe's max_uncertainty_ratio, and what lies
outside by more than U does not conform however large U is. The worst of the compared defects decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from ...limits import ComplianceRule
from ...report import Compared, Compliance, Conformity
from ...tolerance.standards import Tolerance
from ..measure.measurement import Measurement
from .interval import Interval, exact, interval_of, shown

RULES = {
    "ISO 14253-1": "ISO 14253-1, guard band of the expanded uncertainty (k = 2)",
    "simple": "simple acceptance (JCGM 106)",
}
ORDER: tuple[Conformity, ...] = ("conforms", "not_decidable", "does_not_conform")
"""From best to worst: the worst defect decides."""


@dataclass(frozen=True)
class Sized:
    """One defect as compliance sees it."""

    defect_id: str
    type: str
    measurement: Measurement | None


@dataclass(frozen=True)
class _Limits:
    """What a value must keep: `lower` None where a deviation has only an upper limit; `width` is T."""

    lower: Decimal | None
    upper: Decimal

    @property
    def width(self) -> Decimal:
        return self.upper if self.lower is None else self.upper - self.lower

    @property
    def all(self) -> tuple[Decimal, ...]:
        return (self.upper,) if self.lower is None else (self.lower, self.upper)


def compliance_of(
    rule: ComplianceRule | None, defects: Sequence[Sized], *, is_uncertainty_known: bool = True
) -> Compliance:
    """The statement for a part with these defects; `is_uncertainty_known`: of the pixel scale."""
    if rule is None:
        return Compliance()
    tolerance = rule.tolerance
    limits = _limits_of(rule, tolerance)
    counted = [each for each in defects if not rule.types or each.type in rule.types]
    statements = [_statement(rule, tolerance, limits, each, is_uncertainty_known) for each in counted]
    return max(statements, key=_badness, default=_statement_of_none(rule, tolerance))


def compliance_of_unseen(rule: ComplianceRule | None, why: str) -> Compliance:
    """The statement for a part that was not inspected."""
    return Compliance() if rule is None else _made(rule, rule.tolerance, "not_decidable", why)


def undecided(compliance: Compliance, reasons: Iterable[str]) -> Compliance:
    """The statement of a part that a person must see first: what may be on it is not known."""
    if compliance.decision != "conforms":
        return compliance
    why = f"not decidable before a person has seen the part ({', '.join(reasons)}); else: {compliance.why}"
    return replace(compliance, decision="not_decidable", why=why)


def decision_on(value: Interval, lower: Decimal | None, upper: Decimal, rule: ComplianceRule) -> Conformity:
    """One value against its limits; at a limit it is inside."""
    limits = _Limits(lower, upper)
    if value.low > upper or (lower is not None and value.high < lower):
        return "does_not_conform"
    is_fine_enough = value.uncertainty <= exact(rule.max_uncertainty_ratio) * limits.width
    if rule.rule == "ISO 14253-1":
        is_inside = value.high <= upper and (lower is None or value.low >= lower)
        return "conforms" if is_inside and is_fine_enough else "not_decidable"
    if not is_fine_enough:
        return "not_decidable"
    if value.value > upper:
        return "does_not_conform"
    if value.is_least:  # it may go on beyond the picture
        return "not_decidable"
    return "conforms" if lower is None or value.value >= lower else "does_not_conform"


def _limits_of(rule: ComplianceRule, tolerance: Tolerance) -> _Limits:
    if rule.compared == "deviation":
        return _Limits(None, tolerance.deviation_mm)
    return _Limits(*tolerance.zone_mm(rule.zone))


def _statement(
    rule: ComplianceRule, tolerance: Tolerance, limits: _Limits, defect: Sized, is_uncertainty_known: bool
) -> Compliance:
    """What one defect says."""
    value = interval_of(defect.measurement, rule.of)
    named = f"{rule.of} of {defect.defect_id} ({defect.type})"
    if not isinstance(value, Interval):
        return _made(rule, tolerance, "not_decidable", f"the {named} is not known ({value})")
    if not is_uncertainty_known:
        why = f"the {named} is {value.value:.6g} mm, and the uncertainty of the pixel scale is not known"
        return _made(rule, tolerance, "not_decidable", f"{why}: calibrate the scale")
    decision = decision_on(value, limits.lower, limits.upper, rule)
    ratio = value.uncertainty / limits.width
    compared = Compared(
        defect_id=defect.defect_id,
        quantity=rule.of,
        value_mm=float(value.value),
        expanded_uncertainty_mm=float(value.uncertainty),
        lower_mm=None if limits.lower is None else float(limits.lower),
        upper_mm=float(limits.upper),
        uncertainty_ratio=float(ratio),
    )
    lower = "" if limits.lower is None else f"{limits.lower:f} to "
    allowed = f"{tolerance.grade} at {tolerance.nominal_mm:g} mm allows {lower}{limits.upper:f} mm"
    why = f"the {named} is {shown(value, limits.all)} (k = 2), {allowed}: {decision.replace('_', ' ')}"
    if decision == "not_decidable":
        why += f", U/T is {ratio:.2g} (at most {rule.max_uncertainty_ratio:g} to show conformity)"
    return replace(_made(rule, tolerance, decision, why), compared=compared)


def _statement_of_none(rule: ComplianceRule, tolerance: Tolerance) -> Compliance:
    """Nothing of the compared types was found: no deviation, but no size of a feature either."""
    kinds = f"defect of type {' or '.join(rule.types)}" if rule.types else "defect"
    if rule.compared == "deviation":
        return _made(rule, tolerance, "conforms", f"no {kinds} was found")
    return _made(rule, tolerance, "not_decidable", f"no {kinds} was found: the feature was not measured")


def _made(rule: ComplianceRule, tolerance: Tolerance, decision: Conformity, why: str) -> Compliance:
    return Compliance(
        standard=tolerance.standard,
        rule=RULES[rule.rule],
        why=why if tolerance.note is None else f"{why} ({tolerance.note})",
        decision=decision,
        grade=tolerance.grade,
        nominal_mm=tolerance.nominal_mm,
    )


def _badness(statement: Compliance) -> tuple[int, float]:
    """Worst decision first, then what is unknown, then the value farthest beyond its limits."""
    assert statement.decision is not None
    compared = statement.compared
    if compared is None:
        return ORDER.index(statement.decision), float("inf")
    over = compared.value_mm - compared.upper_mm
    under = float("-inf") if compared.lower_mm is None else compared.lower_mm - compared.value_mm
    return ORDER.index(statement.decision), max(over, under)
