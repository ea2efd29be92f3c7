"""Makes data sets of generated pictures: python tests/photos.py FOLDER.

Each class has stripes of its own colour and angle, so that a model can learn it. By default, 7
classes with names in several scripts, PNG and JPEG files of several sizes, colour modes and EXIF
orientations, and no validation split: what `jobs/ingest.py` takes with
`--image-size 48x40 --valid-fraction 0.2`.
"""

import colorsys
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import PIL.Image

CLASSES = ("apple", "red fox", "Äpfel", "кот", "گربه\u200cها", "बिल्ली", "猫")
SIZES = ((64, 48), (80, 60), (60, 90), (200, 150), (48, 40))
"""Width and height of the pictures, in turn."""
COUNTS = {"train": 40, "test": 10}
"""Split → pictures per class."""

_MODES = ("RGB", "RGB", "L", "P", "RGBA")
_ORIENTATION = 0x0112


def make_photos(
    folder: Path,
    *,
    classes: Sequence[str] = CLASSES,
    sizes: Sequence[tuple[int, int]] = SIZES,
    counts: Mapping[str, int] = COUNTS,
    plain: bool = False,
) -> Path:
    """Write `folder/split/class/photo-NUMBER.png` and `.jpg`; returns `folder`.

    The same arguments give the same pictures. With `plain`, all are RGB and upright.
    """
    for split, count in counts.items():
        for label, name in enumerate(classes):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = _stripes(label, len(classes), sizes[number % len(sizes)], split, number)
                image = PIL.Image.fromarray(pixels)
                if number % 2:
                    exif = PIL.Image.Exif()
                    exif[_ORIENTATION] = 1 if plain else number // 2 % 8 + 1
                    image.save(place / f"photo-{number}.jpg", quality=90, exif=exif)
                else:
                    mode = "RGB" if plain else _MODES[number // 2 % len(_MODES)]
                    image.convert(mode).save(place / f"photo-{number}.png")
    return folder


def _stripes(
    label: int, classes: int, size: tuple[int, int], split: str, number: int
) -> np.ndarray:
    random = np.random.default_rng([label, number, *split.encode()])
    angle = math.pi * label / classes + random.normal(0, 0.1)
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    wave = np.sin(30 * (x * math.cos(angle) + y * math.sin(angle)) + random.uniform(0, 6)) / 2 + 0.5
    colour = np.array(colorsys.hsv_to_rgb(label / classes, 0.8, 1.0))
    noisy = wave[:, :, None] * colour * 220 + random.normal(0, 12, (size[1], size[0], 3))
    return noisy.clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    print(make_photos(Path(sys.argv[1])))
