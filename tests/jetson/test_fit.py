"""The sums of docs/boards.md, and that the page says them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from orinspect.jetson.fit import (
    MIB,
    PARTS,
    TABLE,
    ModelSizes,
    boards_markdown,
    build_peak_bytes,
    known_boards,
    parts_to_build,
    plan_bytes,
    running_sum,
    sums_markdown,
)

PAGE = Path(__file__).parents[2] / "docs" / "boards.md"


def test_the_page_says_what_the_sums_say() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert sums_markdown() in text, "write the table of sums_markdown() into docs/boards.md"
    assert boards_markdown() in text, "write the table of boards_markdown() into docs/boards.md"


def test_every_board_names_its_source() -> None:
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert table["os_source"] in table["sources"] and table["read"]
    assert {board["visible_source"] for board in table["boards"]} <= set(table["sources"])
    boards, models, system = known_boards()
    assert boards[0].name == "Orin Nano 4GB" and set(models) == {"2B", "4B", "8B"}
    nominal_gb = [4, 8, 8, 16, 32, 64]
    for board, size in zip(boards, nominal_gb, strict=True):
        assert 0.85 * size * 1024 < board.visible_mib < size * 1024
    assert 300 * MIB < system < 1500 * MIB


def test_the_sizes_are_those_of_the_real_checkpoints() -> None:
    """Against the table that writes the real-size checkpoints, which has its own sources."""
    pytest.importorskip("tokenizers")
    from orinspect.examples.real_size.make_checkpoint import SIZES

    _, models, _ = known_boards()
    for name, sizes in SIZES.items():
        model = models[name.upper()]
        for field in dataclasses.fields(ModelSizes):
            expected = len(sizes.deepstack) if field.name == "taps" else getattr(sizes, field.name)
            assert getattr(model, field.name) == expected, (name, field.name)


def test_linears_are_counted_as_the_graph_has_them() -> None:
    """A 2B decoder layer by hand: q and o 2048x2048, k and v 2048x1024, three of 2048x6144."""
    _, models, _ = known_boards()
    layer = 2 * 2048 * 2048 + 2 * 2048 * 1024 + 3 * 2048 * 6144
    assert models["2B"].decoder_weights == 28 * layer == 1_409_286_144
    block = 1024 * 3072 + 1024 * 1024 + 2 * 1024 * 4096
    assert models["2B"].vision_weights == 24 * block + 4 * (4096 * 4096 + 4096 * 2048)


def test_float16_takes_twice_the_weights_and_nothing_else() -> None:
    _, models, _ = known_boards()
    for model in models.values():
        small, large = running_sum(model), running_sum(model, 2)
        assert abs(large.weights - 2 * small.weights) <= 2
        assert (large.keys_values, large.scratch, large.process) == (
            small.keys_values, small.scratch, small.process,
        )  # fmt: skip
        assert large.total - small.total == large.weights - small.weights


def test_more_parts_need_less_memory() -> None:
    _, models, _ = known_boards()
    model = models["4B"]
    whole = build_peak_bytes(model.decoder_weights)
    assert parts_to_build(model, whole) == 1
    assert parts_to_build(model, whole - 1) == 2
    quarter = build_peak_bytes(model.decoder_weights // PARTS[-1])
    assert parts_to_build(model, quarter) == 4
    assert parts_to_build(model, quarter - MIB) is None
    assert plan_bytes(1000 * MIB) > 1000 * MIB
