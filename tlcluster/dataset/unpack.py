"""Archives of every known kind → their files, one after another, from front to back.

Strangers make archives. Whatever the bytes are, reading them ends, takes bounded memory, and raises
`UserError` or one of `DAMAGED`.
"""

import gzip
import io
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, NoReturn, cast

from tlcluster.dataset.arrange import MAX_IMAGE_BYTES
from tlcluster.dataset.names import shown
from tlcluster.errors import UserError

XZ_MEMORY = 2**29
"""Most memory for unpacking xz. Its window may be 4 GiB by the format; `xz -9` takes 65 MiB."""

_MAX_HEADER_BYTES = 2**16
_MAX_GLOBAL_HEADERS = 1000
"""Each file of a tar archive copies them. `git archive` writes one."""
_READS_BEHIND = 100
"""How often the tarfile module may read behind the end of an archive. To skip a file that claims
exabytes, it would do so for years."""
_BLOCK = 2**16

DAMAGED = (
    EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile,
    NotImplementedError, IndexError, OverflowError, RecursionError, ValueError, struct.error,
)  # fmt: skip
"""What the bytes of an archive that nobody packed so make the readers raise. Those from
NotImplementedError on come out of the tarfile and zipfile modules if a header is garbage."""


class Member(NamedTuple):
    """A file of an archive."""

    name: str
    size: int
    """Bytes, as the archive says."""
    read: Callable[[], bytes]
    """To be called before the next member is asked for."""


Reader = Callable[[str, BinaryIO, int], Iterator[Member]]
"""Name of the source, the archive's file, most bytes of content → its files."""


def _link_or_device(source: str, name: str) -> UserError:
    return UserError(
        f"{source}: {shown(name)} is a link or a device; an archive of images has files and "
        "folders only: pack it again with the files that links stand for (tar --dereference)"
    )


def _too_much(source: str, limit: int) -> UserError:
    return UserError(
        f"{source}: unpacks to more than {limit:,} bytes, too much for an archive of its size; if "
        "you expect that, unpack it yourself and name the folder"
    )


class _Bounded:
    """What is read from a decompressed stream, with an error after `limit` bytes.

    All bytes count: those of headers, of files that are skipped, and of what follows the end.
    """

    def __init__(
        self, source: str, raw: BinaryIO | gzip.GzipFile | io.BufferedReader, limit: int
    ) -> None:
        self._source, self._raw, self._limit, self._left = source, raw, limit, limit
        self._reads_behind = 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much(self._source, self._limit)
        if not data:
            self._reads_behind += 1
            if self._reads_behind > _READS_BEHIND:
                raise EOFError("a file reaches behind the end of the archive")
        return data


def _tar(
    source: str, raw: BinaryIO | gzip.GzipFile | io.BufferedReader, limit: int
) -> Iterator[Member]:
    stream = cast(BinaryIO, _Bounded(source, raw, limit))
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo) as archive:
            yield from _members(source, archive)
    except _Holes:
        raise UserError(
            f"{source}: has a file with holes, as no image has; pack it again without --sparse"
        ) from None
    # The checksum of a compressed archive follows its padding.
    while stream.read(_BLOCK):
        pass


def _members(source: str, archive: tarfile.TarFile) -> Iterator[Member]:
    while (member := archive.next()) is not None:
        # The archive keeps what it has seen, which would be hundreds of megabytes.
        archive.members.clear()  # type: ignore[attr-defined]
        if len(archive.pax_headers) > _MAX_GLOBAL_HEADERS:
            raise tarfile.ReadError("too many headers for all files")
        if member.isdir():
            continue
        if not member.isreg():
            raise _link_or_device(source, member.name)

        def read(member: tarfile.TarInfo = member) -> bytes:
            file = archive.extractfile(member)
            return file.read() if file else b""

        yield Member(member.name, member.size, read)


def _tar_gz(source: str, raw: BinaryIO, limit: int) -> Iterator[Member]:
    with gzip.open(raw, "rb") as tar:
        yield from _tar(source, tar, limit)


def _tar_xz(source: str, raw: BinaryIO, limit: int) -> Iterator[Member]:
    with io.BufferedReader(_Xz(raw), _BLOCK) as tar:
        yield from _tar(source, tar, limit)


