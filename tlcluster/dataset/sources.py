"""CINIC-10 as people have it: a folder or an archive, local or by https → its images, checked.

Whatever the source is, it ends as one list of images a split that says where
the bytes of each are. A folder is read in place. The images of an archive are
copied one after another into a single file: an archive can be read only from
front to back, and 270,000 small files would take longer to make than to use.
"""

import errno
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tlcluster.cinic10 import CLASSES, SPLITS
from tlcluster.cli import nearest
from tlcluster.dataset.download import download, public
from tlcluster.errors import UserError
from tlcluster.meter import meter
from tlcluster.paths import expanded

MAX_IMAGE_BYTES = 10 * 2**20
"""A PNG of 32×32 is 3 kB; what is larger than this is something else."""
MAX_FILES = 1_000_000
"""CINIC-10 has 270,000; the list of files is what memory grows with."""
_MAX_HEADER_BYTES = 2**20

_SUFFIXES = (".png", ".jpg", ".jpeg")
_LAYOUT = "CINIC-10 is train, valid and test, each with a folder a class, with .png or .jpg inside"
_BLOCK = 2**16


class Image(NamedTuple):
    """One image of a split: what it is, and where its bytes are."""

    label: int
    name: str
    """File name with suffix."""
    offset: int
    """Where its bytes begin in the file `Source.root`; -1 where that is a folder."""
    length: int
    """Bytes in that file."""


class Source(NamedTuple):
    """All images of a source."""

    name: str
    """For messages."""
    root: Path
    """The folder that holds `<split>/<class>/<name>`, or the file with the bytes of all images."""
    images: dict[str, list[Image]]
    """Split → images, in no order that means anything."""

    def read(self, split: str, image: Image) -> bytes:
        """The bytes of an image, or the first of more than `MAX_IMAGE_BYTES`."""
        if image.offset >= 0:
            with self.root.open("rb", buffering=0) as file:
                file.seek(image.offset)
                return file.read(image.length)
        path = self.root / split / CLASSES[image.label] / image.name
        with path.open("rb", buffering=0) as file:
            # To ask for the most at once would allocate it, which takes longer than all the rest.
            data = file.read(_BLOCK)
            if len(data) == _BLOCK:
                data += file.read(MAX_IMAGE_BYTES + 1 - _BLOCK)
            return data


class _Found(NamedTuple):
    path: str
    """Inside the source, with forward slashes; one at the end where it is no plain file."""
    offset: int = -1
    length: int = 0


def open_source(source: str, scratch: Path, downloads: Path, show: bool = True) -> Source:
    """Find the images of a folder, an archive or a URL, and check how they are laid out.

    Args:
        source: `DIRECTORY`, `FILE` or `https://…`; archives are .tar, .tar.gz, .tgz, .tar.xz, .zip.
        scratch: an empty folder for the images of an archive; as long as it
            exists, the source can be read.
        downloads: where a downloaded archive is kept.
        show: show progress on standard error.

    Raises:
        UserError: it cannot be read, is damaged or unsafe, or is not laid out like CINIC-10.
        OSError: the scratch folder is full.
    """
    path = expanded(source)
    if "://" in source:
        _reader(public(source))
        path = download(source, downloads, show)
        source = public(source)
    try:
        if path.is_dir():
            return _open_folder(source, path)
        if not path.exists():
            raise UserError(f"{source}: no such file or folder; check the path")
        return _open_archive(source, path, scratch, show)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # of the scratch folder: reading takes no space
        where = error.filename or source
        raise UserError(
            f"{where}: {os.strerror(error.errno or 0).lower()}; the source must be readable"
        ) from None


