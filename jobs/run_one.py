"""Train one experiment, in a run of its own or in one with others: python jobs/run_one.py NAME"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.run_one, typed="python jobs/run_one.py")

if __name__ == "__main__":
    command(main)
