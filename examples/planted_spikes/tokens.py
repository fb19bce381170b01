"""What the decoder's MLPs of a checkpoint see, token by token, on scenes: where spikes can be planted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orinspect.calibration.linears import probe_from_model
from orinspect.calibration.sessions import Session
from orinspect.evaluation.sets.source import rows_from_source
from orinspect.export.checkpoint_export import export_checkpoint
from orinspect.export.graph.checkpoint import weights_from_folder
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.engine import Dimensions, Engine, FloatArray, engine_from_bundle
from orinspect.runtime.infer.inspector import Inspector

Floats = npt.NDArray[np.float32]
SCENES = "scenes:pcb?seed=61000&parts=10"
"""Boards on which the directions are fitted; calibration, gate and scores see others."""
TEXT, PICTURE, DELIMITER = 0, 1, 2


@dataclass(frozen=True)
class Tokens:
    """Every token that the decoder is fed, in order.

    kind [tokens]: TEXT, PICTURE or DELIMITER (the first token behind the picture). shows_defect [tokens]: an
    image token that the dense head votes for. mlp_inputs: a layer [tokens, H], behind its norm, whose weights
    are mlp_norms [H]. product_largest: a layer's largest value in front of down_proj.
    """

    kind: npt.NDArray[np.int64]
    shows_defect: npt.NDArray[np.bool_]
    mlp_inputs: tuple[Floats, ...]
    mlp_norms: tuple[Floats, ...]
    product_largest: tuple[float, ...]

    @property
    def is_delimiter(self) -> npt.NDArray[np.bool_]:
        """[tokens]."""
        return np.asarray(self.kind == DELIMITER)


class Recorded:
    """An `Engine` that keeps its feeds."""

    def __init__(self, engine: Engine, feeds: list[dict[str, FloatArray]]) -> None:
        self._engine, self._feeds = engine, feeds
        self.inputs: Mapping[str, Dimensions] = engine.inputs
        self.outputs: Mapping[str, Dimensions] = engine.outputs

    def run(self, feeds: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
        """The engine's outputs; the feeds are copied, as the past is a view that moves on."""
        self._feeds.append({name: np.array(value) for name, value in feeds.items()})
        return self._engine.run(feeds)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def recorded_feeds(bundle: Bundle, source: str, threads: int = 1) -> dict[str, list[dict[str, FloatArray]]]:
    """Component -> what its float graph is fed while the inspector looks at the parts of `source`."""
    feeds: dict[str, list[dict[str, FloatArray]]] = {}

    def opened(of: Bundle, component: str, **options: Any) -> Engine:
        return Recorded(engine_from_bundle(of, component, **options), feeds.setdefault(component, []))

    with Inspector(bundle, None, threads, open_engine=opened) as inspector:
        for sequence, row in enumerate(rows_from_source(source)):
            inspector.inspect(row.read().frame(sequence))
    return feeds


def tokens_of(checkpoint: Path, recipe: Path, work: Path) -> Tokens:
    """Export `checkpoint` in float32 into `work` and watch its decoder on SCENES."""
    export_checkpoint(checkpoint, [recipe], SCENES, work / "float", precision="float32", threads=1)
    bundle = Bundle.open(work / "float")
    feeds = recorded_feeds(bundle, SCENES)["decoder"]
    layers = range(bundle.shape.layers)
    probe = probe_from_model(bundle.graph("decoder"))
    inputs = {linear.name: linear.input for linear in probe.linears}
    mlp = [inputs[f"layers.{layer}.mlp.gate_proj"] for layer in layers]
    products = [inputs[f"layers.{layer}.mlp.down_proj"] for layer in layers]
    kinds, defects = [], []
    seen: dict[str, list[Floats]] = {tensor: [] for tensor in (*mlp, *products)}
    with (
        Session(probe.model, folder=probe.folder, threads=1) as session,
        Session(bundle.graph("attributes"), threads=1) as dense,
    ):
        for feed in feeds:
            counted = feed["embeds"].any(axis=-1)
            values = session.run(feed, tuple(seen))
            for tensor, rows in seen.items():
                rows.append(values[tensor][counted])
            kind, shows = _kinds(feed, bundle, dense)
            kinds.append(kind[counted])
            defects.append(shows[counted])
    weights = weights_from_folder(checkpoint)
    norms = [f"model.language_model.layers.{layer}.post_attention_layernorm.weight" for layer in layers]
    return Tokens(
        np.concatenate(kinds),
        np.concatenate(defects),
        tuple(np.concatenate(seen[tensor]) for tensor in mlp),
        tuple(weights.read(name, weights.shape(name)) for name in norms),
        tuple(float(np.abs(np.concatenate(seen[tensor])).max()) for tensor in products),
    )


def _kinds(
    feed: Mapping[str, FloatArray], bundle: Bundle, dense: Session
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """kind and shows_defect [B, K] of one feed."""
    embeds, count = feed["embeds"], bundle.shape.tokens
    kind = np.full(embeds.shape[:2], TEXT)
    shows = np.zeros(embeds.shape[:2], np.bool_)
    behind = bundle.embeddings[bundle.recipe().suffix_ids[0]].astype(np.float32)
    for row in range(len(embeds)):
        places = np.flatnonzero((embeds[row] == behind).all(axis=-1))
        if len(places) == 0:  # an answer under way
            continue
        image = slice(places[0] - count, places[0])
        kind[row, image], kind[row, places[0]] = PICTURE, DELIMITER
        features = feed["deepstack"][row, :, image]
        votes = dense.run({"image_tokens": embeds[row, image][None], "deepstack": features[None]})
        shows[row, image] = votes["presence"][0] > 0
    return kind, shows
