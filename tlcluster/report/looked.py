"""What the rule of `--resolve` says of a run, by the seeds that it has."""

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tlcluster.records import LooksRecord
from tlcluster.report.formats import listing
from tlcluster.report.seeds.moments import Right
from tlcluster.report.seeds.resolve import Resolution, looks, resolve
from tlcluster.report.trained import ExperimentRun

FAILED = ("failed", "damaged")


def resolved(
    rule: LooksRecord, experiments: Iterable[ExperimentRun], right: Mapping[str, Sequence[Right]]
) -> Resolution:
    """What is decided, and which seeds are wanted.

    An experiment of which a seed failed has no part in it: the rule is about
    the seeds that were planned, not about those that went well. Of the others,
    the seeds up to the first that was not tested yet count.

    Args:
        rule: of the run.
        experiments: of the run.
        right: experiment → for each of its tested seeds, (images,) whether each image was right.
    """
    images = max((len(row) for rows in right.values() for row in rows), default=0)
    tables = {}
    for one in experiments:
        if any(replicate.status in FAILED for replicate in one.replicates):
            continue
        tested = itertools.takewhile(lambda replicate: replicate.metrics, one.replicates)
        rows = right[one.name][: len(list(tested))]
        tables[one.name] = np.array(rows, bool).reshape(len(rows), images)
    return resolve(tables, rule.first, rule.most)


def looked(rule: LooksRecord) -> str:
    """The rule in words, for the page."""
    sizes = looks(rule.first, rule.most)
    at = listing(f"{size:,}" for size in sizes)
    return f"{at} seeds" if len(sizes) > 1 else f"{at} seeds, once"
