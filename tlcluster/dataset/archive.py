"""The images of an archive, copied one after another into a single file.

An archive can only be read from front to back, and hundreds of thousands of small files would
take longer to make than to use.
"""

import gzip
import lzma
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from tlcluster.dataset.arrange import MAX_IMAGE_BYTES, Found, Source, arrange, limited
from tlcluster.dataset.names import SUFFIXES, is_litter, shown
from tlcluster.errors import UserError
from tlcluster.meter import meter

MAX_UNPACKED_BYTES = 2**38
"""Largest content of an archive, 256 GiB."""
MAX_RATIO = 100
"""Largest content for each byte of the archive. Images hardly get smaller in an archive."""
FREE_BYTES = 2**28
"""Content that every archive may have, however small it is."""
_DISK_SHARE = 0.9
"""Part of the free disk that the images of an archive may take."""

_MAX_HEADER_BYTES = 2**20
_BLOCK = 2**16


class DamagedArchive(UserError):
    """The bytes of an archive are not those that were packed."""


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


Reader = Callable[[str, BinaryIO, int], Iterator[_Member]]
"""Name of the source, the archive's file, most bytes of content → its files."""


def open_archive(
    source: str, path: Path, scratch: Path, valid_fraction: float | None, show: bool
) -> Source:
    """Find the images of an archive and copy their bytes into `scratch`.

    Args:
        source: name of the source, for messages and to know the kind of archive.
        path: its file.
        scratch: an empty folder.
        valid_fraction: see `arrange`.
        show: show progress on standard error.

    Raises:
        UserError: the archive is of an unknown kind, damaged, unsafe or too large
            for the disk; see also `arrange`.
        OSError: the archive cannot be read, or the disk is full.
    """
    reader = reader_of(source)
    spool = scratch / "images"
    size = path.stat().st_size
    limit = min(MAX_UNPACKED_BYTES, max(FREE_BYTES, MAX_RATIO * size))
    room = int(shutil.disk_usage(scratch).free * _DISK_SHARE)
    found = []
    with (
        path.open("rb") as raw,
        spool.open("wb") as into,
        meter("reading", size, "bytes", show) as advance,
    ):
        at = 0
        try:
            for item in limited(source, _spooled(source, reader(source, raw, limit), into, room)):
                found.append(item)
                advance(raw.tell() - at)
                at = raw.tell()
        except _DAMAGED as error:
            reason = str(error).encode("unicode_escape").decode()[:200]
            raise DamagedArchive(
                f"{source}: the archive is damaged or cut short ({reason}); fetch it again"
            ) from None
    return arrange(source, spool, found, valid_fraction)


# The last three are raised by the zipfile module if the directory of the archive is garbage.
_DAMAGED = (
    EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile,
    NotImplementedError, UnicodeDecodeError, IndexError, struct.error,
)  # fmt: skip


def reader_of(source: str) -> Reader:
    """How to read an archive of this name.

    Raises:
        UserError: it is of no known kind.
    """
    for suffix, reader in _READERS.items():
        if source.lower().endswith(suffix):
            return reader
    raise UserError(
        f"{source}: not a folder and not an archive that can be read; "
        f"a source is a folder, {', '.join(_READERS)}, or https:// and one of these"
    )


def stem_of(source: str) -> str:
    """The last part of a path or address, without the suffix of an archive."""
    name = source.rstrip("/").rpartition("/")[2]
    for suffix in _READERS:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _spooled(source: str, members: Iterator[_Member], into: BinaryIO, room: int) -> Iterator[Found]:
    for member in members:
        name = _safe_name(source, member.name)
        if name.endswith("/"):
            continue
        if is_litter(name) or not name.lower().endswith(SUFFIXES):
            yield Found(name)
            continue
        if member.size > MAX_IMAGE_BYTES:
            raise UserError(
                f"{source}: {shown(name)} unpacks to {member.size:,} bytes; an image has at most "
                f"{MAX_IMAGE_BYTES:,}; remove it or make it smaller"
            )
        if into.tell() + member.size > room:
            raise UserError(
                f"{Path(into.name).parents[1]}: the images of {source} take more than the "
                f"{room:,} bytes that may be used of this disk; free some space or name another "
                "folder with --cache"
            )
        data = member.read()
        if len(data) != member.size:
            raise EOFError(f"{shown(name)} has {len(data)} of {member.size} bytes")
        yield Found(name, into.tell(), len(data))
        into.write(data)


def _safe_name(source: str, name: str) -> str:
    """The name with forward slashes. Archives made on Windows may have backslashes."""
    parts = [part for part in name.replace("\\", "/").split("/") if part != "."]
    if not parts or not parts[0] or ".." in parts or ":" in parts[0]:
        raise UserError(
            f"{source}: {shown(name)} leads out of the archive; this is no safe archive"
        )
    return "/".join(parts)


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
        self, source: str, raw: BinaryIO | gzip.GzipFile | lzma.LZMAFile, limit: int
    ) -> None:
        self._source, self._raw, self._limit, self._left = source, raw, limit, limit

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _too_much(self._source, self._limit)
        return data


def _tar(
    source: str, raw: BinaryIO | gzip.GzipFile | lzma.LZMAFile, limit: int
) -> Iterator[_Member]:
    stream = cast(BinaryIO, _Bounded(source, raw, limit))
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictTarInfo) as archive:
        while (member := archive.next()) is not None:
            # The archive keeps what it has seen, which would be hundreds of megabytes.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if not member.isreg():
                raise _link_or_device(source, member.name)

            def read(member: tarfile.TarInfo = member) -> bytes:
                file = archive.extractfile(member)
                return file.read() if file else b""

            yield _Member(member.name, member.size, read)
    # The checksum of a compressed archive follows its padding.
    while stream.read(_BLOCK):
        pass


def _tar_gz(source: str, raw: BinaryIO, limit: int) -> Iterator[_Member]:
    with gzip.open(raw, "rb") as tar:
        yield from _tar(source, tar, limit)


def _tar_xz(source: str, raw: BinaryIO, limit: int) -> Iterator[_Member]:
    with lzma.open(raw, "rb") as tar:
        yield from _tar(source, tar, limit)


def _zip(source: str, raw: BinaryIO, limit: int) -> Iterator[_Member]:
    left = limit
    with zipfile.ZipFile(raw) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _link_or_device(source, info.filename)
            if info.flag_bits & 1:
                raise UserError(
                    f"{source}: {shown(info.filename)} is encrypted; unpack the archive and name "
                    "the folder"
                )

            def read(info: zipfile.ZipInfo = info) -> bytes:
                nonlocal left
                left -= info.file_size
                if left < 0:
                    raise _too_much(source, limit)
                with archive.open(info) as file:
                    # The module compares the checksum only when the very end is read.
                    return file.read(MAX_IMAGE_BYTES + 1) + file.read(1)

            yield _Member(info.filename, info.file_size, read)


_READERS: dict[str, Reader] = {
    ".tar": _tar,
    ".tar.gz": _tar_gz,
    ".tgz": _tar_gz,
    ".tar.xz": _tar_xz,
    ".zip": _zip,
}


class _StrictTarInfo(tarfile.TarInfo):
    """Raises an error on a damaged header; the tarfile module takes it for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictTarInfo":
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the zeros that end an archive
            raise tarfile.ReadError(str(error)) from None
        # Longer names and attributes are stored as files of their own, read into memory at once.
        if info.type in _EXTENSIONS and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
