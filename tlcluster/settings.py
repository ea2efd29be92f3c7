"""What a run is told. Every flag has its one home here; `tlcluster.cli` makes the flags."""

import datetime
import itertools
import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from tlcluster.backbones import BACKBONES
from tlcluster.cli import nearest
from tlcluster.errors import UserError
from tlcluster.experiments import EVERY, EXPERIMENTS, PROFILES, RECIPE, Experiment

EMBEDDED = "embedded"

MIN_SIDE = min(backbone.smallest_side for backbone in BACKBONES.values())
"""Pixels; no base takes smaller images."""
MAX_SIDE = 1024
"""Pixels of the largest image that a data set may have."""

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class CommonSettings(BaseModel):
    """The flags that `jobs/run_all.py` and `jobs/run_one.py` share."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = Field(
        EMBEDDED,
        description="where the shards are: s3://BUCKET/PREFIX, a directory, or `embedded`, a real "
        "S3 server on this machine, filled with the sample that the package ships",
        json_schema_extra={"metavar": "URL"},
    )
    output: str = Field(
        "runs",
        description="where runs are kept: a directory or s3://BUCKET/PREFIX",
        json_schema_extra={"metavar": "URL"},
    )
    run_name: str | None = Field(
        None,
        description="name of the run; the same name goes on with what is unfinished "
        "[PROFILE-UTC TIME]",
        json_schema_extra={"metavar": "NAME"},
    )
    profile: str = Field(
        "quick",
        description=f"recipe: {' or '.join(PROFILES)}",
        json_schema_extra={"metavar": "NAME"},
    )
    workers: str = Field(
        "1",
        description="workers per experiment, or the least and the most",
        json_schema_extra={"metavar": "N|MIN:MAX"},
    )
    gpus_per_worker: float | None = Field(
        None,
        description="GPUs of a worker [as many as let all experiments run at once; 0 without GPUs]",
        ge=0,
        le=1,
    )
    cpus_per_worker: float | None = Field(
        None,
        description="CPUs of a worker [as many as let all experiments run at once, at least 0.5]",
        ge=0.01,
    )
    epochs: int | None = Field(
        None, description="most epochs of every experiment [as the profile says]", gt=0
    )
    seed: int = Field(524, description="seed of everything that is random", ge=0, lt=2**31)
    views: int | None = Field(
        None,
        description="augmented views that experiments with a frozen base take in turn: faster, "
        "and an approximation [a fresh view every epoch]",
        gt=0,
    )
    view_seed: int | None = Field(
        None,
        description="seed of the augmented views; with --views, the features of another run's are "
        "found [--seed]",
        ge=0,
        lt=2**31,
    )
    feature_cache: bool = Field(
        True,
        description="compute the frozen base's features anew whenever they are needed; "
        "slow, for comparison",
    )
    set: tuple[str, ...] = Field(
        (),
        description="change one field of one experiment, `*` for all; may be repeated",
        json_schema_extra={"metavar": "EXPERIMENT.FIELD=VALUE"},
    )
    scale_batch: bool = Field(
        False,
        description="let global batch and learning rate grow with the number of workers; "
        "results then depend on it",
    )
    weights: str | None = Field(
        None,
        description="VGG16's ImageNet weights, or `none` for random ones "
        "[looked for in the usual places, then downloaded]",
        json_schema_extra={"metavar": "FILE|none"},
    )
    deadline: float | None = Field(
        None,
        description="minutes after which an experiment that still runs is ended as failed",
        gt=0,
        json_schema_extra={"metavar": "MINUTES"},
    )
    stall: float = Field(
        30,
        description="minutes without progress after which an experiment is ended as failed",
        gt=0,
        json_schema_extra={"metavar": "MINUTES"},
    )
    storage_wait: float = Field(
        30,
        description="minutes to wait for storage that does not answer",
        gt=0,
        json_schema_extra={"metavar": "MINUTES"},
    )
    retries: int = Field(
        2, description="restarts of an experiment whose workers died", ge=0, le=100
    )
    checkpoint_seconds: float = Field(
        60, description="least time between two checkpoints of an experiment", ge=0
    )
    cache: str | None = Field(
        None,
        description="a node's folder for downloaded shards [$XDG_CACHE_HOME/tlcluster]",
        json_schema_extra={"metavar": "DIR"},
    )
    cache_gib: float = Field(
        20, description="most space that folder takes, in GiB", gt=0, allow_inf_nan=False
    )
    address: str | None = Field(
        None,
        description="Ray cluster to run in [$RAY_ADDRESS, else one started on this machine]",
    )
    dry_run: bool = Field(False, description="print what would run where, and start nothing")

    @property
    def seed_of_views(self) -> int:
        """What decides the augmented views: the run's seed unless `view_seed` is given."""
        return self.seed if self.view_seed is None else self.view_seed

    @field_validator("profile")
    @classmethod
    def _known_profile(cls, value: str) -> str:
        if value not in PROFILES:
            raise ValueError(f"no such profile; {nearest(value, PROFILES)}")
        return value

    @field_validator("workers")
    @classmethod
    def _sane_workers(cls, value: str) -> str:
        least, most = worker_range(value)
        if least < 1:
            raise ValueError("an experiment needs at least 1 worker")
        if least > most:
            raise ValueError(f"the least, {least}, is more than the most, {most}; give MIN:MAX")
        return value

    @field_validator("run_name")
    @classmethod
    def _safe_run_name(cls, value: str | None) -> str | None:
        if value is not None and not _RUN_NAME.fullmatch(value):
            raise ValueError(
                "a run name is 1 to 100 letters, digits, dots, dashes and underscores "
                "and begins with a letter or digit, so that it stays inside the output folder"
            )
        return value


