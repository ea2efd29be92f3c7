"""Measure tlcluster beside what people use: python jobs/bench.py --help."""

import shlex
from collections.abc import Sequence

from tlcluster.cli import command, parse
from tlcluster.settings import BenchSettings


def main(argv: Sequence[str]) -> int:
    settings = parse(BenchSettings, "jobs/bench.py", __doc__, argv)
    from tlcluster.bench.parts import run_bench

    return run_bench(settings, shlex.join(["python", "jobs/bench.py", *argv]))


if __name__ == "__main__":
    command(main)
