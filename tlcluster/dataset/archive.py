"""The images of an archive, copied one after another into a single file.

An archive can only be read from front to back, and hundreds of thousands of small files would
take longer to make than to use.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tlcluster.dataset.arrange import MAX_IMAGE_BYTES, Found, Source, arrange, limited
from tlcluster.dataset.names import SUFFIXES, is_litter, shown
from tlcluster.dataset.unpack import DAMAGED, READERS, Member, Reader
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


class DamagedArchive(UserError):
    """The bytes of an archive are not those that were packed."""


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
        except DAMAGED as error:
            reason = str(error).encode("unicode_escape").decode()[:200]
            raise DamagedArchive(
                f"{source}: the archive is damaged or cut short ({reason}); fetch it again"
            ) from None
    return arrange(source, spool, found, valid_fraction)


def reader_of(source: str) -> Reader:
    """How to read an archive of this name.

    Raises:
        UserError: it is of no known kind.
    """
    for suffix, reader in READERS.items():
        if source.lower().endswith(suffix):
            return reader
    raise UserError(
        f"{source}: not a folder and not an archive that can be read; "
        f"a source is a folder, {', '.join(READERS)}, or https:// and one of these"
    )


def stem_of(source: str) -> str:
    """The last part of a path or address, without the suffix of an archive."""
    name = source.rstrip("/").rpartition("/")[2]
    for suffix in READERS:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def _spooled(source: str, members: Iterator[Member], into: BinaryIO, room: int) -> Iterator[Found]:
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
