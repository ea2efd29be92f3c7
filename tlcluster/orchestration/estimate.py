"""How long experiments take, roughly: their work over the rate of this machine."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from tlcluster.backbones import BACKBONES
from tlcluster.cost import flop
from tlcluster.orchestration.ready import Ready
from tlcluster.training.work import Work


def seconds_alone(
    ready: Ready, works: Sequence[Work], rows: Mapping[str, int], rate: float
) -> list[float]:
    """How long each experiment takes alone on this machine, all epochs of all seeds together.

    Args:
        ready: what would run.
        works: of its experiments, in their order.
        rows: images of each split that are used.
        rate: of `matrix_product_rate`.
    """
    settings = ready.settings
    trained = [one.experiment for one in ready.replicates]
    return [
        flop(
            experiment,
            work.forward,
            rows,
            settings.views,
            features=settings.feature_cache,
            seeds=trained.count(experiment),
            same_views=ready.recipe.view_seed is not None,
        )
        / (BACKBONES[experiment.base].efficiency * rate)
        for experiment, work in zip(ready.experiments, works, strict=True)
    ]


def matrix_product_rate() -> float:
    """This machine's rate in float32 matrix products, in floating-point operations per second."""
    size = 1024
    matrix = np.random.default_rng(0).random((size, size), dtype=np.float32)
    fastest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest
