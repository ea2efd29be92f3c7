"""The program `tlcluster`, also as `python -m tlcluster`."""

import functools
import sys
from pathlib import Path
from typing import NoReturn

from tlcluster import commands
from tlcluster.cli import command


def main() -> NoReturn:
    """Run a command and exit with its status."""
    as_module = Path(sys.argv[0]).name == "__main__.py"
    program = "python -m tlcluster" if as_module else "tlcluster"
    command(functools.partial(commands.main, program=program))


if __name__ == "__main__":
    main()
