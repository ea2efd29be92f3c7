"""Look whether a run could start on every node of a cluster: python jobs/check.py --help"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.check, typed="python jobs/check.py")

if __name__ == "__main__":
    command(main)
