"""Archives of strangers: tar, gzip, xz and zip, in their bytes and in what their headers say."""

import gzip
import io
import lzma
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mangle import NAMES, damaged
from PIL import Image
from promise import fuzzed, kept

from tlcluster.dataset.sources import open_source


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    f"{split}/{name}/{number}.png": png()
    for split in ("train", "valid", "test")
    for name in ("cat", "dog")
    for number in range(2)
}

MEMBERS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(NAMES).map("train/cat/{}".format),
    st.sampled_from(NAMES).map("{}/cat/1.png".format),
    st.sampled_from(("train/cat/2.png", "train/cat/0.png", "README", "train/cat/x.txt", "x/y")),
)

TYPES = (
    tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE,
    tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE, b"V", b"\xff", b"Z",
)  # fmt: skip

SIZES = (
    None, None, b"77777777777\0", b"\x80\x7f" + b"\xff" * 10, b"\x80" + bytes(7) + b"\xff" * 4,
    b"\xff" * 12, b"\xff" + bytes(11), b"0" * 12, b"00000001000\0", b"garbage     ",
    b"-1         \0", bytes(12),
)  # fmt: skip
"""What stands in the size field of a tar header; None is the size that it has."""


def record(text: bytes) -> bytes:
    """A record of an extended header, with its length."""
    length = len(text) + 3
    while len(b"%d %s\n" % (length, text)) != length:
        length += 1
    return b"%d %s\n" % (length, text)


