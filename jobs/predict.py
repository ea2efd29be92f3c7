"""Classify pictures with an exported model: python jobs/predict.py --model FILE PATH…"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.predict, typed="python jobs/predict.py")

if __name__ == "__main__":
    command(main)
