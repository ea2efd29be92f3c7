"""A run is read: what its records hold, and the metrics that follow from them."""

import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tlcluster import cinic10, records
from tlcluster.errors import UserError
from tlcluster.experiments import StudyResult
from tlcluster.paths import expanded, typed
from tlcluster.records import ExperimentConfig, ExperimentResult, PriceRecord, RunManifest
from tlcluster.report.classes import listed_classes
from tlcluster.report.cost import shared_out, spent
from tlcluster.report.formats import shorten
from tlcluster.report.leakage import Leakage, apart, read_leakage
from tlcluster.report.looked import resolved
from tlcluster.report.metrics import Predictions, compare, evaluate, right_of, same_images
from tlcluster.report.mistakes import gallery
from tlcluster.report.reading import (
    DamagedRecord,
    damaged,
    read_epochs,
    read_hangs,
    read_predictions,
    read_record,
)
from tlcluster.report.seeds.accuracy import accuracy
from tlcluster.report.seeds.contrast import contrasts
from tlcluster.report.seeds.moments import Right
from tlcluster.report.seeds.replication import replication
from tlcluster.report.study import comparable
from tlcluster.report.trained import ExperimentRun, Replicate, Run
from tlcluster.seeds import FEWEST
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

_ADVICE = f"give the folder of one run, OUTPUT/RUN-NAME, as `{typed('run')}` wrote it"
_EXPERIMENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def open_run(url: str) -> Store:
    """The store that is the folder of one run.

    Raises:
        UserError: it cannot be opened. If a directory is no run, the error names the runs
            that are beside or inside it.
    """
    if ":" not in url.partition("/")[0]:
        with contextlib.suppress(OSError, ValueError):  # open_store explains them.
            folder = expanded(url).absolute()
            if not (folder.is_file() or (folder / records.MANIFEST).exists()):
                raise UserError(_no_run(folder))
    return open_store(url)


def _no_run(folder: Path) -> str:
    shown = shorten(str(folder), 300)
    if folder.exists():
        beside, message = folder, f"{shown}: no run here, {records.MANIFEST} is missing; {_ADVICE}"
    else:
        beside, message = folder.parent, f"{shown}: no such directory; {_ADVICE}"
    names = [shorten(path.parent.name, 60) for path in sorted(beside.glob(f"*/{records.MANIFEST}"))]
    if not names:
        return message
    close = difflib.get_close_matches(folder.name, names, n=2)
    hint = f"; did you mean {' or '.join(close)}?" if close and beside != folder else ""
    more = ", …" if len(names) > 8 else ""
    return f"{message}{hint}; runs in {shorten(str(beside), 300)}: {', '.join(names[:8])}{more}"


def manifest_of(store: Store, prefix: str = "") -> RunManifest:
    """The manifest of a run; arguments and errors are those of `read_run`."""
    manifest = read_record(RunManifest, store, prefix + records.MANIFEST)
    if manifest is None:
        raise UserError(
            f"{store.url}: no run here, {prefix}{records.MANIFEST} is missing; {_ADVICE}"
        )
    for position, name in enumerate(manifest.experiments):
        shown = shorten(repr(name), 40)
        if not _EXPERIMENT_NAME.fullmatch(name):
            raise damaged(store, prefix + records.MANIFEST, f"{shown} is no experiment's name")
        if name in manifest.experiments[:position]:
            raise damaged(store, prefix + records.MANIFEST, f"{shown} is named twice")
    seeds = manifest.all_seeds
    if seeds[0] != manifest.seed or len(set(seeds)) < len(seeds):
        what = f"its seeds are not {manifest.seed} and others, each once"
        raise damaged(store, prefix + records.MANIFEST, what)
    if (looks := manifest.looks) and not FEWEST <= looks.first <= looks.most:
        what = f"looks at {looks.first} to {looks.most} seeds; the first is at {FEWEST} or more"
        raise damaged(store, prefix + records.MANIFEST, what)
    return manifest


class Answers(NamedTuple):
    """Which test images the trainings of a run were right about."""

    images: str
    """Names and labels of the test images in their order, as a sha256: runs with the same one can
    be compared image by image."""
    right: Mapping[str, Right]
    """Experiment → (seeds, images); those that have no tested seed are not in it."""


def read_run(store: Store, prefix: str = "") -> Run:
    """Everything that is there of a run; only its manifest must be.

    Of an experiment's first seed, a damaged record is an error. Another seed
    that has one, or was tested on other images, gets the status `damaged` and
    no part in the statistics.

    Args:
        store: holds the run.
        prefix: what the run's keys begin with, for example `runs/first/`.

    Raises:
        UserError: there is no run, or a record is damaged.
    """
    return read_answers(store, prefix)[0]


