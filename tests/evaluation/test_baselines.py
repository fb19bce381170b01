"""The two floors: difference boxes on a drawn pair, the network's gradients, and that it learns."""

import cv2
import numpy as np
import pytest

from orinspect.evaluation.floors.baseline_cnn import WINDOW_PX, candidate_windows, floor_from_examples
from orinspect.evaluation.floors.baseline_xor import UNNAMED, XorSettings, unnamed, xor_detections
from orinspect.evaluation.floors.small_cnn import SmallCnn
from orinspect.evaluation.scores import NamedBox, ScoredPicture, iou_matrix, precision_recall_f
from orinspect.evaluation.sets.example import Example
from orinspect.evaluation.sets.source import rows_from_source

TYPES = ("copper", "pin-hole")


def _pair(seed: int) -> Example:
    """A plain board with a blob of copper on the free part or a hole in the trace, at a drawn place."""
    rng = np.random.default_rng(seed)
    template = np.full((160, 160), 255, np.uint8)
    template[60:100] = 0  # a wide dark trace
    part = template.copy()
    x, radius = int(rng.integers(30, 130)), int(rng.integers(5, 8))
    y, grey, name = (28, 0, "copper") if seed % 2 else (80, 255, "pin-hole")
    cv2.circle(part, (x, y), radius, grey, -1)
    reach = radius + 10.0
    truth = (NamedBox(name, (x - reach, y - reach, x + reach, y + reach)),)
    return Example(f"pair {seed}", "drawn", part, template, truth)


def test_a_drawn_defect_is_boxed_once() -> None:
    example = _pair(1)
    boxes = xor_detections(example)
    assert len(boxes) == 1 and boxes[0].type == UNNAMED
    assert iou_matrix(boxes, example.truth)[0, 0] > 0.6


def test_a_shifted_template_is_aligned_and_gives_no_box() -> None:
    template = _pair(0).golden
    cv2.circle(template, (50, 130), 12, 0, -1)
    part = np.roll(template, (3, -2), axis=(0, 1))
    assert xor_detections(Example("shifted", "drawn", part, template, ())) == ()


def test_a_difference_inside_the_band_is_forgiven() -> None:
    example = _pair(0)
    part = example.golden.copy()
    part[100:102] = 0  # the trace is two pixels wider
    assert xor_detections(Example("wider", "drawn", part, example.golden, ())) == ()


def test_a_grey_picture_is_compared_too() -> None:
    example = _pair(1)
    light = np.linspace(0.7, 1.0, 160)
    grey = [np.clip((60 + picture * 0.55) * light, 0, 255).astype(np.uint8)
            for picture in (example.image, example.golden)]
    boxes = xor_detections(Example("grey", "drawn", grey[0], grey[1], ()))
    assert len(boxes) == 1
    assert iou_matrix(boxes, example.truth)[0, 0] > 0.5


def test_the_floor_finds_most_defects_of_a_scene() -> None:
    pictures = []
    for row in rows_from_source("scenes:pcb?seed=11&parts=3&size_px=320&misregistration_px=0"):
        example = row.read()
        pictures.append(ScoredPicture(unnamed(example.truth), xor_detections(example)))
    assert precision_recall_f(pictures)["recall"] > 0.6


def test_settings_change_what_is_found() -> None:
    assert xor_detections(_pair(1), XorSettings(min_area=10_000)) == ()


def test_gradients_of_the_network_are_those_of_finite_differences() -> None:
    rng = np.random.default_rng(0)
    network = SmallCnn(16, 2, 3, rng)
    pictures = rng.normal(size=(4, 16, 16, 2)).astype(np.float32)
    labels = np.array([0, 1, 2, 1])

    def loss() -> float:
        chances = network.probabilities(pictures)
        return float(-np.log(chances[np.arange(4), labels] + 1e-9).mean())

    logits, saved = network._forward(pictures)
    share = np.exp(logits - logits.max(axis=1, keepdims=True))
    share /= share.sum(axis=1, keepdims=True)
    share[np.arange(4), labels] -= 1.0
    gradients = network._backward((share / 4).astype(np.float32), saved)
    for array, gradient in zip((*network.weights, *network.biases), gradients, strict=True):
        place = np.unravel_index(int(np.abs(gradient).argmax()), gradient.shape)
        before, step = array[place], 1e-2
        array[place] = before + step
        above = loss()
        array[place] = before - step
        below = loss()
        array[place] = before
        assert (above - below) / (2 * step) == pytest.approx(float(gradient[place]), rel=0.05, abs=1e-3)


def test_the_network_has_about_an_eighth_of_a_million_parameters() -> None:
    assert 120_000 < SmallCnn(WINDOW_PX, 2, 7, np.random.default_rng(0)).parameters < 145_000


def test_a_window_shows_the_box_in_its_middle_at_either_scale() -> None:
    image = np.zeros((200, 200), np.uint8)
    image[90:110, 90:110] = 255
    example = Example("square", "drawn", image, np.zeros_like(image), ())
    near, far = candidate_windows(
        example, [NamedBox("x", (90, 90, 110, 110)), NamedBox("x", (20, 20, 180, 180))], WINDOW_PX)
    assert near[24, 24, 0] == far[24, 24, 0] == 255
    assert near[..., 1].max() == 0
    assert (near[..., 0] > 0).sum() > 4 * (far[..., 0] > 0).sum()


@pytest.mark.slow
def test_the_second_floor_learns_to_name() -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int, text: str) -> None:
        seen.append((done, total))

    floor = floor_from_examples(map(_pair, range(40)), TYPES, seed=1, windows_seen=64 * 25, progress=progress)
    assert seen[-1] == (25, 25)
    pictures = [ScoredPicture(example.truth, floor.detections(example)[0])
                for example in map(_pair, range(100, 120))]
    assert precision_recall_f(pictures)["f"] > 0.9


def test_the_second_floor_is_repeated_by_its_seed() -> None:
    first, again, other = (floor_from_examples(map(_pair, range(4)), TYPES, seed=seed, windows_seen=64 * 2)
                           for seed in (1, 1, 2))
    pairs = zip(first.network.weights, again.network.weights, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)
    assert not np.array_equal(first.network.weights[0], other.network.weights[0])


def test_a_floor_without_examples_says_so() -> None:
    with pytest.raises(ValueError, match="received none"):
        floor_from_examples([], TYPES)
