"""Measure tlcluster beside other libraries: python jobs/bench.py --help"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.bench, typed="python jobs/bench.py")

if __name__ == "__main__":
    command(main)