def read_answers(store: Store, prefix: str = "") -> tuple[Run, Answers | None]:
    """A run, see `read_run`, with its answers; None if nothing was tested."""
    manifest = manifest_of(store, prefix)
    first = manifest.seed
    firsts = {
        name: read_replicate(store, prefix, manifest, name, first) for name in manifest.experiments
    }
    predictions = {name: told for name, (_, told) in firsts.items() if told is not None}
    # First of all, because it checks that the experiments were tested on the same images.
    comparisons = compare(predictions)
    tested = next(iter(predictions.values()), None)
    right = {name: [right_of(predictions[name])] if name in predictions else [] for name in firsts}
    replicates = {name: [replicate] for name, (replicate, _) in firsts.items()}
    others = [(name, seed) for name in firsts for seed in manifest.seeds_of(name)[1:]]
    for name, seed in others:
        # Predictions may be gigabytes: of these seeds, no more than two are in memory.
        replicate, told = _read_other(store, prefix, manifest, name, seed, tested)
        replicates[name].append(replicate)
        if told is not None:
            tested = tested or told
            right[name].append(right_of(told))
    tables = {name: np.stack(rows) for name, rows in right.items() if rows}
    leakage = read_leakage(store, prefix, manifest, tested)
    experiments = tuple(
        ExperimentRun(name, tuple(of), None, {}, None)
        for name, of in with_costs(replicates, manifest.price).items()
    )
    resolution = resolved(manifest.looks, experiments, right) if manifest.looks else None
    metrics = [of.metrics for of, _ in firsts.values() if of.metrics]
    listed = listed_classes(metrics) if metrics else []
    shown = gallery(predictions, listed)
    run = Run(manifest, experiments, comparisons, contrasts(tables), shown, resolution, leakage)
    origins = _origins(manifest, tested)
    study = comparable(run)
    run = run._replace(
        experiments=tuple(
            _with_statistics(one, tables[one.name], origins, study.get(one.name), leakage)
            if one.name in tables
            else one
            for one in experiments
        )
    )
    return run, Answers(_digest(tested), tables) if tested else None


def with_costs(
    replicates: Mapping[str, Sequence[Replicate]], price: PriceRecord | None
) -> dict[str, list[Replicate]]:
    """The trainings of a run, by experiment, with what they cost. Features are shared out among
    all of them."""
    every = [one for of in replicates.values() for one in of]
    known = [None if one.status == "damaged" else spent(one.result, one.epochs) for one in every]
    costs = iter(shared_out(known, price))
    return {name: [one._replace(cost=next(costs)) for one in of] for name, of in replicates.items()}


def _digest(of: Predictions) -> str:
    """Equal if and only if `same_images` is true."""
    images = json.dumps([of.source.tolist(), of.label.tolist()])
    return hashlib.sha256(images.encode()).hexdigest()


def _origins(manifest: RunManifest, tested: Predictions | None) -> dict[str, Right]:
    """Origin → (images,) whether a test image is from there; see `Metrics.per_origin`."""
    if tested is None or manifest.dataset.name != cinic10.NAME:
        return {}
    of = np.array([cinic10.origin_of(source) for source in tested.source])
    return {name: here for name in cinic10.ORIGINS if (here := of == name).any()}


def _with_statistics(
    experiment: ExperimentRun,
    right: Right,
    origins: dict[str, Right],
    study: StudyResult | None,
    leakage: Leakage | None,
) -> ExperimentRun:
    return experiment._replace(
        accuracy=accuracy(right),
        origins={name: accuracy(right[:, here]) for name, here in origins.items()},
        replication=replication(right, study.accuracy, study.test_images) if study else None,
        apart=apart(right, leakage) if leakage else None,
    )


def _read_other(
    store: Store,
    prefix: str,
    manifest: RunManifest,
    name: str,
    seed: int,
    tested: Predictions | None,
) -> tuple[Replicate, Predictions | None]:
    """A replicate of another seed than the run's first; see `read_run`.

    Args:
        tested: predictions for the images that it must have been tested on; None if there are none.
    """
    try:
        replicate, told = read_replicate(store, prefix, manifest, name, seed)
    except DamagedRecord as error:
        # Without the run's place: the same records make the same report wherever they are.
        why = str(error).removeprefix(f"{store.url}/{prefix}")
        result = ExperimentResult(status="failed", error=why)
        return Replicate(seed, "damaged", None, (), result, None), None
    if told is None or tested is None or same_images(told, tested):
        return replicate, told
    other = "tested on other images than the other trainings of the run"
    result = replicate.result.model_copy(update={"error": other})
    return replicate._replace(status="damaged", result=result, metrics=None), None


def read_replicate(
    store: Store, run_prefix: str, manifest: RunManifest, name: str, seed: int
) -> tuple[Replicate, Predictions | None]:
    """One training, and its predictions if it was tested.

    Args:
        store: holds the run.
        run_prefix: what the run's keys begin with.
        manifest: of the run.
        name: of the experiment.
        seed: one of the run's.

    Raises:
        DamagedRecord: a record cannot be used.
    """
    folder = records.replicate_folder(name, seed, manifest.seed)
    prefix = f"{run_prefix}{folder}/"
    config = read_record(ExperimentConfig, store, prefix + records.CONFIG)
    if config is not None and config.experiment.name != name:
        other = shorten(repr(config.experiment.name), 40)
        raise damaged(store, prefix + records.CONFIG, f"it belongs to the experiment {other}")
    if config is not None and config.seed != seed != manifest.seed:
        raise damaged(store, prefix + records.CONFIG, f"it belongs to the seed {config.seed}")
    epochs = read_epochs(store, prefix + records.EPOCHS)
    result = read_record(ExperimentResult, store, prefix + records.RESULT)
    started = config is not None or bool(epochs)
    if result is None:
        result = ExperimentResult(
            status="running" if started else "queued",
            epochs_run=len(epochs),
            wall_seconds=sum(record.seconds for record in epochs),
        )
    status = result.status
    if status == "running" and manifest.status != "running":
        # It was killed before it could say so.
        status = "interrupted"
    classes = manifest.dataset.classes
    predictions = read_predictions(store, prefix + records.PREDICTIONS, len(classes))
    origins = manifest.dataset.name == cinic10.NAME
    metrics = evaluate(predictions, classes, origins=origins) if predictions else None
    hangs = read_hangs(store, prefix + records.HANGS)
    return Replicate(seed, status, config, epochs, result, metrics, hangs=hangs), predictions
