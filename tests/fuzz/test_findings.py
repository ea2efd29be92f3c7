"""What the fuzz targets, and reading with them in mind, have found: a test for each finding."""

import hashlib
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from promise import kept
from test_fuzz_archives import FILES, record
from test_fuzz_stores import index_of, shard

from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.names import problem_of
from tlcluster.dataset.sources import open_source
from tlcluster.errors import UserError
from tlcluster.plain_arrays import read_arrays
from tlcluster.storage.directory import DirectoryStore
from tlcluster.training.checkpoint import load_checkpoint

LITTLE = 2**23
"""Bytes of memory that each of these may take."""


@pytest.fixture
def refusal(tmp_path: Path) -> Callable[[str, bytes], str]:
    """`refusal(name, content)` is why an archive is refused, after its name."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def of(name: str, content: bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content)
        said = []

        def read() -> None:
            try:
                open_source(str(path), scratch, scratch, show=False)
            except UserError as error:
                said.append(str(error).removeprefix(f"{path}: "))
                raise

        kept("findings", read, folder=scratch, memory=LITTLE)
        return said[0]

    return of


def member(kind: bytes, content: bytes, size: int | None = None, name: str = "README") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)


# Archives


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_of_a_zip_that_is_packed_with_bzip2_or_lzma_is_refused(
    method: int, refusal: Callable[[str, bytes], str]
) -> None:
    """It would become gigabytes at once: the zipfile module unpacks these without a limit."""
    content = bombed(method, "train/cat/0.png")
    assert len(content) < 20_000
    assert refusal("a.zip", content) == (
        "'train/cat/0.png' is packed in another way than by deflate; unpack the archive and name "
        "the folder"
    )


def bombed(method: int, name: str, first: bytes = b"") -> bytes:
    """A zip of one member that says it has 10 bytes, and unpacks to 32 MiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, first + bytes(2**25), method)
    content = bytearray(buffer.getvalue())
    size = struct.pack("<I", 10)
    at = content.index(b"PK\1\2") + 24
    content[at : at + 4] = size
    content[22:26] = size
    return bytes(content)


def test_a_thousand_headers_before_one_file_are_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    """The tarfile module calls itself for each; Python ends that with a RecursionError."""
    headers = member(tarfile.GNUTYPE_LONGNAME, b"x\0") * 2000
    assert refusal("a.tar", headers + END).startswith("the archive is damaged or cut short (max")


def test_more_headers_for_all_files_than_anyone_writes_are_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    """The tarfile module copies them for each file: the time grows with the square."""
    files = b"".join(
        member(tarfile.XGLTYPE, record(b"k%d=v" % number)) + member(tarfile.REGTYPE, b"")
        for number in range(1100)
    )
    assert "(too many headers for all files)" in refusal("a.tar", files + END)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.CONTTYPE])
@pytest.mark.parametrize("name", ["a.tar", "a.tgz"])
def test_a_file_that_claims_exabytes_is_not_skipped_block_by_block(
    kind: bytes, name: str, refusal: Callable[[str, bytes], str]
) -> None:
    """The tarfile module would read behind the end for years."""
    content = member(kind, b"", 2**62) + END
    packed = zlib.compress(content, wbits=31) if name == "a.tgz" else content
    assert "(a file reaches behind the end of the archive)" in refusal(name, packed)


def test_the_size_of_a_file_may_also_be_in_an_extended_header(
    refusal: Callable[[str, bytes], str],
) -> None:
    content = member(tarfile.XHDTYPE, record(b"size=%d" % 2**62)) + member(tarfile.REGTYPE, b"")
    assert "behind the end" in refusal("a.tar", content + END)


@pytest.mark.parametrize(
    "header",
    [b"2 " * 30_000 + b"=", b"0 a=b\n", b"9" * 60_000, b"99 a=b\n", b"7 a=bcd", b"x"],
    ids=["overlapping", "no length", "digits", "too long", "too short", "nothing"],
)
def test_an_extended_header_that_is_no_list_of_records_is_refused(
    header: bytes, refusal: Callable[[str, bytes], str]
) -> None:
    """Records that overlap would take the square of their bytes in memory."""
    content = member(tarfile.XHDTYPE, header) + member(tarfile.REGTYPE, b"")
    assert "(an extended header is garbage)" in refusal("a.tar", content + END)


def test_many_digits_in_an_extended_header_are_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    """Before Python 3.11.10 and 3.12.6 they take the square of their number in time."""
    content = member(tarfile.XHDTYPE, record(b"comment=" + b"7" * 60_000)) * 20 + END
    assert "a number that is too long" in refusal("a.tar", content)


def test_extended_headers_as_people_have_them_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.pax_headers = {"comment": "0123456789abcdef" * 3}
        for name, data in FILES.items():
            info = tarfile.TarInfo(f"{name.removesuffix('.png')}{'é' * 60}{'7' * 100}.png")
            info.size, info.mtime = len(data), 1_700_000_000.25
            info.pax_headers = {"SCHILY.xattr.user.x": "line\nline = 1"}
            archive.addfile(info, io.BytesIO(data))
    (tmp_path / "scratch").mkdir()
    source = open_source(str(path), tmp_path / "scratch", tmp_path, show=False)
    assert [len(images) for images in source.images.values()] == [4, 4, 4]