def arrange(source: str, found: Iterable[_Found]) -> dict[str, list[Image]]:
    """Files of a source → split → images.

    A single folder around the splits is stepped over, hidden files are
    ignored, and so is everything beside the splits (CINIC-10 has a README and
    lists of its ImageNet images there).

    Raises:
        UserError: a split or class is missing or unknown, or a file does not
            belong there; of several problems, the first in the order of paths.
    """
    items = sorted(item for item in found if not _is_hidden(item.path))
    top = _top(source, [item.path for item in items])
    images: dict[str, list[Image]] = {split: [] for split in SPLITS}
    filled = set()
    before = ""
    for path, offset, length in items:
        split, _, inside = path.removeprefix(top).partition("/")
        if not path.startswith(top) or not inside or split not in SPLITS:
            continue
        if problem := "is there twice; leave one" if path == before else _problem(inside):
            raise UserError(f"{source}: {path!r} {problem}")
        before = path
        class_name, _, name = inside.partition("/")
        filled.add((split, class_name))
        images[split].append(Image(CLASSES.index(class_name), name, offset, length))
    for split in SPLITS:
        if not images[split]:
            raise UserError(f"{source}: there is no image in {split!r}; {_LAYOUT}")
        for class_name in CLASSES:
            if (split, class_name) not in filled:
                raise UserError(
                    f"{source}: there is no image in '{split}/{class_name}'; every split needs "
                    f"images of every class: {', '.join(CLASSES)}"
                )
    return images


def _problem(path: str) -> str | None:
    """What is wrong with a file of a split, if anything is."""
    class_name, slash, name = path.partition("/")
    if not slash:
        return f"is a file between the class folders; {_LAYOUT}"
    if class_name not in CLASSES:
        return f"is of an unknown class; {nearest(class_name, CLASSES)}"
    if "/" in name:
        return f"is or is in a folder inside a class; {_LAYOUT}"
    if not name.lower().endswith(_SUFFIXES):
        return "is no .png or .jpg; move it out of the class folder"
    if not name.isprintable():
        return "has a name that cannot be printed; rename it"
    return None


def _is_hidden(path: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.split("/"))


def _top(source: str, paths: list[str]) -> str:
    """The folder around the splits with its slash, or nothing."""
    parts = [path.split("/", 2) for path in paths]
    if any(len(part) > 1 and part[0] in SPLITS for part in parts):
        return ""
    tops = sorted({part[0] for part in parts if len(part) > 2 and part[1] in SPLITS})
    if not tops:
        there = sorted({part[0] for part in parts if len(part) > 1})[:10]
        raise UserError(
            f"{source}: there is no folder 'train', 'valid' or 'test'; {_LAYOUT}; the folders "
            f"there are: {', '.join(there) or 'none'}"
        )
    if len(tops) > 1:
        raise UserError(
            f"{source}: there are several data sets: {', '.join(tops[:10])}; name one of them"
        )
    return f"{tops[0]}/"


def _open_folder(source: str, folder: Path) -> Source:
    inside = [name for name in _names(folder) if (folder / name).is_dir()]
    tops = ["", *(f"{name}/" for name in inside)]
    found = list(_limited(source, (item for top in tops for item in _walk(folder, top))))
    images = arrange(source, found)
    return Source(source, folder / _top(source, [item.path for item in found]), images)


def _walk(folder: Path, top: str) -> Iterator[_Found]:
    """The folder `top` itself, and what is in the splits in it."""
    yield _Found(top)
    for split in SPLITS:
        if not (folder / top / split).is_dir():
            continue
        for class_name in _names(folder / top / split):
            inside = folder / top / split / class_name
            if not inside.is_dir():
                yield _Found(f"{top}{split}/{class_name}")
                continue
            with os.scandir(inside) as entries:
                for entry in entries:
                    slash = "" if entry.is_file() else "/"
                    yield _Found(f"{top}{split}/{class_name}/{entry.name}{slash}")


def _names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))  # noqa: PTH208


def _limited(source: str, found: Iterable[_Found]) -> Iterator[_Found]:
    for count, item in enumerate(found):
        if count == MAX_FILES:
            raise UserError(
                f"{source}: there are more than {MAX_FILES:,} files; CINIC-10 has 270,000 images"
            )
        yield item


class _Member(NamedTuple):
    name: str
    size: int
    read: Callable[[], bytes]


def _open_archive(source: str, path: Path, scratch: Path, show: bool) -> Source:
    reader = _reader(source)
    spool = scratch / "images"
    found = []
    with (
        path.open("rb") as raw,
        spool.open("wb") as into,
        meter("reading", path.stat().st_size, "bytes", show) as advance,
    ):
        at = 0
        try:
            for item in _limited(source, _spooled(source, reader(source, raw), into)):
                found.append(item)
                advance(raw.tell() - at)
                at = raw.tell()
        except _DAMAGED as error:
            raise UserError(
                f"{source}: the archive is damaged or cut short ({error}); fetch it again"
            ) from None
    return Source(source, spool, arrange(source, found))