RECORDS = (
    *map(
        record,
        (
            b"path=train/cat/3.png", b"path=../../x.png", b"path=/etc/x.png", b"path=\xff\xfe.png",
            b"path=train/cat/\x1b[2J.png", b"size=10", b"size=-1", b"size=99999999999999999999",
            b"size=nan", b"mtime=nan", b"mtime=1e999", b"uid=x", b"hdrcharset=BINARY",
            b"hdrcharset=\xff", b"GNU.sparse.major=1", b"GNU.sparse.minor=0", b"GNU.sparse.map=1,x",
            b"GNU.sparse.size=10", b"GNU.sparse.realsize=x", b"GNU.sparse.name=train/cat/4.png",
            b"linkpath=/etc/passwd", b"comment=" + b"7" * 300, b"=", b"a=\0\n\n",
        ),
    ),
    b"0 path=x\n", b"2 2 2 2 2 2 =\n", b"99999999999999999999999 path=x\n", b"7" * 400, b"5 a=b",
    b"30 path=x\n", b"\0\0\0", b"-5 a=b\n",
)  # fmt: skip


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A member of a tar archive, which says what it likes, and its content."""
    info = tarfile.TarInfo(draw(MEMBERS))
    info.type = draw(st.sampled_from(TYPES))
    content = draw(st.sampled_from((b"", png(), b"x" * 600)))
    if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE):
        content = b"".join(draw(st.lists(st.sampled_from(RECORDS), max_size=4)))
    elif info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        content = draw(MEMBERS).encode("utf-8", "surrogatepass") + b"\0"
    info.size, info.linkname = len(content), draw(st.sampled_from(("", "../x", "train/cat/0.png")))
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogatepass"))
    size = draw(st.sampled_from(SIZES))
    if size is not None:
        head[-512 + 124 : -512 + 136] = size
    if info.type == tarfile.GNUTYPE_SPARSE:
        head[-512 + 386 : -512 + 495] = draw(st.sampled_from((b"\xff", b"7", b"\0"))) * 109
    if draw(st.integers(0, 9)):
        head[-512 + 148 : -512 + 156] = b" " * 8
        head[-512 + 148 : -512 + 156] = b"%06o\0 " % sum(head[-512:])
    again = draw(st.sampled_from((1,) * 12 + (3, 2000)))
    return (bytes(head) + content + bytes(-len(content) % 512)) * again


@st.composite
def tar_files(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    style = draw(st.sampled_from((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT)))
    with tarfile.open(fileobj=buffer, mode="w", format=style) as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        end = archive.offset
    blocks = buffer.getvalue()[:end]
    at = draw(st.integers(0, end // 1024)) * 1024
    strange = b"".join(draw(st.lists(headers(), max_size=3)))
    return blocks[:at] + strange + blocks[at:] + bytes(draw(st.sampled_from((0, 512, 1024, 9000))))


WAYS: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": lambda data: gzip.compress(data, 1),
    ".tgz": lambda data: gzip.compress(data[:3000], 1) + gzip.compress(data[3000:], 1),
    ".tar.xz": lambda data: lzma.compress(data, preset=0),
}


def encodable(name: str) -> bool:
    """Whether the zipfile module writes a file of this name."""
    return name != "" and not any("\ud800" <= character <= "\udfff" for character in name)


@st.composite
def zip_files(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    methods = st.sampled_from((0, 8, 12, 14))
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data, draw(st.sampled_from((0, 8))))
        for _ in range(draw(st.integers(0, 2))):
            info = zipfile.ZipInfo("x")
            # Not by the constructor, which cuts and turns what it is given.
            info.filename = draw(MEMBERS.filter(encodable))
            info.external_attr = draw(st.sampled_from((0, 0o120777 << 16, 0o60777 << 16, 0x10)))
            archive.writestr(info, png(), draw(methods))
    data = bytearray(buffer.getvalue())
    for _ in range(draw(st.integers(0, 2))):
        # A field of a header of a member, in the directory or beside its content, or of the end.
        sign, fields = draw(
            st.sampled_from(
                (
                    (b"PK\1\2", (6, 8, 10, 16, 20, 24, 28, 30, 32, 38, 42)),
                    (b"PK\3\4", (4, 6, 8, 14, 18, 22, 26, 28)),
                    (b"PK\5\6", (4, 8, 10, 12, 16, 20)),
                )
            )
        )
        starts = [at for at in range(len(data)) if data[at : at + 4] == sign]
        at = draw(st.sampled_from(starts)) + draw(st.sampled_from(fields))
        value = draw(
            st.sampled_from((b"\xff\xff", b"\xff\xff\xff\xff", b"\0\0", b"\1\0", b"\x63\0"))
        )
        data[at : at + len(value)] = value
    return bytes(data)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str, str, bytes], None]:
    """`read(target, suffix, content)` opens an archive of these bytes and reads its images."""
    scratch = tmp_path / "scratch"

    def of(target: str, suffix: str, content: bytes) -> None:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)

        def images() -> list[bytes]:
            source = open_source(str(path), scratch, scratch, show=False)
            return [source.read(image) for split in source.images.values() for image in split]

        kept(target, images, folder=scratch)
        assert {left.name for left in scratch.iterdir()} <= {"images"}

    return of


@fuzzed
@given(tar=tar_files(), suffix=st.sampled_from(sorted(WAYS)))
def test_a_tar_archive_that_says_what_it_likes(
    tar: bytes, suffix: str, read: Callable[[str, str, bytes], None]
) -> None:
    read("tar", suffix, WAYS[suffix](tar))


@fuzzed
@given(data=st.data(), suffix=st.sampled_from(sorted(WAYS)))
def test_a_tar_archive_with_other_bytes(
    data: st.DataObject, suffix: str, read: Callable[[str, str, bytes], None]
) -> None:
    packed = WAYS[suffix](data.draw(tar_files()))
    read("tar, bytes", suffix, data.draw(damaged(packed)))


@fuzzed
@given(content=zip_files())
def test_a_zip_archive_that_says_what_it_likes(
    content: bytes, read: Callable[[str, str, bytes], None]
) -> None:
    read("zip", ".zip", content)


@fuzzed
@given(data=st.data())
def test_a_zip_archive_with_other_bytes(
    data: st.DataObject, read: Callable[[str, str, bytes], None]
) -> None:
    read("zip, bytes", ".zip", data.draw(damaged(data.draw(zip_files()))))
