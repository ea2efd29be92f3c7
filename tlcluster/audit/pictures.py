"""Images and numbers as pictures in a page: PNG in data addresses, and bars."""

import base64
import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image

LARGEST = 128
"""Pixels of the longest side of a picture."""


def png(image: npt.NDArray[np.uint8]) -> str:
    """The address `data:image/png;…` of an RGB image, uint8 (height, width, 3)."""
    picture = PIL.Image.fromarray(image)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


class Bar(NamedTuple):
    """One bar of a histogram."""

    low: float
    """The values from here up to the next bar."""
    images: int
    height: float
    """Between 0 and 1; the logarithm of `images`, since few images are duplicates."""


def histogram(values: npt.NDArray[np.float64], width: float, end: float) -> tuple[Bar, ...]:
    """Bars of this width from 0 to `end`; values beyond are left out."""
    bars = round(end / width)
    counts, _ = np.histogram(values[values <= end], bars, (0, bars * width))
    heights = np.log1p(counts) / max(float(np.log1p(counts.max())), 1e-9)
    return tuple(
        Bar(number * width, int(count), float(height))
        for number, (count, height) in enumerate(zip(counts, heights, strict=True))
    )