@pytest.mark.parametrize(
    "content",
    [
        member(tarfile.GNUTYPE_SPARSE, b""),
        member(tarfile.XHDTYPE, record(b"GNU.sparse.major=1") + record(b"GNU.sparse.minor=0"))
        + member(tarfile.REGTYPE, b"x" * 512),
        member(tarfile.XHDTYPE, record(b"GNU.sparse.map=1,x")) + member(tarfile.REGTYPE, b""),
        member(tarfile.XHDTYPE, record(b"GNU.sparse.size=x")) + member(tarfile.REGTYPE, b""),
    ],
    ids=["gnu", "1.0", "0.1", "0.0"],
)
def test_a_file_with_holes_is_refused(content: bytes, refusal: Callable[[str, bytes], str]) -> None:
    """The list of holes may have any length, and what is no number in it was a ValueError."""
    assert refusal("a.tar", content + END) == (
        "has a file with holes, as no image has; pack it again without --sparse"
    )


def test_a_size_of_holes_that_is_no_number_is_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    content = member(tarfile.XHDTYPE, record(b"GNU.sparse.realsize=x")) + member(b"0", b"")
    assert "the archive is damaged" in refusal("a.tar", content + END)


def test_an_xz_archive_whose_window_is_gigabytes_is_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    content = bytearray(lzma.compress(member(tarfile.REGTYPE, b"") + END, preset=0))
    length = 4 * content[12] + 4
    head = content[12 : 12 + length - 4]
    assert head[2:4] == b"\x21\x01"  # LZMA2, with one byte: the size of its window
    head[4] = 40
    content[12 : 12 + length] = head + struct.pack("<I", zlib.crc32(head))
    assert "(Memory usage limit exceeded)" in refusal("a.tar.xz", bytes(content))


def test_xz_archives_of_several_streams_with_zeros_between_are_read(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    whole = buffer.getvalue()
    parts = [lzma.compress(whole[at : at + 5000]) + bytes(8) for at in range(0, len(whole), 5000)]
    (tmp_path / "a.tar.xz").write_bytes(b"".join(parts))
    (tmp_path / "scratch").mkdir()
    source = open_source(str(tmp_path / "a.tar.xz"), tmp_path / "scratch", tmp_path, show=False)
    assert [len(images) for images in source.images.values()] == [4, 4, 4]


def test_a_zip_whose_members_lie_before_its_beginning_is_refused(
    refusal: Callable[[str, bytes], str],
) -> None:
    """Looking for them there was an OSError, and the message that of a file without permission."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    content = bytearray(buffer.getvalue())
    end = content.rindex(b"PK\5\6")
    (start,) = struct.unpack_from("<I", content, end + 16)
    struct.pack_into("<I", content, end + 16, start + 1000)
    assert "the archive is damaged" in refusal("a.zip", bytes(content))


# Stores


def test_a_name_in_a_shard_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """Whoever writes a store also writes the hashes in its index."""
    content = shard().replace("0é.png".encode(), b"0\xff\xff.png")
    store, index = DirectoryStore(tmp_path), index_of(content)
    store.put("test/0.npy", content)
    with pytest.raises(UserError, match=r"shard test/0\.npy has a file name that is not UTF-8"):
        sources_and_labels(store, index, "test")


# Arrays


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_arrays_that_are_packed_with_bzip2_or_lzma_are_refused(method: int, tmp_path: Path) -> None:
    """A few kilobytes would become gigabytes when the first byte of an array is read."""
    content = bombed(method, "state.npy", npy(np.zeros(2)))
    assert len(content) < 20_000
    read = kept("findings", lambda: read_arrays(content, 2**20), refusal=ValueError, memory=LITTLE)
    assert read is None
    run = DirectoryStore(tmp_path)
    sha256 = hashlib.sha256(content).hexdigest()
    run.put(f"frozen/checkpoints/0001-00000001-{sha256}.npz", content)
    assert kept("findings", lambda: load_checkpoint(run, "frozen"), memory=LITTLE) is None


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_arrays_are_not_made_for_what_their_headers_claim(packing: int) -> None:
    header = (
        npy(np.zeros(2)).replace(b"(2,), }", b"(99999999,), }").replace(b" " * 7 + b"\n", b"\n")
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("x.npy", header)
    content = buffer.getvalue()
    read = kept("findings", lambda: read_arrays(content, 2**40), refusal=ValueError, memory=LITTLE)
    assert read is None


def test_arrays_of_more_bytes_than_they_may_have_are_refused_before_the_first_is_made() -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, a=np.zeros(2**20), b=np.zeros(2**20))
    content = buffer.getvalue()
    read = kept("findings", lambda: read_arrays(content, 2**23), refusal=ValueError, memory=LITTLE)
    assert read is None
    assert read_arrays(content, 2**23 + 1, ["b"]).keys() == {"b"}


# Names


def test_a_name_with_half_a_character_is_refused() -> None:
    for name in ("\ud800", "\udcff", "a\ud800" * 300):
        assert problem_of(f"cat/{name}.png") is not None
        assert problem_of(f"{name}/1.png") is not None