# The last three are what the zipfile module lets out of a directory of garbage.
_DAMAGED = (
    EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile,
    NotImplementedError, UnicodeDecodeError, IndexError, struct.error,
)  # fmt: skip


def _spooled(source: str, members: Iterator[_Member], into: BinaryIO) -> Iterator[_Found]:
    for member in members:
        name = _safe_name(source, member.name)
        if _is_hidden(name) or not name.lower().endswith(_SUFFIXES):
            yield _Found(name)
            continue
        if member.size > MAX_IMAGE_BYTES:
            raise UserError(
                f"{source}: {name!r} unpacks to {member.size} bytes; "
                f"an image of 32×32 has at most {MAX_IMAGE_BYTES}"
            )
        data = member.read()
        if len(data) != member.size:
            raise EOFError(f"{name} has {len(data)} of {member.size} bytes")
        yield _Found(name, into.tell(), len(data))
        into.write(data)


def _safe_name(source: str, name: str) -> str:
    parts = [part for part in name.split("/") if part != "."]
    outside = name.startswith("/") or not parts or ".." in parts
    if outside or "\\" in name or ":" in parts[0]:
        raise UserError(f"{source}: {name!r} leads out of the archive; this is no safe archive")
    return "/".join(parts)


def _reader(source: str) -> Callable[[str, BinaryIO], Iterator[_Member]]:
    for suffix, reader in _READERS.items():
        if source.lower().endswith(suffix):
            return reader
    raise UserError(
        f"{source}: not a folder and not an archive that can be read; "
        f"a source is a folder, {', '.join(_READERS)}, or https:// and one of these"
    )


def _tar(source: str, raw: BinaryIO | gzip.GzipFile | lzma.LZMAFile) -> Iterator[_Member]:
    with tarfile.open(fileobj=raw, mode="r|", tarinfo=_StrictTarInfo) as archive:
        while (member := archive.next()) is not None:
            # The archive keeps what it has seen; of this many it would be hundreds of megabytes.
            archive.members.clear()  # type: ignore[attr-defined]
            if member.isdir():
                continue
            if not member.isreg():
                raise UserError(
                    f"{source}: {member.name!r} is a link or a device; an archive of images has "
                    "files and folders only"
                )

            def read(member: tarfile.TarInfo = member) -> bytes:
                file = archive.extractfile(member)
                return file.read() if file else b""

            yield _Member(member.name, member.size, read)
    # The checksum of a compressed archive is behind its padding.
    while raw.read(_BLOCK):
        pass


def _tar_gz(source: str, raw: BinaryIO) -> Iterator[_Member]:
    with gzip.open(raw, "rb") as tar:
        yield from _tar(source, tar)


def _tar_xz(source: str, raw: BinaryIO) -> Iterator[_Member]:
    with lzma.open(raw, "rb") as tar:
        yield from _tar(source, tar)


def _zip(source: str, raw: BinaryIO) -> Iterator[_Member]:
    with zipfile.ZipFile(raw) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.is_dir():
                continue
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(
                    f"{source}: {info.filename!r} is a link or a device; an archive of images has "
                    "files and folders only"
                )
            if info.flag_bits & 1:
                raise UserError(
                    f"{source}: {info.filename!r} is encrypted; unpack the archive and name the "
                    "folder"
                )

            def read(info: zipfile.ZipInfo = info) -> bytes:
                with archive.open(info) as file:
                    # Reading to the very end is what makes the module compare the checksum.
                    return file.read(MAX_IMAGE_BYTES + 1) + file.read(1)

            yield _Member(info.filename, info.file_size, read)


_READERS = {
    ".tar": _tar,
    ".tar.gz": _tar_gz,
    ".tgz": _tar_gz,
    ".tar.xz": _tar_xz,
    ".zip": _zip,
}


class _StrictTarInfo(tarfile.TarInfo):
    """A header that is damaged is an error; to the tarfile module it is the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictTarInfo":
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the zeros that do end an archive
            raise tarfile.ReadError(str(error)) from None
        # Longer names and attributes come as files of their own, read into memory at once.
        if info.type in _EXTENSIONS and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size} bytes")
        return info


_EXTENSIONS = (
    tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
)  # fmt: skip
