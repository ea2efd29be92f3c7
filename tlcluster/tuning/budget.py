"""Whether a budget is enough for a trial at all."""

from collections.abc import Mapping

from tlcluster.errors import UserError
from tlcluster.orchestration.display import duration
from tlcluster.orchestration.estimate import matrix_product_rate, seconds_alone
from tlcluster.orchestration.ready import Ready
from tlcluster.training.work import ask_work


def trial_seconds(ready: Ready) -> Mapping[str, float]:
    """Experiment → how long its first trial takes with this machine to itself, roughly.

    For a frozen base that is the time of its features, which later trials find. Empty with GPUs,
    whose speed is not known.
    """
    if ready.admission.gpus_per_worker:
        return {}
    index = ready.index
    works = ask_work(ready.experiments, image_shape=index.image_shape, classes=len(index.classes))
    rows = {"train": index.rows("train"), "valid": index.rows("valid"), "test": 0}
    seconds = seconds_alone(ready, works, rows, matrix_product_rate())
    return {one.name: time for one, time in zip(ready.experiments, seconds, strict=True)}


def refuse_less_than_a_trial(hours: float, seconds: Mapping[str, float]) -> None:
    """Refuse a budget that the first trial of an experiment would use up.

    Args:
        hours: worker-hours for each experiment.
        seconds: of `trial_seconds`.

    Raises:
        UserError: it is too small for one of them.
    """
    for name, needed in seconds.items():
        if 3600 * hours < needed:
            raise UserError(
                f"--budget {hours:g}: a trial of {name} takes at least {duration(needed)} on this "
                f"machine, {needed / 3600:.2g} worker-hours; give room for some of them, "
                f"--budget {10 * needed / 3600:.2g}, or fewer --epochs"
            )