class RunSettings(CommonSettings):
    """The flags of `jobs/run_all.py`."""

    experiments: str = Field(
        ",".join(EXPERIMENTS),
        description="which experiments, separated by commas",
        json_schema_extra={"metavar": "A,B,…"},
    )

    @field_validator("experiments")
    @classmethod
    def _known_experiments(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        for name in names:
            if name not in EXPERIMENTS:
                raise ValueError(f"no experiment {name!r}; {nearest(name, EXPERIMENTS)}")
        if len(set(names)) < len(names):
            raise ValueError("names an experiment twice; name each once")
        return ",".join(names)

    def named(self) -> "RunSettings":
        """The same settings with a run name: the one given, else profile and UTC time."""
        if self.run_name is not None:
            return self
        now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
        return self.model_copy(update={"run_name": f"{self.profile}-{now}"})


class OneSettings(CommonSettings):
    """The arguments of `jobs/run_one.py`."""

    experiment: str = Field(
        description=f"which one: {', '.join(EXPERIMENTS)}", json_schema_extra={"argument": True}
    )

    def suite(self) -> RunSettings:
        """The settings of a run of this one experiment."""
        return RunSettings(experiments=self.experiment, **self.model_dump(exclude={"experiment"}))

    @field_validator("experiment")
    @classmethod
    def _known_experiment(cls, value: str) -> str:
        if value not in EXPERIMENTS:
            raise ValueError(f"no such experiment; {nearest(value, EXPERIMENTS)}")
        return value


def worker_range(value: str) -> tuple[int, int]:
    """`N` or `MIN:MAX` → (least, most). Raises ValueError where it is neither."""
    least, colon, most = value.partition(":")
    try:
        return int(least), int(most if colon else least)
    except ValueError:
        raise ValueError("give a number N, or MIN:MAX") from None


def size_of(value: str) -> tuple[int, int]:
    """`SIDE` or `WIDTHxHEIGHT` → (width, height). Raises ValueError if it is neither."""
    found = re.fullmatch(r"(\d{1,5})(?:[x×X](\d{1,5}))?", value, re.ASCII)
    if not found:
        raise ValueError("give the side of a square or WIDTHxHEIGHT, for example 64 or 48x40")
    width, height = int(found[1]), int(found[2] or found[1])
    if not all(MIN_SIDE <= side <= MAX_SIDE for side in (width, height)):
        raise ValueError(f"a side has {MIN_SIDE} to {MAX_SIDE} pixels")
    return width, height


def chosen_experiments(settings: RunSettings) -> tuple[Experiment, ...]:
    """The experiments of a run with profile, `--set` and `--epochs` applied, in report order.

    Raises:
        UserError: a `--set` names no experiment or field, or its value is not allowed.
    """
    names = settings.experiments.split(",")
    changes = [
        *PROFILES[settings.profile].items(),
        *(_parse_set(text) for text in settings.set),
        *([(EVERY, {"epochs": settings.epochs})] if settings.epochs else []),
    ]
    # To all of them, so that a wrong `--set` is told whichever experiments are chosen.
    changed = [_apply(experiment, changes) for experiment in EXPERIMENTS.values()]
    return tuple(experiment for experiment in changed if experiment.name in names)


def _parse_set(text: str) -> tuple[str, dict[str, str]]:
    target, equals, value = text.partition("=")
    name, dot, field = target.partition(".")
    if not (equals and dot):
        raise UserError(f"--set {text}: give EXPERIMENT.FIELD=VALUE")
    if name != EVERY and name not in EXPERIMENTS:
        raise UserError(f"--set {text}: no experiment {name!r}; {nearest(name, EXPERIMENTS)}")
    if field not in RECIPE:
        raise UserError(f"--set {text}: no field {field!r}; {nearest(field, RECIPE)}")
    return name, {field: value}


def _apply(experiment: Experiment, changes: list[tuple[str, Mapping[str, Any]]]) -> Experiment:
    values = experiment.model_dump()
    for name, fields in changes:
        if name not in (EVERY, experiment.name):
            continue
        try:
            values = Experiment(**{**values, **fields}).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            change = f"{name}.{first['loc'][0]}={first['input']}"
            raise UserError(f"--set {change}: {first['msg'].lower()}") from None
    return Experiment(**values)


class IngestSettings(BaseModel):
    """The flags of `jobs/ingest.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        description="data set as split/class/image: a folder, an archive (.tar, .tar.gz, .tgz, "
        ".tar.xz, .zip), or the https:// address of an archive",
        json_schema_extra={"metavar": "PATH|URL"},
    )
    store: str = Field(
        description="where to: s3://BUCKET/PREFIX or a directory, which is made",
        json_schema_extra={"metavar": "URL"},
    )
    image_size: str | None = Field(
        None,
        description="resize all images to this width and height in pixels (antialiased, bicubic; "
        "the aspect ratio is not kept); needed if they differ in size [as they are]",
        json_schema_extra={"metavar": "SIDE|WIDTHxHEIGHT"},
    )
    valid_fraction: float | None = Field(
        None,
        description="part of train that becomes the validation split, for a data set without one, "
        "chosen by a hash of class and file name",
        gt=0,
        lt=1,
    )
    name: str | None = Field(
        None,
        description="name of the data set in reports: letters, digits, spaces, dots, dashes and "
        "underscores [that of the folder or archive; cinic-10 for CINIC-10]",
        json_schema_extra={"metavar": "NAME"},
        pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$",
    )
    rows_per_shard: int | None = Field(
        None,
        description="images per shard [as many as take 6 MB: 2048 of 32×32 pixels], few enough "
        "for the first step of a training to come soon, and enough for S3 to be read at full speed",
        gt=0,
        le=65_536,
    )
    processes: int | None = Field(
        None, description="processes that decode images [one for each CPU]", gt=0, le=1024
    )
    cache: str | None = Field(
        None,
        description="folder for downloads and for shards on their way [$XDG_CACHE_HOME/tlcluster]",
        json_schema_extra={"metavar": "DIR"},
    )

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height of `image_size`."""
        return None if self.image_size is None else size_of(self.image_size)

    @field_validator("image_size")
    @classmethod
    def _sane_size(cls, value: str | None) -> str | None:
        if value is not None:
            size_of(value)
        return value

    @field_validator("store")
    @classmethod
    def _lasting_store(cls, value: str) -> str:
        if value == EMBEDDED:
            raise ValueError(
                "the embedded store ends with the run that starts it, and is filled by it; "
                "give s3://BUCKET/PREFIX or a directory"
            )
        return value


class ReportSettings(BaseModel):
    """The flags of `jobs/report.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(
        description="folder of the run, OUTPUT/RUN-NAME: a directory or s3://BUCKET/PREFIX",
        json_schema_extra={"metavar": "URL"},
    )


BENCH_PARTS = {
    "input": ("input",),
    "scaling": ("scaling",),
    "concurrency": ("concurrency",),
    "startup": ("startup",),
    "memory": ("memory",),
    "suite": (
        "suite-finetuned",
        "suite-fresh-views",
        "suite-frozen",
        "suite-accuracy",
        "suite-few-views",
    ),
}
"""Part of `jobs/bench.py` → its tables; `--only` takes the names of both. The last is the longest,
so that the others are known before it ends."""


class BenchSettings(BaseModel):
    """The flags of `jobs/bench.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str = Field(
        ",".join(BENCH_PARTS),
        description="which parts, separated by commas",
        json_schema_extra={"metavar": "A,B,…"},
    )
    data: str | None = Field(
        None,
        description="images to measure on: CINIC-10 as jobs/ingest.py takes it "
        "[../shared/data/cinic10-cifar-part.tar.xz, else the sample that the package ships]",
        json_schema_extra={"metavar": "PATH"},
    )
    per_class: int = Field(
        60,
        description="images a class and split for what takes long and is the same for every image",
        gt=0,
    )
    repeats: int = Field(3, description="how often everything is measured", gt=0)
    quick: bool = Field(
        False, description="the sample, once, a few epochs: to see that all of it works"
    )
    findings: str | None = Field(
        None,
        description="where to write all that was found as JSON",
        json_schema_extra={"flag": "--json", "metavar": "FILE"},
    )
    work: str = Field(
        "build/bench",
        description="folder for records in the peers' formats and for runs; images are kept there "
        "for the next time",
        json_schema_extra={"metavar": "DIR"},
    )
    peers: str = Field(
        ".venv-bench/bin/python",
        description="interpreter of an environment with requirements-bench.txt",
        json_schema_extra={"metavar": "PYTHON"},
    )
    weights: str | None = Field(
        None,
        description="VGG16's ImageNet weights, or `none` for random ones "
        "[looked for in the usual places, then downloaded]",
        json_schema_extra={"metavar": "FILE|none"},
    )

    @field_validator("only")
    @classmethod
    def _known_parts(cls, value: str) -> str:
        allowed = (*BENCH_PARTS, *BENCH_PARTS["suite"])
        for name in cls._names(value):
            if name not in allowed:
                raise ValueError(f"no part {name!r}; {nearest(name, allowed)}")
        return value

    def tables(self) -> tuple[str, ...]:
        """The names of the tables to make, each once."""
        names = [BENCH_PARTS.get(name, (name,)) for name in self._names(self.only)]
        return tuple(dict.fromkeys(itertools.chain.from_iterable(names)))

    @staticmethod
    def _names(value: str) -> list[str]:
        return [name.strip() for name in value.split(",")]
