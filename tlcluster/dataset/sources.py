"""A data set as people have it: a folder or an archive, local or by https → its images, checked."""

from pathlib import Path

from tlcluster.dataset.archive import DamagedArchive, open_archive, reader_of
from tlcluster.dataset.arrange import Source
from tlcluster.dataset.download import download, public
from tlcluster.dataset.folder import open_folder
from tlcluster.errors import FULL, UserError, from_os_error
from tlcluster.paths import expanded


def open_source(
    source: str,
    scratch: Path,
    downloads: Path,
    show: bool = True,
    *,
    valid_fraction: float | None = None,
) -> Source:
    """Find the images of a folder, an archive or a URL, and check their layout.

    Args:
        source: `DIRECTORY`, `FILE` or `https://…`; archives are .tar, .tar.gz, .tgz, .tar.xz, .zip.
        scratch: an empty folder for the images of an archive; the source can be
            read as long as it exists.
        downloads: folder where a downloaded archive is kept.
        show: show progress on standard error.
        valid_fraction: take this part of the train split as the validation
            split; None if the source has a validation split.

    Raises:
        UserError: it cannot be read, is damaged or unsafe, or is not `split/class/image`.
        StoreUnavailable: a network file system does not answer for now.
        OSError: the scratch folder is full.
    """
    path = expanded(source)
    downloaded = "://" in source
    if downloaded:
        reader_of(public(source))
        path = download(source, downloads, show)
        source = public(source)
    try:
        if path.is_dir():
            return open_folder(source, path, valid_fraction)
        if not path.exists():
            raise UserError(f"{source}: no such file or folder; check the path")
        if not path.is_file():
            raise UserError(
                f"{source}: is a pipe, socket or device; give a folder or the file of an archive"
            )
        return open_archive(source, path, scratch, valid_fraction, show)
    except DamagedArchive:
        if downloaded:
            path.unlink(missing_ok=True)  # the same command downloads it again
        raise
    except OSError as error:
        if error.errno in FULL:
            raise  # from the scratch folder: reading takes no space
        raise from_os_error(
            error, error.filename or source, "the source must be readable"
        ) from None
