"""PNG and JPEG files of strangers, and the names of files and folders around them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from mangle import NAMES, damaged
from PIL import Image
from promise import fuzzed, kept

from tlcluster.dataset.arrange import Found, arrange
from tlcluster.dataset.decode import decode, quiet_pillow, size_of

SIZE = (6, 5)


def encoded(kind: str, mode: str, exif: bytes = b"") -> bytes:
    pixels = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind, exif=exif)
    return buffer.getvalue()


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"

IMAGES = tuple(
    encoded(kind, mode, exif)
    for kind, modes in (("PNG", ("RGB", "RGBA", "L", "P", "1", "I;16")), ("JPEG", ("RGB", "CMYK")))
    for mode in modes
    for exif in (b"", EXIF)
)


def chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


BOMB = zlib.compress(bytes(2**22))

CHUNKS = (
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"tEXt",
    b"zTXt", b"iTXt", b"bKGD", b"pHYs", b"tIME", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"hIST",
    b"\0\0\0\0", b"\x1b[2J", b"ABCD",
)  # fmt: skip

CONTENTS = (
    b"", b"\0", b"\xff" * 4, bytes(13), EXIF,
    b"a\0\0" + BOMB, b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB,
    b"\0\0\0\6\0\0\0\5\x08\2\0\0\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\x08\2\0\0\0",
    b"\0\0\xff\xff\0\0\xff\xff\x10\6\0\0\1", b"\0\0\0\6\0\0\0\5\x08\3\0\0\1", b"\0\0\0\2\0\0\0\0",
    b"\0\0\0\0\x7f\xff\xff\xff\x7f\xff\xff\xff" + bytes(14), BOMB, b"x" * 3000,
)  # fmt: skip


@st.composite
def png_files(draw: st.DrawFn) -> bytes:
    """A PNG file with other chunks, whose checksums are right."""
    content = draw(st.sampled_from([image for image in IMAGES if image.startswith(b"\x89PNG")]))
    parts, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        parts.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(parts) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                parts[at] = parts[at][0], draw(st.sampled_from(CONTENTS))
            case 1:
                parts[at] = parts[at][0], draw(damaged(parts[at][1]))
            case 2:
                strange = draw(st.sampled_from(CHUNKS)), draw(st.sampled_from(CONTENTS))
                parts[at:at] = [strange] * draw(st.sampled_from((1, 1, 1, 30)))
            case _ if len(parts) > 1:
                del parts[at]
    return content[:8] + b"".join(chunk(*part) for part in parts)


@fuzzed
@given(
    content=st.one_of(png_files(), st.sampled_from(IMAGES).flatmap(damaged)), resize=st.booleans()
)
def test_an_image(content: bytes, resize: bool) -> None:
    def pixels() -> np.ndarray:
        with quiet_pillow():
            size_of(content)
            return decode(content, SIZE, resize=resize)

    read = kept("image", pixels, refusal=ValueError)
    assert read is None or (read.shape, read.dtype) == ((5, 6, 3), np.uint8)


PARTS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(("train", "valid", "val", "test", "TEST", "cat", "dog", "1.png", "2.PNG", "")),
    st.text(st.characters(codec=None), max_size=8),
)
WHOLE = [f"{s}/{c}/{n}.png" for s in ("train", "valid", "test") for c in "ab" for n in range(2)]


@fuzzed
@given(
    strange=st.lists(st.lists(PARTS, min_size=1, max_size=5).map("/".join), max_size=5),
    split=st.sampled_from((None, 0.5)),
)
def test_names_of_files_and_folders(strange: list[str], split: float | None) -> None:
    def names() -> list[str]:
        source = arrange("x", Path("x"), [Found(name) for name in (*WHOLE, *strange)], split)
        return [image.path for images in source.images.values() for image in images]

    read = kept("names", names)
    assert read is None or all(name.isprintable() or "\u200c" in name for name in read)
