"""Float and INT8 bundles of one checkpoint over the same pictures: what INT8 loses, kept apart by pictures.

A float16 bundle is judged in the same way.

Each set of pictures is inspected three times, all with the real inspector: by float, whose every engine call
INT8 sees too (`differences.py`); by INT8 as it will run, for F; and by INT8 led along float's answers
(`agreement.py`), on the tiles that float's dense head chose. Where it chose none, float and INT8 are asked
about every tile, so that no decoder passes unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...calibration.choice import LinearChoice
from ...runtime.errors import DataSetError
from ...runtime.infer.bundle import Bundle
from ...runtime.infer.engines.engine import Engine, FloatArray, engine_from_bundle
from ...runtime.infer.inspector import DETECTORS, Inspector
from ...runtime.recipe import Accuracy
from ..inspected import EvaluatedPart, inspected_parts
from ..sets.example import Row
from .agreement import Agreement, FloatPath
from .culprits import Culprit, culprits, is_searched
from .differences import (
    FEEDS_KEPT,
    ComparedEngine,
    ComponentError,
    Differences,
    KeptFeed,
    RememberedEngine,
    ReplayedEngine,
)
from .scores import FChange, f_change
from .verdict import failures

Say = Callable[[str, int, int], None]
OpenEngine = Callable[..., Engine]


@dataclass(frozen=True)
class PictureReport:
    """What the gate measured on one set of pictures; `f` is None where no row has a true box."""

    parts: int
    components: dict[str, ComponentError]
    tokens: Agreement
    f: FChange | None

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "parts": self.parts,
            "components": {name: error.to_json() for name, error in self.components.items()},
            "tokens": self.tokens.to_json(),
            "f": None if self.f is None else self.f.to_json(),
        }


@dataclass(frozen=True)
class GateReport:
    """The verdict on one recipe: what was measured, the limits, what lies below them, and who is at fault.

    `failures` are sentences without a full stop, empty when INT8 passes. `culprits` are the quantised linears
    by the error they make on the feeds where INT8 did worst, largest first.
    """

    recipe: str
    precision: str
    limits: Accuracy
    pictures: dict[str, PictureReport]
    failures: tuple[str, ...]
    culprits: tuple[Culprit, ...]

    @property
    def passed(self) -> bool:
        """Whether every limit holds."""
        return not self.failures

    @property
    def worst_linears(self) -> tuple[str, ...]:
        """Names of the culprits, worst first."""
        return tuple(one.linear for one in self.culprits)

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "recipe": self.recipe,
            "precision": self.precision,
            "passed": self.passed,
            "limits": {
                "min_cosine": self.limits.min_cosine,
                "min_token_agreement": self.limits.min_token_agreement,
                "max_f_loss": self.limits.max_f_loss,
            },
            "pictures": {name: report.to_json() for name, report in self.pictures.items()},
            "failures": list(self.failures),
            "worst_linears": [one.to_json() for one in self.culprits],
        }


@dataclass
class _Run:
    """What all sets of pictures of one gate share."""

    exact: Bundle
    int8: Bundle
    recipe_id: str
    threads: int
    say: Say
    open_float: OpenEngine
    worst: dict[str, list[KeptFeed]] = field(default_factory=dict)


def gate(
    float_bundle: Path,
    int8_bundle: Path,
    recipe_id: str,
    pictures: Mapping[str, Sequence[Row]],
    choices: Mapping[str, Sequence[LinearChoice]],
    *,
    threads: int = 2,
    progress: Say | None = None,
    open_float: OpenEngine = engine_from_bundle,
) -> GateReport:
    """Compare two bundles of one checkpoint under one recipe; nothing is raised for low accuracy.

    `pictures`: name of a set ("calibration", "validation") -> its rows. `choices`: component -> how its
    linears run, for the names of those at fault. `open_float` opens the float engines, for a model that does
    not fit in memory. BundleError, EngineError, DataSetError when something cannot be read or run, or when a
    set of pictures shows the model nothing: no evidence is no pass.
    """
    say = progress or _silent
    exact, int8 = (Bundle.open(path, verify=False) for path in (float_bundle, int8_bundle))
    run = _Run(exact, int8, recipe_id, threads, say, open_float)
    reports = {name: _report(run, name, rows) for name, rows in pictures.items() if rows}
    _check_seen(recipe_id, reports)
    recipe = run.exact.recipe(recipe_id).recipe
    failed = failures(recipe.accuracy, {n: (r.components, r.tokens, r.f) for n, r in reports.items()})
    at_fault: tuple[Culprit, ...] = ()
    if failed:
        graphs = {name: run.exact.graph(name) for name in choices}
        at_fault = culprits(graphs, choices, run.worst, threads=threads)
    return GateReport(recipe_id, run.int8.precision, recipe.accuracy, reports, failed, at_fault)


class _Watched:
    """One set of pictures under way: float's path, float's dense votes, and every component's differences."""

    def __init__(self, run: _Run, name: str, rows: Sequence[Row]) -> None:
        self._run, self._name, self._rows = run, name, rows
        self.path = FloatPath()
        self.differences: dict[str, Differences] = {}
        self._dense: list[dict[str, FloatArray]] = []
        self._detectors: tuple[str, ...] = DETECTORS if "attributes" in run.exact.components else ("words",)

    def float_parts(self) -> list[EvaluatedPart]:
        """Float inspects; INT8 sees every call."""
        return self._inspected(
            self._run.exact, "float", self._detectors, open_engine=self._beside_int8, select=self.path.taking
        )

    def int8_parts(self) -> list[EvaluatedPart]:
        """INT8 inspects as it will on the device."""
        return self._inspected(self._run.int8, "INT8", self._detectors)

    def lead_int8(self) -> None:
        """INT8 goes along float's path; along every tile where float's dense head sent none to the words."""
        detectors = self._detectors
        if self.path.is_empty:
            detectors = ("words",)
            self._inspected(
                self._run.exact, "tiles", detectors, open_engine=self._beside_int8, select=self.path.taking
            )
        self._inspected(
            self._run.int8, "tokens", detectors, open_engine=self._with_dense, select=self.path.leading
        )

    def _inspected(
        self, bundle: Bundle, what: str, detectors: tuple[str, ...], **seams: Any
    ) -> list[EvaluatedPart]:
        def step(done: int, total: int, _: str) -> None:
            self.path.begin(done)
            self._run.say(f"{self._name} pictures: {what}", done, total)

        self.path.begin(0)
        seams["looks_again"] = False  # it changes no defect, and float's votes are replayed in their order
        with Inspector(bundle, self._run.recipe_id, self._run.threads, detectors, **seams) as inspector:
            return inspected_parts(inspector, self._rows, step)

    def _beside_int8(self, bundle: Bundle, component: str, **options: Any) -> Engine:
        measured = engine_from_bundle(self._run.int8, component, **options)
        keeps = FEEDS_KEPT if is_searched(bundle.graph(component)) else 0
        own = self.differences.setdefault(component, Differences(keeps))
        engine = ComparedEngine(self._run.open_float(bundle, component, **options), measured, own)
        return RememberedEngine(engine, self._dense) if component == "attributes" else engine

    def _with_dense(self, bundle: Bundle, component: str, **options: Any) -> Engine:
        """INT8's engines, but float's votes, so that both decode the same tiles."""
        if component == "attributes":
            return ReplayedEngine(self._dense)
        return engine_from_bundle(bundle, component, **options)


