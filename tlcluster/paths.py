"""Paths as users write them."""

from pathlib import Path

from tlcluster.errors import UserError


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~account` replaced by their home directories.

    Raises:
        UserError: there is no such account.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such account; give the path in full") from None
