"""Put a data set into a store: python jobs/ingest.py --source PATH|URL --store URL"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.ingest, typed="python jobs/ingest.py")

if __name__ == "__main__":
    command(main)
