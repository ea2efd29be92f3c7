"""The manifest of a run, and whether a rerun may continue it."""

import datetime
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence

import tlcluster
from tlcluster.dataset.shards import Index
from tlcluster.errors import UserError
from tlcluster.experiments import RECIPE, Experiment
from tlcluster.orchestration.admission import Admission
from tlcluster.paths import CHECKOUT
from tlcluster.recipes import Recipe
from tlcluster.records import (
    MANIFEST,
    DatasetRecord,
    LooksRecord,
    NodeRecord,
    PriceRecord,
    RunManifest,
    WeightsRecord,
)
from tlcluster.report.reading import read_record
from tlcluster.seeds import in_words
from tlcluster.settings import RunSettings
from tlcluster.storage.protocol import Store

PACKAGES = ("tensorflow", "tf_keras", "ray", "numpy", "scikit-learn", "scipy", "boto3")
"""Packages whose versions are recorded: they can change a result or how it is read."""

Setting = str | int | float | bool | None


def deciding_settings(
    settings: RunSettings, recipe: Recipe, admission: Admission
) -> dict[str, Setting]:
    """The settings that decide the results, flat: `seed`, `frozen.epochs`, …

    The number of workers is one only if the batch grows with it. Further seeds decide no result of
    the others; the manifest has them elsewhere.
    """
    decided: dict[str, Setting] = {
        "profile": recipe.profile,
        "seed": settings.seed,
        "views": settings.views,
        "view_seed": recipe.view_seed,
        "scale_batch": settings.scale_batch,
        "threads": admission.threads,
    }
    if settings.scale_batch:
        decided["workers"] = admission.workers
    for experiment in recipe.chosen:
        for field in RECIPE:
            decided[f"{experiment.name}.{field}"] = getattr(experiment, field)
    return decided


def new_manifest(
    settings: RunSettings,
    *,
    command: str,
    decided: Mapping[str, Setting],
    recipe: Recipe,
    nodes: Sequence[NodeRecord],
    weights: Mapping[str, WeightsRecord],
    index: Index,
    index_sha256: str,
    store_url: str,
    seeds: tuple[int, ...],
    seed_counts: Mapping[str, int],
    price: PriceRecord | None = None,
) -> RunManifest:
    """The manifest of a run that starts now.

    `weights` are those of each base; of the first experiment's base first. `seeds` are all of the
    run, of which `seed_counts` says how many an experiment has if it has not all.
    """
    looks = LooksRecord(first=len(settings.all_seeds), most=settings.max_seeds)
    return RunManifest(
        name=str(settings.run_name),
        status="running",
        profile=recipe.profile,
        seed=settings.seed,
        seeds=seeds,
        seed_counts={name: count for name, count in seed_counts.items() if count < len(seeds)},
        looks=looks if settings.resolve else None,
        experiments=tuple(experiment.name for experiment in recipe.chosen),
        command=command,
        started=utc_now(),
        versions=versions(),
        hardware=tuple(nodes),
        git_commit=git_commit(),
        weights=next(iter(weights.values())),
        weights_by_base=dict(weights),
        dataset=DatasetRecord(
            name=index.dataset,
            index_sha256=index_sha256,
            classes=index.classes,
            splits={split: index.rows(split) for split in index.splits},
            store=store_url,
        ),
        settings=dict(decided),
        recipe=recipe.text,
        price=price,
    )


def read_manifest(run: Store) -> RunManifest | None:
    """The manifest of a run that exists, or None.

    Raises:
        DamagedRecord: it cannot be used.
    """
    return read_record(RunManifest, run, MANIFEST)


def write_manifest(run: Store, manifest: RunManifest) -> None:
    run.put(MANIFEST, manifest.model_dump_json(indent=1).encode() + b"\n")


