"""Compare runs on one page: python jobs/compare.py RUN RUN …"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.compare, typed="python jobs/compare.py")

if __name__ == "__main__":
    command(main)