class _Xz(io.RawIOBase):
    """What xz has packed. The lzma module's own file has no limit of memory."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._packed = _decompressor()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        data = b""
        while not data:
            if self._packed.eof:
                # Several streams in a row are one file; zeros may follow each.
                rest = (self._packed.unused_data or self._raw.read(_BLOCK)).lstrip(b"\0")
                if not rest and not (rest := self._after_zeros()):
                    break
                self._packed = _decompressor()
            elif self._packed.needs_input:
                rest = self._raw.read(_BLOCK)
                if not rest:
                    raise EOFError("the compressed data has no end")
            else:
                rest = b""
            data = self._packed.decompress(rest, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _after_zeros(self) -> bytes:
        while block := self._raw.read(_BLOCK):
            if rest := block.lstrip(b"\0"):
                return rest
        return b""


def _decompressor() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(memlimit=XZ_MEMORY)


def _zip(source: str, raw: BinaryIO, limit: int) -> Iterator[Member]:
    left = limit
    with zipfile.ZipFile(raw) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.is_dir():
                continue
            if info.header_offset < 0:
                raise zipfile.BadZipFile("a file before the beginning")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link_or_device(source, info.filename)
            if info.flag_bits & 1:
                raise UserError(
                    f"{source}: {shown(info.filename)} is encrypted; unpack the archive and name "
                    "the folder"
                )

            def read(info: zipfile.ZipInfo = info) -> bytes:
                nonlocal left
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # The module unpacks others without a limit: 100 bytes of bzip2 are megabytes.
                    raise UserError(
                        f"{source}: {shown(info.filename)} is packed in another way than by "
                        "deflate; unpack the archive and name the folder"
                    )
                left -= info.file_size
                if left < 0:
                    raise _too_much(source, limit)
                with archive.open(info) as file:
                    # The module compares the checksum only when the very end is read.
                    return file.read(MAX_IMAGE_BYTES + 1) + file.read(1)

            yield Member(info.filename, info.file_size, read)


READERS: dict[str, Reader] = {
    ".tar": _tar,
    ".tar.gz": _tar_gz,
    ".tgz": _tar_gz,
    ".tar.xz": _tar_xz,
    ".zip": _zip,
}
"""Suffix of an archive → what reads it."""


class _Holes(Exception):
    """An archive has a file with holes."""


class _StrictTarInfo(tarfile.TarInfo):
    """Raises an error on a damaged header; the tarfile module takes it for the end.

    It also refuses what makes the module take hours or gigabytes: files with holes, whose list of
    holes may have any length, and extended headers that are not as POSIX has them.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictTarInfo":
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the zeros that end an archive
            raise tarfile.ReadError(str(error)) from None
        # Longer names and attributes are stored as files of their own, read into memory at once.
        if info.type in _EXTENSIONS and not 0 <= info.size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise _Holes
        return info

    def _proc_pax(self, archive: Any) -> Any:
        stream = archive.fileobj
        header = stream.read(self._block(self.size))  # type: ignore[attr-defined]
        _check_records(header)
        stream.buf, stream.pos = header + stream.buf, stream.pos - len(header)
        return super()._proc_pax(archive)  # type: ignore[misc]

    def _proc_gnusparse_00(self, *_: object) -> NoReturn:
        raise _Holes

    _proc_gnusparse_01 = _proc_gnusparse_10 = _proc_gnusparse_00


_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip

_RECORD = re.compile(rb"([0-9]{1,5}) [^=\n]{1,1000}=")
_MOST_DIGITS = 256
"""In a row; a file name cannot have more."""


def _check_records(header: bytes) -> None:
    """Refuse an extended header that is no list of records `LENGTH KEYWORD=VALUE`, each a line.

    In records that overlap, the module would find a keyword at each byte, and before Python 3.11.10
    and 3.12.6 it needs the square of the time for many digits in a row (CVE-2024-6232).

    Raises:
        tarfile.ReadError: it is not.
    """
    at = 0
    while header[at : at + 1].strip(b"\0"):  # zeros fill the last block
        record = _RECORD.match(header, at)
        end = at + int(record[1]) if record else 0
        if record is None or record.end() >= end or header[end - 1 : end] != b"\n":
            raise tarfile.ReadError("an extended header is garbage")
        at = end
    if max(map(len, re.findall(rb"[0-9]+", header)), default=0) > _MOST_DIGITS:
        raise tarfile.ReadError("an extended header has a number that is too long")
