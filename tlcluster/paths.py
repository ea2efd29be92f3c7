"""Paths: as users write them, and where this package lies."""

import sys
from pathlib import Path

from tlcluster.errors import UserError

CHECKOUT = Path(__file__).parents[1]
"""The folder around the package: the checkout, unless the package was installed from a wheel."""

IN_CHECKOUT = (CHECKOUT / "jobs" / "run_all.py").is_file()
"""False if the package was installed from a wheel."""

SHARED = CHECKOUT.parent / "shared"
"""Beside the checkout: weights and images, on machines that have them."""


def typed(command: str) -> str:
    """How a user types a command here: `python jobs/ingest.py`, or `tlcluster ingest`."""
    script = {"run": "run_all"}.get(command, command.replace("-", "_"))
    return f"python jobs/{script}.py" if IN_CHECKOUT else f"tlcluster {command}"


def checked_text(path: Path) -> Path:
    """The path, if it can be written into a record.

    Raises:
        UserError: its name is not UTF-8, or has a zero character.
    """
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{text}: the path is not {sys.getfilesystemencoding().upper()}, so no record can name "
            "it; rename the folder, or set LC_ALL=C.UTF-8"
        ) from None
    if "\0" in text:
        raise UserError(f"{text}: no path has a zero character; check the path")
    return path


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~account` replaced by their home directories.

    Raises:
        UserError: there is no such account.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such account; give the path in full") from None
