"""The results that the study published, and whether they can be compared with a run's."""

from tlcluster import cinic10
from tlcluster.experiments import EXPERIMENTS, STUDY, StudyResult
from tlcluster.report.trained import ExperimentRun, Run

STUDY_BASE = "vgg16"


def base_of(run: Run, experiment: ExperimentRun) -> str | None:
    """The name of an experiment's base; None if nothing recorded says it yet."""
    if experiment.config is not None:
        return experiment.config.experiment.base
    # Not started. Manifests of version 0.1.0 name no base; there was only one.
    default = STUDY_BASE if experiment.name in EXPERIMENTS else None
    setting = run.manifest.settings.get(f"{experiment.name}.base", default)
    return setting if isinstance(setting, str) else default


def published(run: Run) -> tuple[StudyResult, ...]:
    """The study's results, without those that a run's experiment of that name cannot be compared
    with because it has another base. Empty unless the data set is CINIC-10."""
    if run.manifest.dataset.name != cinic10.NAME:
        return ()
    others = {one.name for one in run.experiments if base_of(run, one) != STUDY_BASE}
    return tuple(result for result in STUDY if result.name not in others)


def comparable(run: Run) -> dict[str, StudyResult]:
    """Experiment of the run → what the study reports of it, for those that can be compared."""
    names = {one.name for one in run.experiments}
    return {result.name: result for result in published(run) if result.name in names}
