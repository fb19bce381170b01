"""Limits and the sentence that says what to do."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from orinspect.evaluation.gate.agreement import Agreement
from orinspect.evaluation.gate.culprits import Culprit
from orinspect.evaluation.gate.differences import ComponentError
from orinspect.evaluation.gate.gate import GateReport, PictureReport
from orinspect.evaluation.gate.scores import FChange
from orinspect.evaluation.gate.verdict import check, failures
from orinspect.runtime.errors import AccuracyError
from orinspect.runtime.recipe import Accuracy

GOOD = ComponentError("hidden", 0.9999, 0.01, 0.1, 1.0, 12)
TOKENS = Agreement(1000, 990, 700, 700, 100, 92, 0.2, 0.04)
F = FChange(0.95, 0.947, -0.003, (-0.01, 0.0), 0.003, 330, {})
LIMITS = Accuracy()


def verdict(**changed: Any) -> tuple[str, ...]:
    component = dataclasses.replace(GOOD, cosine=changed.get("cosine", 0.9999))
    agreed, decisions = changed.get("agreed", 990), changed.get("decisions", 1000)
    tokens = dataclasses.replace(TOKENS, agreed=agreed, decisions=decisions)
    f = None if changed.get("unlabelled") else dataclasses.replace(F, **changed.get("f", {}))
    return failures(LIMITS, {"validation": ({"decoder": component}, tokens, f)})


def test_within_the_limits_nothing_fails() -> None:
    assert verdict() == ()
    assert verdict(unlabelled=True) == ()


def test_each_limit_fails_by_name() -> None:
    assert verdict(cosine=0.98)[0].startswith("decoder: cosine 0.9800 of hidden on validation pictures")
    assert verdict(agreed=960)[0].startswith("960 of 1000 tokens (96.0%) as float on validation pictures")
    lost = verdict(f={"f_int8": 0.94, "change": -0.010})
    assert lost[0].startswith("F 0.950 in float and 0.940 in INT8 on validation pictures, at most 0.5 points")
    assert len(verdict(cosine=float("nan"))) == 1


def test_a_handful_of_choices_is_no_evidence() -> None:
    assert verdict(agreed=19, decisions=19)[0].startswith("19 choices under the guide on validation pictures")
    assert verdict(agreed=20, decisions=20) == ()


def test_one_answer_on_few_parts_is_no_proof() -> None:
    assert verdict(f={"change": -0.05, "resolution": 0.05}) == ()
    assert len(verdict(f={"change": -0.10, "resolution": 0.05})) == 1


def report(failed: tuple[str, ...], culprits: tuple[Culprit, ...], precision: str = "int8") -> GateReport:
    pictures = {"validation": PictureReport(4, {"decoder": GOOD}, TOKENS, F)}
    return GateReport("pcb", precision, LIMITS, pictures, failed, culprits)


def test_the_error_names_the_linears_and_the_commands() -> None:
    names = [f"layers.{index}.mlp.down_proj" for index in range(12)]
    culprits = tuple(Culprit("decoder", name, "static", 0.5, 1.0) for name in names)
    check(report((), culprits))
    with pytest.raises(AccuracyError) as raised:
        check(report(("decoder: cosine 0.9 of hidden",), culprits))
    text = str(raised.value)
    assert "decoder: cosine 0.9 of hidden" in text
    assert "decoder/layers.0.mlp.down_proj (static, error 0.50)" in text
    assert f"--keep-float {','.join(names[:8])}," in text and names[8] not in text
    assert "--precision float16" in text
    with pytest.raises(AccuracyError, match=f"--keep-float blocks.0.mlp.linear_fc2,{names[0]},"):
        check(report(("x",), culprits), ["blocks.0.mlp.linear_fc2"])  # or the next try would lose it


def test_without_a_culprit_the_fallback_remains() -> None:
    with pytest.raises(AccuracyError, match=r"no linear stands out; or export all of it with --precision"):
        check(report(("x",), ()))


def test_float16_is_not_told_to_fall_back_to_itself() -> None:
    with pytest.raises(AccuracyError, match=r"pcb: float16 is below .*: x; see .* --precision float32$"):
        check(report(("x",), (), "float16"))


def test_the_report_is_plain_json() -> None:
    told = json.loads(json.dumps(report((), ()).to_json()))
    assert told["passed"] is True
    assert told["pictures"]["validation"]["tokens"]["share"] == 0.99
    assert told["limits"] == {"min_cosine": 0.99, "min_token_agreement": 0.97, "max_f_loss": 0.005}
