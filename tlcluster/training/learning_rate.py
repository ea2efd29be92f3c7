"""The learning rate of each step: warm-up, then constant or falling. Pure functions."""

import math

from tlcluster.experiments import LearningRateCurve


def share(step: int, steps: int, *, curve: LearningRateCurve, warmup: float) -> float:
    """The learning rate of a step as a share of the recipe's.

    It depends on the step's place in the whole training only, so a resume continues the curve. A
    training that stops early has not reached its end.

    `cosine` is the schedule of Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm
    Restarts" (2017), equation 5, without restarts and with 0 as the lowest rate.

    Args:
        step: counted from 0, over all epochs.
        steps: of all epochs.
        curve: of the rate after the warm-up.
        warmup: share of all steps in which the rate rises linearly from almost 0.

    Returns:
        At least 0, at most 1.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    if curve == "constant":
        return 1.0
    return (1.0 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2.0