def _report(run: _Run, name: str, rows: Sequence[Row]) -> PictureReport:
    watched = _Watched(run, name, rows)
    exact, int8 = watched.float_parts(), watched.int8_parts()
    watched.lead_int8()
    for component, own in watched.differences.items():
        kept = [*run.worst.get(component, []), *own.worst]
        run.worst[component] = sorted(kept, key=lambda feed: feed.cosine)[: len(own.worst)]
    errors = {component: own.error() for component, own in watched.differences.items()}
    return PictureReport(
        len(rows),
        {component: error for component, error in errors.items() if error is not None},
        watched.path.agreement(),
        f_change(exact, int8, run.exact.recipe(run.recipe_id).recipe.types),
    )


def _check_seen(recipe_id: str, reports: Mapping[str, PictureReport]) -> None:
    """DataSetError unless there are pictures, and of each set at least one tile reached the model."""
    if not reports:
        raise DataSetError(f"recipe {recipe_id}: the gate got no pictures; give some")
    for name, report in reports.items():
        if not report.components:
            raise DataSetError(
                f"recipe {recipe_id}: on none of the {report.parts} {name} pictures a tile differs from its"
                " template, so INT8 was not checked on them; give parts with defects, --validation takes them"
            )


def _silent(what: str, done: int, total: int) -> None:
    """The progress of a caller who gave none."""
