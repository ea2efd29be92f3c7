"""Write the report of a run again, from its records: python jobs/report.py --run URL"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.report, typed="python jobs/report.py")

if __name__ == "__main__":
    command(main)
