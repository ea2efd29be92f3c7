"""Write an experiment's model for other programs: python jobs/export.py --help"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.export, typed="python jobs/export.py")

if __name__ == "__main__":
    command(main)
