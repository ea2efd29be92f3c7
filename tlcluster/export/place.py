"""A folder or file that appears with its whole content, or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from tlcluster.errors import UserError, from_os_error
from tlcluster.paths import checked_text, expanded


def free_place(flag: str, given: str) -> Path:
    """Where a new folder will be.

    Raises:
        UserError: something is there already, or the path cannot be used.
    """
    path = checked_text(expanded(given).absolute())
    try:
        taken = path.is_symlink() or (path.exists() and not path.is_dir()) or _has_content(path)
    except OSError as error:
        raise from_os_error(error, f"{flag} {given}", "name another folder") from None
    if taken:
        raise UserError(f"{flag} {given}: exists and is not empty; name a new folder, or remove it")
    return path


def _has_content(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


@contextlib.contextmanager
def whole_folder(flag: str, path: Path) -> Iterator[Path]:
    """A new folder to write into. At the end of the block it gets the name `path`; if the block
    fails, it is removed.

    Raises:
        UserError: it cannot be made or written.
        StoreUnavailable: its file system does not answer now.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.mkdir()
        yield beside
        # This replaces an empty folder and refuses any other.
        os.rename(beside, path)  # noqa: PTH104 - Path.replace says the opposite of what happens
    except OSError as error:
        raise from_os_error(error, f"{flag} {path}", "name a place that can be written") from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_whole(flag: str, path: Path, content: str) -> None:
    """Write a file, in place of an earlier one.

    Raises:
        UserError: it cannot be written.
        StoreUnavailable: its file system does not answer now.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        beside.write_text(content, encoding="utf-8", newline="")
        beside.replace(path)
    except OSError as error:
        raise from_os_error(error, f"{flag} {path}", "name a file that can be written") from None
    finally:
        beside.unlink(missing_ok=True)
