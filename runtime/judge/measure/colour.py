"""Colour of a surface: CIELab under D65 from a camera's sRGB values, and the difference CIEDE2000."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Lab = tuple[float, float, float]

# IEC 61966-2-1 (sRGB): linear RGB -> XYZ under D65, rows X, Y, Z.
_XYZ_FROM_RGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = _XYZ_FROM_RGB.sum(axis=1)  # D65 as this matrix has it, so that grey has a = b = 0


def lab_from_rgb(rgb: npt.ArrayLike) -> Lab:
    """CIELab (CIE 15) under D65 of one sRGB colour [3], each channel 0 to 255."""
    encoded = np.clip(np.asarray(rgb, np.float64) / 255.0, 0.0, 1.0)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    relative = (_XYZ_FROM_RGB @ linear) / _WHITE
    fx, fy, fz = np.where(relative > (6 / 29) ** 3, np.cbrt(relative), relative * (29 / 6) ** 2 / 3 + 4 / 29)
    return float(116 * fy - 16), float(500 * (fx - fy)), float(200 * (fy - fz))


def ciede2000(first: Lab, second: Lab) -> float:
    """The colour difference CIEDE2000 with kL = kC = kH = 1, after Sharma, Wu and Dalal (2005).

    "The CIEDE2000 color-difference formula: implementation notes, supplementary test data, and
    mathematical observations", Color Research and Application 30 (1), 21-30; the numbers in the comments
    are its equations.
    """
    mean_chroma = (math.hypot(first[1], first[2]) + math.hypot(second[1], second[2])) / 2  # 2, 3
    stretch = 1 + 0.5 * (1 - math.sqrt(mean_chroma**7 / (mean_chroma**7 + 25.0**7)))  # 4
    c1, h1 = _chroma_and_hue(first[1] * stretch, first[2])  # 5-7
    c2, h2 = _chroma_and_hue(second[1] * stretch, second[2])
    lightness, chroma = second[0] - first[0], c2 - c1  # 8, 9
    turn = h2 - h1 if c1 * c2 else 0.0  # 10
    turn += 360 if turn < -180 else -360 if turn > 180 else 0
    hue = 2 * math.sqrt(c1 * c2) * math.sin(math.radians(turn / 2))  # 11
    mean_l, mean_c = (first[0] + second[0]) / 2, (c1 + c2) / 2  # 12, 13
    mean_h = _mean_hue(h1, h2) if c1 * c2 else h1 + h2  # 14
    weight = (
        1
        - 0.17 * _cos(mean_h - 30)
        + 0.24 * _cos(2 * mean_h)
        + 0.32 * _cos(3 * mean_h + 6)
        - 0.20 * _cos(4 * mean_h - 63)
    )  # 15
    span = 30 * math.exp(-(((mean_h - 275) / 25) ** 2))  # 16
    turn_scale = 2 * math.sqrt(mean_c**7 / (mean_c**7 + 25.0**7))  # 17
    l_scale = 1 + 0.015 * (mean_l - 50) ** 2 / math.sqrt(20 + (mean_l - 50) ** 2)  # 18
    c_scale, h_scale = 1 + 0.045 * mean_c, 1 + 0.015 * mean_c * weight  # 19, 20
    rotation = -math.sin(math.radians(2 * span)) * turn_scale  # 21
    l_part, c_part, h_part = lightness / l_scale, chroma / c_scale, hue / h_scale
    return math.sqrt(max(l_part**2 + c_part**2 + h_part**2 + rotation * c_part * h_part, 0.0))  # 22


def _chroma_and_hue(a: float, b: float) -> tuple[float, float]:
    """Chroma and hue angle in degrees, 0 to 360; the hue of grey is 0."""
    return math.hypot(a, b), (math.degrees(math.atan2(b, a)) % 360 if a or b else 0.0)


def _mean_hue(h1: float, h2: float) -> float:
    """The mean of two hue angles in degrees, on the shorter way round."""
    total = h1 + h2
    if abs(h1 - h2) > 180:
        total += 360 if total < 360 else -360
    return total / 2


def _cos(degrees: float) -> float:
    return math.cos(math.radians(degrees))
