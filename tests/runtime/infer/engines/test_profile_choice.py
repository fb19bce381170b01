"""The profile of a call, and the padding that makes one fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orinspect.runtime.errors import BundleError, EngineError
from orinspect.runtime.infer.bundle import Bundle
from orinspect.runtime.infer.engines.onnxruntime_engine import OnnxruntimeEngine
from orinspect.runtime.infer.engines.profile_choice import (
    Profile,
    Range,
    component_plans,
    least_columns,
    least_slots,
    left_padded,
    most_rows,
    profile_for,
    run_in_pieces,
    with_slots,
)
from orinspect.runtime.infer.sequence import mask_for
from orinspect.tests.decoder_feeds import feeds_of
from orinspect.tests.small_bundle import write_small_bundle


def decoder_profile(name: str, rows: tuple[int, int], k: tuple[int, int], past: tuple[int, int]) -> Profile:
    ends = [(rows[end], k[end], past[end]) for end in (0, 1)]
    shapes = [{"embeds": (b, k, 8), "past_kv": (b, 2, 2, 1, p, 4), "mask": (b, k, p + k)} for b, k, p in ends]
    return Profile(name, {key: Range(shapes[0][key], shapes[1][key], shapes[1][key]) for key in shapes[0]})


PROFILES = [
    decoder_profile("one", (1, 4), (1, 1), (32, 128)),
    decoder_profile("few", (1, 4), (4, 8), (32, 128)),
    decoder_profile("prefill", (1, 16), (30, 60), (32, 32)),
]


def shapes(rows: int, k: int, past: int) -> dict[str, tuple[int, ...]]:
    return {"embeds": (rows, k, 8), "past_kv": (rows, 2, 2, 1, past, 4), "mask": (rows, k, past + k)}


@pytest.mark.parametrize(
    ("call", "chosen"), [((1, 1, 32), 0), ((4, 1, 128), 0), ((2, 5, 96), 1), ((16, 60, 32), 2)]
)
def test_the_first_profile_that_holds_a_call_takes_it(call: tuple[int, int, int], chosen: int) -> None:
    assert profile_for(PROFILES, shapes(*call), "decoder") == chosen
    assert most_rows(PROFILES) == 16


def test_a_call_that_no_profile_takes_says_what_there_is() -> None:
    with pytest.raises(EngineError, match=r"no profile takes embeds \[5, 1, 8\].*few.*export the bundle"):
        profile_for(PROFILES, shapes(5, 1, 32), "decoder")
    with pytest.raises(EngineError, match="no profile takes"):  # another rank is no match either
        profile_for(PROFILES, {"embeds": (1, 1), "past_kv": (1,), "mask": (1,)}, "decoder")


@pytest.mark.parametrize(
    ("rows", "k", "past", "least", "expected"),
    [
        (1, 1, 32, 1, 1),
        (1, 2, 32, 1, 4),
        (1, 5, 32, 1, 5),
        (1, 1, 32, 2, 4),
        (4, 9, 32, 1, 30),
        (8, 1, 64, 1, 1),
    ],
)
def test_a_short_call_is_widened_to_the_next_profile(
    rows: int, k: int, past: int, least: int, expected: int
) -> None:
    """(8, 1, 64): no profile has 8 rows at that past, so nothing is widened and `profile_for` can say so."""
    assert least_columns(PROFILES, rows, k, past, least) == expected


def test_a_padded_call_gives_what_the_call_gives(tmp_path: Path) -> None:
    """On the real decoder graph: rows of unequal length, a past, DeepStack features."""
    bundle = write_small_bundle(tmp_path)
    feeds = feeds_of(bundle.shape, 2, 3, 32, [9, 20])
    feeds["mask"] = mask_for([9, 20], [3, 2], 32, 3)  # the second row is padded already
    wide = left_padded(feeds, 8)
    assert {name: array.shape[1] for name, array in wide.items() if name != "deepstack"} == {
        "embeds": 8,
        "cos": 8,
        "sin": 8,
        "mask": 8,
        "past_kv": bundle.shape.layers,
    }
    assert (wide["mask"] == mask_for([9, 20], [3, 2], 32, 8)).all()
    with OnnxruntimeEngine(bundle.graph("decoder"), threads=1) as engine:
        expected, padded = engine.run(feeds), engine.run(wide)
    for row, count in enumerate((3, 2)):
        np.testing.assert_allclose(
            padded["hidden"][row, -count:], expected["hidden"][row, -count:], atol=1e-5
        )
        np.testing.assert_allclose(
            padded["new_kv"][row, ..., -count:, :], expected["new_kv"][row, ..., -count:, :], atol=1e-5
        )
    assert left_padded(feeds, 3).keys() == feeds.keys()
    careless = dict(wide, mask=np.where(wide["mask"] < 0, np.float32(0), wide["mask"]))
    with OnnxruntimeEngine(bundle.graph("decoder"), threads=1) as engine:  # so that the test can fail
        assert np.abs(engine.run(careless)["hidden"][0, -1] - expected["hidden"][0, -1]).max() > 1e-3


@pytest.mark.parametrize(
    ("rows", "k", "past", "expected"),
    [(1, 1, 9, 32), (1, 1, 33, 33), (4, 8, 0, 32), (16, 60, 9, 32), (4, 1, 200, 200)],
)
def test_a_short_past_is_widened_to_the_next_profile(rows: int, k: int, past: int, expected: int) -> None:
    assert least_slots(PROFILES, rows, k, past) == expected


def test_empty_slots_change_nothing(tmp_path: Path) -> None:
    bundle = write_small_bundle(tmp_path)
    feeds = feeds_of(bundle.shape, 2, 3, 9, [9, 4])
    wide = with_slots(feeds, 32)
    assert wide["past_kv"].shape[4] == 32 and (wide["mask"] == mask_for([9, 4], [3, 3], 32, 3)).all()
    with OnnxruntimeEngine(bundle.graph("decoder"), threads=1) as engine:
        expected, padded = engine.run(feeds), engine.run(wide)
    for name in expected:
        np.testing.assert_allclose(padded[name], expected[name], atol=1e-5)
    assert with_slots(feeds, 9)["mask"] is feeds["mask"]


def test_a_long_call_goes_in_pieces(tmp_path: Path) -> None:
    """75 tokens and a past of 9 slots, where a profile takes 60 or 8 at most: every piece fits one."""
    bundle = write_small_bundle(tmp_path)
    feeds = feeds_of(bundle.shape, 2, 75, 9, [9, 4])
    feeds["mask"] = mask_for([9, 4], [75, 70], 9, 75)
    pieces: list[tuple[int, ...]] = []
    with OnnxruntimeEngine(bundle.graph("decoder"), threads=1) as engine:

        def run(piece: Any) -> Any:
            shapes = {name: (*piece[name].shape[:2], 8) for name in ("embeds",)}
            shapes["past_kv"] = (2, 2, 2, 1, piece["past_kv"].shape[4], 4)
            shapes["mask"] = piece["mask"].shape
            pieces.append((profile_for(PROFILES, shapes, "decoder"), *shapes["mask"][1:]))
            return engine.run(piece)

        expected, found = engine.run(feeds), run_in_pieces(run, feeds, PROFILES)
    assert pieces == [(2, 60, 92), (1, 8, 77), (1, 7, 84)]
    for row, count in enumerate((75, 70)):
        np.testing.assert_allclose(found["hidden"][row, -count:], expected["hidden"][row, -count:], atol=2e-5)
        np.testing.assert_allclose(
            found["new_kv"][row, ..., -count:, :], expected["new_kv"][row, ..., -count:, :], atol=2e-5
        )
    with pytest.raises(EngineError, match="no profile takes"):
        run_in_pieces(run, feeds_of(bundle.shape, 2, 3, 200, [9, 4]), PROFILES)


def table() -> dict[str, Any]:
    def sizes(k: int) -> dict[str, list[object]]:
        return {"embeds": [1, k, 8], "past_kv": [1, "layers", 2, 1, 32, 4]}

    low, high = sizes(1), sizes(4)
    return {
        "schema": "orinspect.tensorrt/1.0",
        "components": {
            "decoder": {
                "parts": {"1": ["decoder.tensorrt.onnx"], "2": ["a.onnx", "b.onnx"]},
                "layers": {"1": [3], "2": [2, 1]},
                "least_k": 1,
                "profiles": [
                    {
                        "name": "all",
                        "inputs": {key: {"min": low[key], "opt": low[key], "max": high[key]} for key in low},
                    }
                ],
                "int8_linears": ["layers.0.mlp.up_proj"],
                "float_linears": [],
            },
            "vision": {
                "parts": {"1": ["vision.tensorrt.onnx"]},
                "profiles": [{"name": "one", "inputs": {"patches": {"min": [1], "opt": [1], "max": [2]}}}],
                "int8_linears": [],
                "float_linears": [],
            },
        },
    }


def test_the_bundle_says_what_is_built(tmp_path: Path) -> None:
    (tmp_path / "tensorrt.json").write_text(json.dumps(table()))
    found = component_plans(tmp_path)
    decoder = found["decoder"]
    assert decoder.files(2) == ("a.onnx", "b.onnx") and decoder.layers[2] == (2, 1)
    assert decoder.profiles(["past_kv"], 2)[0].inputs["past_kv"].most == (1, 2, 2, 1, 32, 4)
    assert set(decoder.profiles(None, 3)[0].inputs) == {"embeds", "past_kv"}
    assert found["vision"].files(2) == ("vision.tensorrt.onnx",)  # never cut
    with pytest.raises(BundleError, match="can be built in 1, 2 parts, not in 3"):
        decoder.files(3)
    with pytest.raises(BundleError, match="how many decoder layers"):
        decoder.profiles(None)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: entry.update(schema="other/1.0"),
        lambda entry: entry["components"]["decoder"].pop("profiles"),
        lambda entry: entry["components"]["decoder"]["parts"].pop("1"),
        lambda entry: entry["components"]["decoder"]["profiles"].clear(),
    ],
)
def test_a_broken_table_is_refused_by_name(damage: Any, tmp_path: Path) -> None:
    broken = table()
    damage(broken)
    (tmp_path / "tensorrt.json").write_text(json.dumps(broken))
    with pytest.raises(BundleError, match=r"tensorrt\.json cannot be read"):
        component_plans(tmp_path)


def test_a_bundle_without_tensorrt_graphs_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="exported without TensorRT graphs"):
        component_plans(tmp_path)


def test_the_profiles_of_an_export_take_what_the_decoder_asks(tmp_path: Path) -> None:
    """Every call of a real decode run finds a profile in the table that the exporter writes."""
    pytest.importorskip("onnx")
    from orinspect.tests.device_bundle import write_device_bundle

    bundle = write_device_bundle(tmp_path)
    calls = decode_calls(bundle)
    plan = component_plans(bundle.path)["decoder"]
    profiles = plan.profiles(None, bundle.shape.layers)
    used = {profiles[profile_for(profiles, call, "decoder")].name for call in calls}
    assert "prefill" in used and len(used) > 1, used


def decode_calls(bundle: Bundle) -> list[dict[str, tuple[int, ...]]]:
    """Input shapes of the decoder's calls while it answers six tiles."""
    from orinspect.runtime.infer.decode import Decoder

    calls: list[dict[str, tuple[int, ...]]] = []

    class Listening(OnnxruntimeEngine):
        def run(self, feeds: Any) -> dict[str, Any]:
            calls.append({name: array.shape for name, array in feeds.items()})
            return super().run(feeds)

    rng, shape = np.random.default_rng(1), bundle.shape
    image = rng.standard_normal((6, shape.tokens, shape.hidden)).astype(np.float32)
    deepstack = np.zeros((6, len(shape.deepstack), shape.tokens, shape.hidden), np.float32)
    with (
        Listening(bundle.graph("decoder"), threads=1) as decoder,
        OnnxruntimeEngine(bundle.graph(f"head_schema.{bundle.recipe_ids[0]}"), threads=1) as head,
    ):
        Decoder(shape, bundle.recipe(), bundle.embeddings, decoder, head, clock=lambda: 0.0).answers(
            image, deepstack
        )
    return calls
