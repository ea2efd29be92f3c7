"""Check a report against its records: python jobs/verify.py --run URL"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.verify, typed="python jobs/verify.py")

if __name__ == "__main__":
    command(main)
