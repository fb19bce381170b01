"""Part ids read from pictures, with codes that OpenCV itself draws."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from orinspect.runtime.capture import part_id as module
from orinspect.runtime.capture.frame import Picture
from orinspect.runtime.capture.part_id import MOST_CHARACTERS, PartId, part_id_from_picture


def qr(text: str, side: int = 220) -> Picture:
    code = cv2.QRCodeEncoder.create().encode(text)
    return np.asarray(cv2.resize(code, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)


def picture_with(*codes: Picture, colour: bool = False) -> Picture:
    picture = np.full((320, 60 + 280 * max(len(codes), 1)), 210, np.uint8)
    for index, code in enumerate(codes):
        left = 40 + 280 * index
        picture[50 : 50 + code.shape[0], left : left + code.shape[1]] = code
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR), np.uint8) if colour else picture


def ean13(digits: str) -> Picture:
    """An EAN-13 barcode, by its table of odd (L), even (G) and right (R) digits."""
    odd = ["0001101", "0011001", "0010011", "0111101", "0100011"]
    odd += ("0110001", "0101111", "0111011", "0110111", "0001011")
    kinds = ["LLLLLL", "LLGLGG", "LLGGLG", "LLGGGL", "LGLLGG"]
    kinds += ("LGGLLG", "LGGGLL", "LGLGLG", "LGLGGL", "LGGLGL")
    left = ""
    for kind, digit in zip(kinds[int(digits[0])], digits[1:7], strict=True):
        bits = odd[int(digit)]
        left += bits if kind == "L" else _inverted(bits)[::-1]
    right = "".join(_inverted(odd[int(digit)]) for digit in digits[7:])
    bars = f"101{left}01010{right}101"
    row = np.repeat(np.array([0 if bit == "1" else 255 for bit in bars], np.uint8), 2)
    return np.pad(np.tile(row, (120, 1)), 20, constant_values=255)


def _inverted(bits: str) -> str:
    return bits.translate(str.maketrans("01", "10"))


@pytest.mark.parametrize("colour", [False, True])
def test_a_qr_code_is_the_id(colour: bool) -> None:
    assert part_id_from_picture(picture_with(qr("SN-0042/7"), colour=colour)) == PartId(
        "SN-0042/7", None, "qr"
    )


def test_a_barcode_is_the_id() -> None:
    assert part_id_from_picture(picture_with(ean13("4006381333931"))) == PartId(
        "4006381333931", None, "barcode"
    )


def test_two_codes_with_one_text_agree_and_two_texts_are_no_id() -> None:
    assert part_id_from_picture(picture_with(qr("A1"), qr("A1"))).value == "A1"
    found = part_id_from_picture(picture_with(qr("A1"), qr("B2")))
    assert found == PartId(None, "2_different_codes_in_picture")


def test_a_picture_without_a_code_has_no_id_and_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_datamatrix_decoder", lambda: None)
    found = part_id_from_picture(picture_with())
    assert found.value is None
    assert found.reason == "no_code_in_picture; DataMatrix is not read: pylibdmtx is not installed"


@pytest.mark.parametrize("text", ["A" * (MOST_CHARACTERS + 1), "line\nbreak"])
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    found = part_id_from_picture(picture_with(qr(text, 266)))
    assert found.value is None and found.reason is not None
    assert found.reason.startswith("the_code_in_the_picture_is_no_id")
