"""Image files → pixels.

The result is the same on every machine with the same version of Pillow: its resizing of 8-bit
images computes with integers, and the bicubic filter needs no functions of the mathematical
library.
"""

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.JpegImagePlugin
from PIL.Image import Transpose

from tlcluster.dataset.arrange import MAX_IMAGE_BYTES

Size = tuple[int, int]
"""Width and height in pixels."""

MAX_PIXELS = 2**26
"""Largest image: 67 megapixels, 200 MB as RGB. A small file can claim any size."""

FILTER = PIL.Image.Resampling.BICUBIC
"""For `--image-size`. Pillow widens the filter when it makes an image smaller (antialiasing)."""

_GAP = 3.0
"""Before the filter, a large image is reduced by whole factors to no less than this many times
the size. Pillow's documentation calls the result almost the same as without."""

_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
"""EXIF orientation → what makes the image upright."""
_ON_THE_SIDE = (5, 6, 7, 8)


def size_of(data: bytes) -> Size:
    """Width and height of an upright image, from its header.

    Raises:
        ValueError: see `decode`.
    """
    with _opened(data) as image:
        return _upright(image.size, _orientation(image))


def decode(data: bytes, size: Size, *, resize: bool = False) -> npt.NDArray[np.uint8]:
    """A PNG or JPEG file in any colours → RGB, uint8 (height, width, 3).

    Grey images and those with a palette become RGB as Keras reads them; an alpha channel is
    dropped. A photograph with an EXIF orientation is turned upright; an orientation that cannot
    be read is ignored.

    Args:
        data: the file.
        size: width and height of the result.
        resize: bring an image of another size to this one. The aspect ratio is not kept, as in
            Keras' `image_dataset_from_directory`.

    Raises:
        ValueError: what is wrong with the image.
    """
    with _opened(data) as image:
        orientation = _orientation(image)
        upright = _upright(image.size, orientation)
        if upright != size and not resize:
            raise ValueError(
                f"is {shown_size(upright)}, not {shown_size(size)} (--image-size resizes all)"
            )
        if image.mode.startswith(("I", "F")):
            raise ValueError("has more than 8 bits a channel")
        if upright != size:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise ValueError(f"is {shown_size(upright)}, more than {MAX_PIXELS:,} pixels")
            if isinstance(image, PIL.JpegImagePlugin.JpegImageFile):
                # The decoder itself can reduce a JPEG by 2, 4 or 8, which is much faster.
                least = int(max(size) * _GAP)
                image.draft(None, (least, least))
        image.load()
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        if upright != size:
            rgb = rgb.resize(_upright(size, orientation), FILTER, reducing_gap=_GAP)
        if orientation in _TURNS:
            rgb = rgb.transpose(_TURNS[orientation])
        return np.frombuffer(rgb.tobytes(), np.uint8).reshape(size[1], size[0], 3)


def shown_size(size: Size) -> str:
    """Width×height."""
    return f"{size[0]}×{size[1]}"


@contextlib.contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings, of which there may be one for every image."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[PIL.Image.Image]:
    """The image, with every error of Pillow as a ValueError."""
    if len(data) > MAX_IMAGE_BYTES:
        raise ValueError(f"has more than {MAX_IMAGE_BYTES:,} bytes")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            yield image
    except PIL.UnidentifiedImageError:
        raise ValueError("is no PNG or JPEG") from None
    except PIL.Image.DecompressionBombError:
        raise ValueError("is far too large") from None
    except (OSError, SyntaxError, EOFError, struct.error, zlib.error) as error:
        raise ValueError(f"is damaged ({error})") from None


def _orientation(image: PIL.Image.Image) -> int:
    if "exif" not in image.info:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except (ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError,
            struct.error):  # fmt: skip
        return 1
    return value if isinstance(value, int) else 1


def _upright(size: Size, orientation: int) -> Size:
    return size[::-1] if orientation in _ON_THE_SIDE else size
