"""Train the experiments at the same time and write one report: python jobs/run_all.py --help"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.run, typed="python jobs/run_all.py")

if __name__ == "__main__":
    command(main)
