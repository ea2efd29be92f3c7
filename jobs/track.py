"""Send a run to MLflow or Weights & Biases, from its records: python jobs/track.py --run URL"""

import functools

from tlcluster import commands
from tlcluster.cli import command

main = functools.partial(commands.track, typed="python jobs/track.py")

if __name__ == "__main__":
    command(main)
