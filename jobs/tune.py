"""Search better recipes for experiments: python jobs/tune.py NAME[,NAME…]"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.tune, typed="python jobs/tune.py")

if __name__ == "__main__":
    command(main)
