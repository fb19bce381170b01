"""A bundle's `judgement.json`: what labelled pictures said, so that its confidences can be trusted.

    {"schema": "orinspect.judgement/1.0",
     "recipes": {id: {"confidence": {"defect": MODEL, "clean": MODEL, "report": {...}},
                      "novelty": {...}, "quality": {...}}}}

Every section is optional, and so is the file: a bundle without it states raw confidences and says so.
`judge/confidence.py` applies the models, `signals/novelty.py` the novelty, `capture/quality.py` the quality.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import BundleError
from ..tables import json_value

if TYPE_CHECKING:
    from .bundle import Bundle

JUDGEMENT = "judgement.json"
JUDGEMENT_SCHEMA = "orinspect.judgement/1.0"


@dataclass(frozen=True)
class ConfidenceModel:
    """Features to a probability: the logistic of a weighted sum, then steps where there are any.

    `weights`: feature -> weight, the names of `judge/confidence.py`; `knots`: (probability in, probability
    out) in rising order, straight lines between them (isotonic regression), empty for none; `low`, `high`:
    no stated probability lies beyond them, because no number of labels proves 0 or 1.
    """

    method: str
    weights: dict[str, float]
    knots: tuple[tuple[float, float], ...] = ()
    low: float = 0.0
    high: float = 1.0

    def probability(self, features: dict[str, float]) -> float:
        """Of one set of features; KeyError when the model weighs a feature that is not there."""
        score = sum(weight * features[name] for name, weight in self.weights.items())
        value = 1.0 / (1.0 + math.exp(-min(max(score, -60.0), 60.0)))
        return min(max(_between(value, self.knots), self.low), self.high)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `judgement.json`."""
        return {
            "method": self.method,
            "weights": self.weights,
            "knots": [list(knot) for knot in self.knots],
            "low": self.low,
            "high": self.high,
        }

    @classmethod
    def from_json(cls, table: dict[str, Any]) -> ConfidenceModel:
        """The model that `to_json` wrote; KeyError, TypeError or ValueError on anything else."""
        model = cls(
            str(table["method"]),
            {str(name): float(weight) for name, weight in table["weights"].items()},
            tuple((float(knot[0]), float(knot[1])) for knot in table["knots"]),
            float(table["low"]),
            float(table["high"]),
        )
        numbers = (*model.weights.values(), *itertools.chain(*model.knots))
        if not (0.0 <= model.low <= model.high <= 1.0 and all(map(math.isfinite, numbers))):
            raise ValueError(f"no probabilities come of weights {model.weights}, {model.low} to {model.high}")
        return model


@dataclass(frozen=True)
class Judgement:
    """One recipe's sections.

    `defect`: p(a reported defect is right); `clean`: p(no defect on a part without a reported one); None
    where nothing was fitted. `novelty`, `quality`: the sections as they stand in the file, None without.
    """

    defect: ConfidenceModel | None = None
    clean: ConfidenceModel | None = None
    novelty: dict[str, Any] | None = None
    quality: dict[str, Any] | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether stated confidences of defects rest on labelled pictures."""
        return self.defect is not None


UNJUDGED = Judgement()
"""Of a bundle without `judgement.json`, and of a recipe that it does not name."""


@dataclass(frozen=True)
class JudgementFile:
    """The whole file: recipe id -> section -> document."""

    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """The text of `judgement.json`; ValueError when a number is not finite."""
        table = {"schema": JUDGEMENT_SCHEMA, "recipes": self.recipes}
        return json.dumps(table, indent=1, sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, where: str = JUDGEMENT) -> JudgementFile:
        """The file that `to_json` wrote; BundleError, starting with `where`, on anything else."""
        try:
            table = json_value(text)
            schema, recipes = str(table["schema"]), dict(table["recipes"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{where} is broken ({error!r}); copy the bundle again, or calibrate it anew"
            ) from error
        if schema.split(".")[0:2] != JUDGEMENT_SCHEMA.split(".")[0:2]:
            raise BundleError(
                f"{where} has schema {schema!r}, this orinspect reads {JUDGEMENT_SCHEMA!r}; calibrate the"
                " bundle again with this version"
            )
        return cls(recipes)

    def judgement(self, recipe_id: str, where: str = JUDGEMENT) -> Judgement:
        """The sections of one recipe, UNJUDGED for one that is not named; BundleError on broken models."""
        sections = self.recipes.get(recipe_id)
        if sections is None:
            return UNJUDGED
        try:
            confidence = sections.get("confidence") or {}
            models = {
                name: None if confidence.get(name) is None else ConfidenceModel.from_json(confidence[name])
                for name in ("defect", "clean")
            }
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BundleError(
                f"{where}: the confidence of recipe {recipe_id} is broken ({error!r}); calibrate it anew"
            ) from error
        return Judgement(models["defect"], models["clean"], sections.get("novelty"), sections.get("quality"))


def judgement_file(bundle: Bundle) -> JudgementFile:
    """A bundle's `judgement.json`, an empty one where its manifest lists none; BundleError when broken."""
    if JUDGEMENT not in bundle.manifest["files"]:
        return JudgementFile()
    place = bundle.path / JUDGEMENT
    try:
        text = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{place} cannot be read ({error}); copy the bundle again") from error
    return JudgementFile.from_json(text, str(place))


def judgement_of(bundle: Bundle, recipe_id: str) -> Judgement:
    """What a bundle knows of its confidences under one recipe; UNJUDGED when it knows nothing."""
    return judgement_file(bundle).judgement(recipe_id, str(bundle.path / JUDGEMENT))


def _between(value: float, knots: tuple[tuple[float, float], ...]) -> float:
    """Linear between the knots, flat beyond the first and the last; `value` itself without knots."""
    if not knots:
        return value
    if value <= knots[0][0]:
        return knots[0][1]
    for (x1, y1), (x2, y2) in itertools.pairwise(knots):
        if value <= x2:
            return y1 + (y2 - y1) * (value - x1) / (x2 - x1) if x2 > x1 else y2
    return knots[-1][1]
