"""What a tracker is sent of a run, as values that follow from its records."""

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

from tlcluster.records import EpochRecord, RunManifest, Status, replicate_folder
from tlcluster.report.trained import Replicate

Value = str | int | float | bool


class Entry(NamedTuple):
    """What a tracker keeps as one of its own runs: a replicate, or the run as a whole."""

    id: str
    """32 hexadecimal digits. Every process that sends the same replicate of the same run finds
    the tracker's run by it."""
    name: str
    group: str
    """Name of the run."""
    parent: str | None
    """The id of the run as a whole; None if this is the one."""
    params: Mapping[str, Value]
    """What decides the result. It never changes: a tracker may refuse another value."""
    tags: Mapping[str, str]
    """What may change when a run goes on."""
    epochs: Mapping[int, Mapping[str, float]]
    """Epoch, from 1 → its metrics."""
    scores: Mapping[str, float]
    """Test metrics and what else is known at the end. A number may be NaN or infinite."""
    status: Status

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "running")


def whole(manifest: RunManifest) -> Entry:
    """The run as a whole."""
    return Entry(
        id=_id(manifest, ""),
        name=manifest.name,
        group=manifest.name,
        parent=None,
        # Seeds and experiments may be added later.
        params=_shared(manifest),
        tags={
            **_tags(manifest),
            "experiments": ", ".join(manifest.experiments),
            "seeds": ", ".join(map(str, manifest.all_seeds)),
            "status": manifest.status,
        },
        epochs={},
        scores={"wall_seconds": manifest.wall_seconds} if manifest.status != "running" else {},
        status=manifest.status,
    )


def replicate_entry(manifest: RunManifest, experiment: str, one: Replicate) -> Entry:
    """One replicate.

    Args:
        manifest: of its run.
        experiment: its name.
        one: as the report reads it.
    """
    several = len(manifest.all_seeds) > 1
    status: Status = "failed" if one.status == "damaged" else one.status
    tags = {**_tags(manifest), "experiment": experiment, "seed": str(one.seed), "status": status}
    if one.result.error:
        tags["error"] = one.result.error
    return Entry(
        id=_id(manifest, replicate_folder(experiment, one.seed, manifest.seed)),
        name=f"{experiment}, seed {one.seed}" if several else experiment,
        group=manifest.name,
        parent=_id(manifest, ""),
        params=_params(manifest, experiment, one),
        tags=tags,
        epochs={record.epoch: _metrics(record) for record in one.epochs},
        scores=_scores(one) if status not in ("queued", "running") else {},
        status=status,
    )


def _id(manifest: RunManifest, folder: str) -> str:
    # A run that goes on keeps these three; two runs of one name have not begun in the same second
    # with the same data.
    of = [manifest.name, manifest.started, manifest.dataset.index_sha256, folder]
    return hashlib.sha256(json.dumps(of).encode()).hexdigest()[:32]


def _tags(manifest: RunManifest) -> dict[str, str]:
    found = {
        "run": manifest.name,
        "tlcluster": manifest.versions.get("tlcluster", ""),
        "index_sha256": manifest.dataset.index_sha256,
        "git_commit": manifest.git_commit or "",
    }
    return {name: value for name, value in found.items() if value}


def _shared(manifest: RunManifest) -> dict[str, Value]:
    """What decides all results of a run, without what belongs to an experiment."""
    shared = {name: value for name, value in manifest.settings.items() if "." not in name}
    return _known({**shared, "profile": manifest.profile, "dataset": manifest.dataset.name})


def _params(manifest: RunManifest, experiment: str, one: Replicate) -> dict[str, Value]:
    own = f"{experiment}."
    recipe = {
        name.removeprefix(own): value
        for name, value in manifest.settings.items()
        if name.startswith(own)
    }
    weights = manifest.base_weights.get(str(recipe.get("base", "vgg16")))
    sizes = {
        "trainable_params": one.config.trainable_params if one.config else None,
        "total_params": one.config.total_params if one.config else None,
    }
    return _known(
        {
            **_shared(manifest),
            **recipe,
            "experiment": experiment,
            "seed": one.seed,
            "weights": weights.kind if weights else None,
            "weights_sha256": weights.sha256 if weights else None,
            **sizes,
        }
    )


def _known(values: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in values.items() if value is not None}


def _metrics(record: EpochRecord) -> dict[str, float]:
    return {
        "loss": record.loss,
        "accuracy": record.accuracy,
        "val_loss": record.val_loss,
        "val_accuracy": record.val_accuracy,
        "learning_rate": record.learning_rate,
        "images_per_second": record.images_per_second,
        "epoch_seconds": record.seconds,
        "workers": float(record.workers),
    }


def _scores(one: Replicate) -> dict[str, float]:
    """With the names that `results.json` has."""
    metrics, best = one.metrics, one.result.best_epoch
    found = {"wall_seconds": one.result.wall_seconds}
    if best is not None:
        found["best_epoch"] = float(best)
    if metrics is not None:
        found |= {
            "test_accuracy": metrics.accuracy,
            "test_loss": metrics.loss,
            "test_precision_macro": metrics.precision_macro,
            "test_recall_macro": metrics.recall_macro,
            "test_f1_macro": metrics.f1_macro,
        }
    return found
