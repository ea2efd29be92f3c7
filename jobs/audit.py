"""Find images that the splits of a data set share: python jobs/audit.py --store URL"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.audit, typed="python jobs/audit.py")

if __name__ == "__main__":
    command(main)