def continued(old: RunManifest, new: RunManifest, order: Sequence[str]) -> RunManifest:
    """The manifest of a run that continues: what it was, with what it is now.

    Args:
        old: the manifest as the run has it.
        new: the manifest of the command that continues the run.
        order: names of all experiments of the recipe, in the order of the report.

    Raises:
        UserError: something that decides the results differs; the message names it.
    """
    old = old.model_copy(update={"settings": _in_todays_words(old, new)})
    looks = _same_looks(old, new)
    in_one_only = set(old.experiments) ^ set(new.experiments)
    facts = {
        "dataset": (old.dataset.index_sha256, new.dataset.index_sha256),
        **{
            f"weights of {base}": (weights.sha256 or "random", now.sha256 or "random")
            for base, weights in old.base_weights.items()
            if (now := new.base_weights.get(base))
        },
        **{
            name: (old.settings.get(name), new.settings.get(name))
            for name in {**old.settings, **new.settings}
            if name.rpartition(".")[0] not in in_one_only
        },
    }
    differences = [f"{name} was {a}, is {b}" for name, (a, b) in facts.items() if a != b]
    if differences:
        raise UserError(
            f"--run-name {new.name}: that run exists with other settings: "
            f"{'; '.join(differences)}; use the same settings to go on with it, or another name"
        )
    together = {*old.experiments, *new.experiments}
    experiments = (
        *(name for name in order if name in together),
        # The recipe may have lost some since.
        *(name for name in old.experiments if name not in order),
    )
    seeds = tuple(dict.fromkeys((*old.all_seeds, *new.all_seeds)))
    counts = {
        name: 1
        + max(
            seeds.index(seed)
            for one in (old, new)
            if name in one.experiments
            for seed in one.seeds_of(name)
        )
        for name in experiments
    }
    settings = {**old.settings, **new.settings}
    weights = {**old.base_weights, **new.base_weights}
    return new.model_copy(
        update={
            "experiments": experiments,
            # Those that an earlier command trained stay, also if this one trains fewer.
            "seeds": seeds,
            "seed_counts": {name: n for name, n in counts.items() if n < len(seeds)},
            "looks": looks,
            "settings": settings,
            "weights": weights[str(settings[f"{experiments[0]}.base"])],
            "weights_by_base": weights,
            "started": old.started,
            "wall_seconds": old.wall_seconds,
            "audit_sha256": old.audit_sha256,
            "price": new.price or old.price,
        }
    )


def _same_looks(old: RunManifest, new: RunManifest) -> LooksRecord | None:
    """The rule of a run that continues. Its error rate holds if it was the same from the start.

    Raises:
        UserError: it is another one, or looks at other seeds.
    """
    if old.looks is None and new.looks is None:
        return None
    if old.looks and new.looks and old.looks != new.looks:
        raise UserError(
            f"--run-name {new.name}: that run has --resolve with --seeds {old.looks.first} and "
            f"--max-seeds {old.looks.most}; go on with these, or use another name"
        )
    shorter, longer = sorted((old.all_seeds, new.all_seeds), key=len)
    if new.looks and longer[: len(shorter)] != shorter:
        raise UserError(
            f"--resolve: run {new.name} has the {in_words(old.all_seeds)}; begin --seeds with "
            "them, or use another --run-name"
        )
    return old.looks or new.looks


def _in_todays_words(manifest: RunManifest, new: RunManifest) -> dict[str, Setting]:
    """The settings of a run that an earlier version began.

    A field that this version did not know has its default; a value with an old name gets its new
    one. Version 0.1.0 did not record the number of threads, so any goes on. It had one seed, and
    without a seed of their own its views had that one.
    """
    settings = dict(manifest.settings)
    settings.setdefault("threads", new.settings.get("threads"))
    views_named = new.settings.get("view_seed") is not None
    if not manifest.seeds and views_named and settings.get("view_seed") is None:
        settings["view_seed"] = manifest.seed
    for name in manifest.experiments:
        for field in RECIPE:
            settings.setdefault(f"{name}.{field}", Experiment.model_fields[field].default)
        if settings[f"{name}.preprocess"] == "vgg16":
            settings[f"{name}.preprocess"] = "base"
    return settings


def utc_now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Package → version, with Python's and our own first."""
    return {
        "python": platform.python_version(),
        "tlcluster": tlcluster.__version__,
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }


def git_commit() -> str | None:
    """The commit of the checkout, with `+` if tracked files were changed; None outside of one."""
    if not (CHECKOUT / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", CHECKOUT, *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")
