"""Paths: as users write them, and where this package lies."""

from pathlib import Path

from tlcluster.errors import UserError

CHECKOUT = Path(__file__).parents[1]
"""The folder around the package: the checkout, unless the package was installed from a wheel."""

SHARED = CHECKOUT.parent / "shared"
"""Beside the checkout: weights and images, on machines that have them."""


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~account` replaced by their home directories.

    Raises:
        UserError: there is no such account.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such account; give the path in full") from None
