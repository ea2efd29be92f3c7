"""What the driver knows at the start: the order of the trainings, and what earlier drivers left."""

from collections.abc import Mapping

from tlcluster.cost import longest_first
from tlcluster.orchestration.budget import allowed_seconds
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.replicates import seed_by_seed
from tlcluster.orchestration.state import Limits, Standing, State
from tlcluster.records import ExperimentResult
from tlcluster.training.work import forwards


def first_state(ready: Ready, earlier: Mapping[str, ExperimentResult]) -> State:
    """What the driver knows at the start: the results that earlier drivers have left."""
    settings = ready.settings
    forward = forwards(ready.experiments, ready.index.image_shape)
    order = longest_first(ready.experiments, forward)
    if settings.budget is not None:
        # It is worth most with what takes least.
        order.reverse()
    return State(
        tuple(
            Standing(
                one.key,
                one.experiment.epochs,
                "finished" if earlier[one.key].status == "finished" else "queued",
                attempts=earlier[one.key].attempts,
                note="earlier" if earlier[one.key].status == "finished" else "",
                earlier_seconds=earlier[one.key].reserved_seconds or 0.0,
            )
            for one in seed_by_seed(ready.replicates, order)
        ),
        Limits(
            at_once=ready.admission.at_once,
            retries=settings.retries,
            stall=60 * settings.stall,
            deadline=60 * settings.deadline if settings.deadline else None,
            storage_wait=60 * settings.storage_wait,
            budget=allowed_seconds(settings, ready.admission.gpus_per_worker),
        ),
    )
