"""Run one experiment, in a run of its own or in one with others: python jobs/run_one.py NAME."""

import os
import shlex
import time
from collections.abc import Sequence

from tlcluster.cli import command, parse
from tlcluster.orchestration.environment import quiet_import, tensorflow_environment
from tlcluster.settings import OneSettings


def main(argv: Sequence[str]) -> int:
    started = time.time()
    settings = parse(OneSettings, "jobs/run_one.py", __doc__, argv)
    os.environ.update(tensorflow_environment())
    # Ray and TensorFlow take seconds to import; --help and wrong flags need neither.
    with quiet_import():
        from tlcluster.orchestration.suite import run_suite

    return run_suite(settings.suite(), shlex.join(["python", "jobs/run_one.py", *argv]), started)


if __name__ == "__main__":
    command(main)
