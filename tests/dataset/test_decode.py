"""Image files → pixels: photographs of any size, upright, the same on every run."""

import hashlib
import io
import random
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from tlcluster.dataset import decode as module
from tlcluster.dataset.decode import decode, size_of

ORIENTATION = 0x0112


def picture(width: int, height: int) -> PIL.Image.Image:
    """Red grows to the right, green to the bottom, blue is a checkerboard."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    red, green = 255 * x // max(width - 1, 1), 255 * y // max(height - 1, 1)
    blue = (x // 4 + y // 4) % 2 * 200
    return PIL.Image.fromarray(np.stack([red, green, blue], axis=-1).astype(np.uint8))


def saved(image: PIL.Image.Image, kind: str, orientation: int = 1, **options: object) -> bytes:
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    image.save(buffer, kind, exif=exif, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(kind: str, orientation: int) -> None:
    data = saved(picture(50, 40), kind, orientation)
    with PIL.Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(PIL.ImageOps.exif_transpose(image))
    size = (expected.shape[1], expected.shape[0])
    assert size_of(data) == size
    assert (decode(data, size) == expected).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_after_resizing(orientation: int) -> None:
    """Whatever way the camera was held, the upright picture is the same."""
    upright = picture(400, 300)
    turned = module._TURNS.get(orientation)
    back = {6: PIL.Image.Transpose.ROTATE_90, 8: PIL.Image.Transpose.ROTATE_270}.get(
        orientation, turned
    )
    stored = upright if back is None else upright.transpose(back)
    result = decode(saved(stored, "PNG", orientation), (48, 40), resize=True)
    expected = decode(saved(upright, "PNG"), (48, 40), resize=True)
    assert np.abs(result.astype(int) - expected).max() <= 3


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"x" * 99])
def test_an_orientation_that_cannot_be_read_is_ignored(exif: bytes) -> None:
    buffer = io.BytesIO()
    picture(32, 32).save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue(), (32, 32)).shape == (32, 32, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, which an ingest suppresses
def test_damaged_exif_never_ends_in_anything_but_pixels_or_a_reason() -> None:
    data = saved(picture(32, 32), "JPEG", 6)
    begin = data.index(b"Exif")
    generator = random.Random(524)  # noqa: S311
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(generator.choice([1, 3, 8])):
            damaged[begin + generator.randrange(40)] = generator.randrange(256)
        try:
            decode(bytes(damaged), (32, 32))
        except ValueError as error:
            assert str(error)  # noqa: PT017


def test_making_an_image_smaller_averages_instead_of_skipping_pixels() -> None:
    fine = np.zeros((640, 640, 3), np.uint8)
    fine[:, ::2] = 255  # black and white lines of one pixel
    for kind in ("PNG", "JPEG"):
        small = decode(saved(PIL.Image.fromarray(fine), kind), (40, 40), resize=True)
        assert np.abs(small.astype(int) - 127).max() <= 8


def test_an_image_of_the_wanted_size_is_taken_as_it_is() -> None:
    data = saved(picture(48, 40), "JPEG")
    assert (decode(data, (48, 40), resize=True) == decode(data, (48, 40))).all()


def test_an_image_of_another_size_is_refused_unless_it_may_be_resized() -> None:
    with pytest.raises(ValueError, match=r"^is 50×40, not 32×32 \(--image-size resizes all\)$"):
        decode(saved(picture(50, 40), "PNG"), (32, 32))


def test_the_pixels_of_a_resized_photograph_stay_the_same() -> None:
    """Golden: with the locked Pillow, on every machine."""
    digests = {
        kind: hashlib.sha256(
            decode(saved(picture(1203, 901), kind, 6), (64, 48), resize=True).tobytes()
        ).hexdigest()[:16]
        for kind in ("PNG", "JPEG")
    }
    assert digests == GOLDEN


GOLDEN = {"PNG": "a6933ae31a203434", "JPEG": "d72bb12c3bc04767"}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_of_some_megapixels_is_resized_in_any_colours(mode: str) -> None:
    data = saved(picture(2000, 1500).convert(mode), "JPEG", quality=60)
    result = decode(data, (64, 48), resize=True)
    with PIL.Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(image.convert("RGB").resize((64, 48), module.FILTER)).astype(int)
    assert result.shape == (48, 64, 3)
    assert np.abs(result - expected).mean() < 2


def test_the_first_picture_of_a_phones_file_of_several_is_taken() -> None:
    buffer = io.BytesIO()
    picture(300, 200).save(
        buffer, "MPO", save_all=True, append_images=[PIL.Image.new("RGB", (90, 60))]
    )
    result = decode(buffer.getvalue(), (48, 40), resize=True)
    expected = decode(saved(picture(300, 200), "JPEG"), (48, 40), resize=True)
    assert np.abs(result.astype(int) - expected).mean() < 2


def claiming(width: int, height: int) -> bytes:
    """A PNG whose header says this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = bytearray(saved(picture(32, 32), "PNG"))
    data[12:33] = header + struct.pack(">I", zlib.crc32(header))
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_of_absurd_size_is_refused_before_it_takes_memory() -> None:
    for side in (8193, 12_000, 2**31 - 1):
        with pytest.raises(ValueError, match=r"more than 67,108,864 pixels$|^is far too large$"):
            decode(claiming(side, side), (32, 32), resize=True)


def test_more_than_8_bits_a_channel_are_refused() -> None:
    buffer = io.BytesIO()
    PIL.Image.new("I;16", (50, 40)).save(buffer, "PNG")
    for resize, size in ((False, (50, 40)), (True, (32, 32))):
        with pytest.raises(ValueError, match=r"^has more than 8 bits a channel$"):
            decode(buffer.getvalue(), size, resize=resize)
