"""How much each field of a search space decides: functional ANOVA over the trials."""

from collections.abc import Mapping

from tlcluster.tuning.ray_tune import distributions
from tlcluster.tuning.records import TrialRecord
from tlcluster.tuning.space import Space

LEAST_TRIALS = 8
"""With fewer, the figures are noise."""


def importances(space: Space, trials: Mapping[int, TrialRecord]) -> dict[str, float]:
    """Field → its share of the differences between trials, the largest first; they add up to 1.

    Trials that were stopped early count with what they had reached. Empty with few trials.

    Source: F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing Hyperparameter
    Importance, ICML 2014; the implementation is Optuna's.
    """
    import optuna  # noqa: PLC0415 - takes a second

    known = [one for one in trials.values() if one.role == "search" and one.best is not None]
    if len(known) < LEAST_TRIALS or len({one.best for one in known}) == 1:
        return {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    for one in known:
        study.add_trial(
            optuna.trial.create_trial(
                value=one.best, params=dict(one.fields), distributions=distributions(space)
            )
        )
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
