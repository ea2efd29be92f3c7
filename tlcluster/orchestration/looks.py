"""More seeds for what is not decided yet: what `--resolve` trains next."""

from dataclasses import replace

from tlcluster.orchestration.ready import Ready
from tlcluster.report.runs import read_run
from tlcluster.storage.protocol import Store


def next_look(ready: Ready, run: Store) -> Ready | None:
    """The run with the seeds that its next look needs; None if there is no further one.

    It depends on the records of the run alone, so a run that was interrupted
    comes to the same seeds again.

    Args:
        ready: what has been trained now.
        run: the run's folder.

    Raises:
        UserError: a record is damaged.
        StoreUnavailable: storage does not answer.
    """
    found = read_run(run).resolution if ready.settings.resolve else None
    if found is None:
        return None
    first = len(ready.settings.all_seeds)
    now = {one.name: ready.counts.get(one.name, first) for one in ready.experiments}
    # Those of which a seed could not be trained are not wanted, or no more than they have.
    more = {name: count for name, count in found.wanted.items() if count > now.get(name, count)}
    return replace(ready, counts=now | more) if more else None
