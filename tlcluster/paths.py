"""Paths: as users write them, and where this package lies."""

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


def expanded(path: str | Path) -> Path:
    """The path with `~` and `~account` replaced by their home directories.

    Raises:
        UserError: there is no such account.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path}: there is no such account; give the path in full") from None
