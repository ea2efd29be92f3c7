"""The folder of a search: its manifest, its trials, and whether a search may go on there."""

import contextlib
from collections.abc import Mapping, Sequence

from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.manifest import utc_now, versions
from tlcluster.orchestration.ready import Ready
from tlcluster.orchestration.suite import refuse_to_overwrite
from tlcluster.recipe_files import profile_name
from tlcluster.settings import TuneSettings
from tlcluster.storage.protocol import ObjectMissing, Store
from tlcluster.tuning.records import (
    TRIALS,
    TUNING,
    SearchRecord,
    TrialRecord,
    TuningManifest,
)
from tlcluster.tuning.space import Space, as_record


def searches(
    experiments: Sequence[Experiment], spaces: Mapping[str, Space]
) -> tuple[SearchRecord, ...]:
    """What is asked for: each experiment with its space."""
    return tuple(
        SearchRecord(experiment=one, space=as_record(spaces[one.name])) for one in experiments
    )


def refuse_another(
    folder: Store, settings: TuneSettings, asked: Sequence[SearchRecord], index_sha256: str | None
) -> TuningManifest | None:
    """Refuse to continue a search with something that decides what it finds.

    More trials, another budget or more seeds only make it longer.

    Args:
        folder: of the search.
        settings: of the command.
        asked: the experiments and their spaces.
        index_sha256: of the data set; None if it is not known yet.

    Returns:
        The manifest of the search that exists, or None.

    Raises:
        UserError: the folder holds other files, or a search with other settings.
    """
    old = read_manifest(folder)
    if old is None:
        refuse_to_overwrite(folder, "search")
        return None
    before = _facts(profile_name(old.profile), old.seed, old.searches)
    now = _facts(profile_name(settings.profile), settings.seed, asked)
    if index_sha256 is not None:
        before["dataset"], now["dataset"] = old.index_sha256, index_sha256
    different = [
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if different:
        raise UserError(
            f"--run-name {settings.run_name}: that search exists with other settings: "
            f"{'; '.join(different)}; use the same to go on with it, or another name"
        )
    return old


def _facts(profile: str, seed: int, asked: Sequence[SearchRecord]) -> dict[str, object]:
    facts: dict[str, object] = {"profile": profile, "seed": seed}
    for one in asked:
        name = one.experiment.name
        facts |= {f"{name}.space.{field}": words for field, words in one.space.items()}
        facts |= {f"{name}.{field}": value for field, value in one.experiment.model_dump().items()}
    return facts


def begun(
    folder: Store,
    settings: TuneSettings,
    ready: Ready,
    share: Admission,
    asked: tuple[SearchRecord, ...],
    command: str,
) -> TuningManifest:
    """The manifest of a search that begins or continues.

    Raises:
        UserError: see `refuse_another`.
    """
    old = refuse_another(folder, settings, asked, ready.index_sha256)
    index = ready.index
    manifest = TuningManifest(
        name=str(settings.run_name),
        command=command,
        profile=ready.recipe.profile,
        seed=settings.seed,
        trials=settings.trials,
        budget_hours=settings.budget,
        finalists=settings.finalists,
        seeds=settings.seeds,
        workers=share.workers,
        searches=asked,
        index_sha256=ready.index_sha256,
        dataset=index.dataset,
        rows={split: index.rows(split) for split in ("train", "valid")},
        weights={base: found.record.found for base, found in ready.weights.items()},
        versions=versions(),
        hardware=ready.nodes,
        started=old.started if old else utc_now(),
    )
    write_manifest(folder, manifest)
    return manifest


def read_manifest(folder: Store) -> TuningManifest | None:
    """The manifest of a search that exists, or None.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return TuningManifest.model_validate_json(folder.get(TUNING))
    except ObjectMissing:
        return None
    except ValueError:
        raise UserError(
            f"{folder.url}/{TUNING} cannot be read; restore it, or use another --run-name"
        ) from None


def read_trials(folder: Store, experiment: str) -> dict[int, TrialRecord]:
    """The trials of an experiment that a search has left, by number; damaged ones are left out."""
    records = {}
    for item in folder.list(f"{TRIALS}/{experiment}/"):
        with contextlib.suppress(ObjectMissing, ValueError):
            record = TrialRecord.model_validate_json(folder.get(item.key))
            records[record.number] = record
    return records


def write_trial(folder: Store, experiment: str, record: TrialRecord) -> None:
    folder.put(
        f"{TRIALS}/{experiment}/{record.number:05d}.json",
        record.model_dump_json(indent=1).encode() + b"\n",
    )


def write_manifest(folder: Store, manifest: TuningManifest) -> None:
    folder.put(TUNING, manifest.model_dump_json(indent=1).encode() + b"\n")
