"""Which trackers the environment asks for, and what is missing for them."""

import importlib.util
from collections.abc import Mapping
from typing import NamedTuple

from tlcluster.paths import IN_CHECKOUT


class Tracker(NamedTuple):
    """A place that keeps parameters, metrics and files of many runs."""

    name: str
    library: str
    """The package to import. The extra that installs it has a name of its own."""
    extra: str
    module: str
    """Of this package; its class `Sink` sends."""
    off: str
    """How a user turns it off."""


MLFLOW = Tracker(
    "MLflow", "mlflow", "mlflow", "tlcluster.tracking.to_mlflow", "unset MLFLOW_TRACKING_URI"
)
WANDB = Tracker(
    "Weights & Biases", "wandb", "wandb", "tlcluster.tracking.to_wandb", "set WANDB_MODE=disabled"
)
TRACKERS = (MLFLOW, WANDB)


def asked(environment: Mapping[str, str]) -> dict[Tracker, str]:
    """The trackers that a run is sent to → the variable that asks for each.

    `MLFLOW_TRACKING_URI` asks for MLflow. Any `WANDB_` variable asks for Weights & Biases, unless
    `WANDB_MODE` or `WANDB_DISABLED` turns it off. An empty variable counts as not set.
    """
    found = {}
    if environment.get("MLFLOW_TRACKING_URI"):
        found[MLFLOW] = "MLFLOW_TRACKING_URI"
    given = sorted(name for name, value in environment.items() if name[:6] == "WANDB_" and value)
    off = (
        environment.get("WANDB_MODE") == "disabled"
        or environment.get("WANDB_DISABLED", "").lower() in _TRUE
    )
    if given and not off:
        found[WANDB] = given[0]
    return found


_TRUE = frozenset({"true", "1", "yes", "y", "t", "on"})


def lacking(tracker: Tracker, variable: str) -> str | None:
    """What to install for a tracker, in one line; None if its library is there.

    Args:
        tracker: the tracker.
        variable: the one that asks for it.
    """
    spec = importlib.util.find_spec(tracker.library)
    # Weights & Biases leaves a folder `wandb` where it runs, which Python takes for a package.
    if spec is not None and spec.origin is not None:
        return None
    way = "make env TRACK=1" if IN_CHECKOUT else f"pip install 'tlcluster[{tracker.extra}]'"
    return (
        f"{variable} is set, but {tracker.library} is not installed, so nothing is sent to "
        f"{tracker.name}: {way}, or {tracker.off}"
    )
