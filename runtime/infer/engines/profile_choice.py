"""Which optimisation profile takes a call, and what is padded so that one does.

The profiles are data: `tensorrt.json` of the bundle, written by export/tensorrt/profiles.py. A decoder call
of fewer new tokens than any profile holds is padded on the left, as a short row beside a long one is: a
padded token is masked for everybody and looks at itself alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import BundleError, EngineError
from ..sequence import MASKED
from .engine import FloatArray

FILE_NAME = "tensorrt.json"
SCHEMA = "orinspect.tensorrt/1."
LAYERS = "layers"
"""Stands in the profiles for the layers of a part of the decoder."""

Dims = tuple[int, ...]
Run = Callable[[Mapping[str, FloatArray]], Mapping[str, FloatArray]]


@dataclass(frozen=True)
class Range:
    """Least, most likely and largest dimensions of one input."""

    least: Dims
    best: Dims
    most: Dims

    def holds(self, dimensions: Sequence[int]) -> bool:
        """Whether an array of these dimensions may be fed."""
        return len(dimensions) == len(self.least) and all(
            low <= size <= high for low, size, high in zip(self.least, dimensions, self.most, strict=True)
        )


@dataclass(frozen=True)
class Profile:
    """One optimisation profile: input -> range."""

    name: str
    inputs: Mapping[str, Range]

    def holds(self, shapes: Mapping[str, Sequence[int]]) -> bool:
        """Whether a call with these input shapes may use it."""
        return all(name in shapes and known.holds(shapes[name]) for name, known in self.inputs.items())


@dataclass(frozen=True)
class ComponentPlan:
    """What `tensorrt.json` says of one component. `parts`: number of parts -> their graph files, in order;
    `layers`: number of parts -> decoder layers of each; the linears are MatMul names.
    """

    name: str
    parts: Mapping[int, tuple[str, ...]]
    layers: Mapping[int, tuple[int, ...]]
    table: tuple[Mapping[str, Any], ...]
    int8_linears: tuple[str, ...]
    float_linears: tuple[str, ...]
    least_k: int

    def files(self, parts: int) -> tuple[str, ...]:
        """The graph files for `parts` parts, the whole graph where the component is never cut."""
        if parts in self.parts:
            return self.parts[parts]
        if len(self.parts) == 1:
            return self.parts[1]
        known = ", ".join(map(str, sorted(self.parts)))
        raise BundleError(f"{self.name} can be built in {known} parts, not in {parts}; give one of these")

    def profiles(self, inputs: Iterable[str] | None, layers: int | None = None) -> tuple[Profile, ...]:
        """The profiles of a graph that has these inputs (None: all), and `layers` layers of the decoder."""
        present = None if inputs is None else set(inputs)
        return tuple(
            Profile(
                str(entry["name"]),
                {
                    name: Range(*(_dims(values[key], layers) for key in ("min", "opt", "max")))
                    for name, values in entry["inputs"].items()
                    if present is None or name in present
                },
            )
            for entry in self.table
        )


def component_plans(bundle: Path) -> dict[str, ComponentPlan]:
    """Component -> what is to be built, from the `tensorrt.json` of a bundle folder.

    BundleError when the bundle has none (it was exported for the CPU alone) or it is not one.
    """
    place = bundle / FILE_NAME
    try:
        table = json.loads(place.read_text(encoding="utf-8"))
        if not str(table["schema"]).startswith(SCHEMA):
            raise ValueError(f"schema {table['schema']!r}")
        return {name: _component(name, entry) for name, entry in table["components"].items()}
    except FileNotFoundError as error:
        raise BundleError(
            f"{bundle} has no {FILE_NAME}: it was exported without TensorRT graphs; export it again with "
            "this version of orinspect"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{place} cannot be read ({error!r}); export the bundle again") from error


def profile_for(profiles: Sequence[Profile], shapes: Mapping[str, Sequence[int]], who: str) -> int:
    """Index of the first profile that holds these shapes; EngineError says what there is instead."""
    for index, profile in enumerate(profiles):
        if profile.holds(shapes):
            return index
    asked = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    known = "; ".join(
        f"{profile.name}: "
        + ", ".join(f"{name} {list(r.least)}..{list(r.most)}" for name, r in profile.inputs.items())
        for profile in profiles
    )
    raise EngineError(
        f"{who}: no profile takes {asked} (there are {known}); export the bundle with the recipe that asks "
        "for this, then run: orinspect engines build"
    )


def most_rows(profiles: Sequence[Profile]) -> int:
    """The largest batch that any profile takes."""
    return max(range_.most[0] for profile in profiles for range_ in profile.inputs.values())


def least_columns(profiles: Sequence[Profile], rows: int, columns: int, slots: int, least_k: int = 1) -> int:
    """The fewest new tokens, `columns` or more, at which a decoder profile takes this batch and past.

    `columns` itself when none does, so that `profile_for` can say why.
    """
    wanted = max(columns, least_k)
    fitting = []
    for profile in profiles:
        embeds, past = profile.inputs["embeds"], profile.inputs["past_kv"]
        if (
            embeds.least[0] <= rows <= embeds.most[0]
            and past.least[4] <= slots <= past.most[4]
            and wanted <= embeds.most[1]
        ):
            fitting.append(max(wanted, embeds.least[1]))
    return min(fitting, default=columns)


def least_slots(profiles: Sequence[Profile], rows: int, columns: int, slots: int) -> int:
    """The fewest past slots, `slots` or more, at which a decoder profile takes this batch and so many tokens.

    `slots` itself when none does, so that `profile_for` can say why.
    """
    fitting = []
    for profile in profiles:
        embeds, past = profile.inputs["embeds"], profile.inputs["past_kv"]
        if embeds.least[0] <= rows <= embeds.most[0] and columns <= embeds.most[1] and slots <= past.most[4]:
            fitting.append(max(slots, past.least[4]))
    return min(fitting, default=slots)


def with_slots(feeds: Mapping[str, FloatArray], slots: int) -> dict[str, FloatArray]:
    """A decoder's feeds with `slots` past slots; the new ones are empty, behind the others, and masked."""
    before = feeds["past_kv"].shape[4]
    extra = slots - before
    if extra <= 0:
        return dict(feeds)
    mask = feeds["mask"]
    empty = np.full((*mask.shape[:2], extra), MASKED, np.float32)
    past = np.pad(feeds["past_kv"], [(0, extra if axis == 4 else 0) for axis in range(6)])
    wide = np.concatenate([mask[:, :, :before], empty, mask[:, :, before:]], axis=2)
    return {**feeds, "past_kv": past, "mask": wide}


def left_padded(feeds: Mapping[str, FloatArray], columns: int) -> dict[str, FloatArray]:
    """A decoder's feeds (past_kv or not among them) with `columns` new tokens, the padding on the left.

    embeds [B, K, H], deepstack [B, D, K, H], cos and sin [B, K, hd], mask [B, K, P+K].
    """
    before = feeds["embeds"].shape[1]
    extra = columns - before
    if extra <= 0:
        return dict(feeds)
    axes = {"embeds": 1, "deepstack": 2, "cos": 1, "sin": 1}
    padded = {
        name: np.pad(array, [(extra if axis == axes[name] else 0, 0) for axis in range(array.ndim)])
        if name in axes
        else array
        for name, array in feeds.items()
    }
    mask = feeds["mask"]
    rows, slots = mask.shape[0], mask.shape[2] - before
    wide = np.full((rows, columns, slots + columns), MASKED, np.float32)
    wide[:, extra:, :slots] = mask[:, :, :slots]
    wide[:, extra:, slots + extra :] = mask[:, :, slots:]
    own = np.arange(extra)
    wide[:, own, slots + own] = 0.0
    padded["mask"] = wide
    return padded


def most_columns(profiles: Sequence[Profile], rows: int, slots: int) -> int:
    """The most new tokens that a decoder profile takes with this batch and past; 0 when none does."""
    fitting = [
        profile.inputs["embeds"].most[1]
        for profile in profiles
        if rows <= profile.inputs["embeds"].most[0] and slots <= profile.inputs["past_kv"].most[4]
    ]
    return max(fitting, default=0)


def run_in_pieces(
    run: Run, feeds: Mapping[str, FloatArray], profiles: Sequence[Profile], least_k: int = 1
) -> dict[str, FloatArray]:
    """A decoder call with its past among the feeds, of any length: hidden and new_kv of all its tokens.

    It is padded to a shape that a profile takes; one longer than the profiles goes piece by piece, each with
    the keys and values of those before it as further past. EngineError when no profile takes the batch or
    the past.
    """
    feeds = dict(feeds)
    rows, columns = feeds["embeds"].shape[:2]
    slots = feeds["past_kv"].shape[4]
    hidden, new_kv, past, done = [], [], feeds["past_kv"], 0
    while done < columns:
        # 1 where no profile takes the past, so that `profile_for` can say why
        count = min(columns - done, max(most_columns(profiles, rows, slots + done), 1))
        piece = {name: feeds[name][:, done : done + count] for name in ("embeds", "cos", "sin")}
        if "deepstack" in feeds:
            piece["deepstack"] = feeds["deepstack"][:, :, done : done + count]
        piece["past_kv"] = past
        piece["mask"] = feeds["mask"][:, done : done + count, : slots + done + count]
        taken = with_slots(piece, least_slots(profiles, rows, count, slots + done))
        wide = least_columns(profiles, rows, count, taken["past_kv"].shape[4], least_k)
        outputs = run(left_padded(taken, wide))
        hidden.append(outputs["hidden"][:, wide - count :])
        new_kv.append(outputs["new_kv"][:, :, :, :, wide - count :])
        past = np.concatenate([past, new_kv[-1]], axis=4)
        done += count
    return {"hidden": np.concatenate(hidden, axis=1), "new_kv": np.concatenate(new_kv, axis=4)}


def _component(name: str, entry: Mapping[str, Any]) -> ComponentPlan:
    parts = {int(count): tuple(map(str, files)) for count, files in entry["parts"].items()}
    layers = {int(count): tuple(map(int, counts)) for count, counts in entry.get(LAYERS, {}).items()}
    if not parts or 1 not in parts or not entry["profiles"]:
        raise ValueError(f"{name} lists no graph or no profile")
    return ComponentPlan(
        name,
        parts,
        layers,
        tuple(entry["profiles"]),
        tuple(entry["int8_linears"]),
        tuple(entry["float_linears"]),
        int(entry.get("least_k", 1)),
    )


def _dims(values: Sequence[int | str], layers: int | None) -> Dims:
    if LAYERS in values and layers is None:
        raise BundleError(f"{FILE_NAME} does not say how many decoder layers a part has; export again")
    return tuple(int(layers or 0) if value == LAYERS else int(value) for value in values)
