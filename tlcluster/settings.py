"""The settings of every command, one model each; `tlcluster.cli` makes flags of their fields."""

import datetime
import itertools
import re
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from tlcluster.backbones import BACKBONES
from tlcluster.cli import nearest
from tlcluster.experiments import EXPERIMENTS, MOST_EPOCHS
from tlcluster.leakage import BOUND
from tlcluster.money import Money, parse_budget, parse_money
from tlcluster.recipe_files import PROFILES, profile_name
from tlcluster.recipes import Recipe, resolve
from tlcluster.records import FEATURES
from tlcluster.seeds import FEWEST, MOST_SEEDS, SEED_LIMIT, first_of, further, in_words, parse_seeds

EMBEDDED = "embedded"

MIN_SIDE = min(backbone.smallest_side for backbone in BACKBONES.values())
"""Pixels; no base takes smaller images."""
MAX_SIDE = 1024
"""Pixels of the largest image that a data set may have."""

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

MOST_WORKERS = 10_000
MOST_THREADS = 10_000
MOST_MINUTES = 10_000_000
"""Nineteen years; larger numbers would overflow in the arithmetic of times."""

_EXPERIMENTS = Field(
    None,
    description="which experiments, separated by commas "
    f"[all: {', '.join(EXPERIMENTS)}, and those that a recipe file adds]",
    json_schema_extra={"metavar": "A,B,…"},
)
_DRY_RUN = Field(False, description="print what would run where, and start nothing")


def _storage_wait() -> Any:
    return Field(
        30,
        description="minutes to wait for storage that does not answer",
        gt=0,
        json_schema_extra={"metavar": "MINUTES"},
    )


def _workers(training: str) -> Any:
    return Field(
        "1",
        description=f"workers per {training}, or a minimum and a maximum",
        json_schema_extra={"metavar": "N|MIN:MAX"},
    )


class TrainingSettings(BaseModel):
    """The flags of every command that trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = Field(
        EMBEDDED,
        description="where the shards are: s3://BUCKET/PREFIX, a directory, or `embedded`, a real "
        "S3 server on this machine, filled with the sample of the package",
        json_schema_extra={"metavar": "URL"},
    )
    output: str = Field(
        "runs",
        description="where runs are kept: a directory or s3://BUCKET/PREFIX",
        json_schema_extra={"metavar": "URL"},
    )
    run_name: str | None = Field(
        None,
        description="name of the run; a run of this name continues [PROFILE-UTC TIME]",
        json_schema_extra={"metavar": "NAME"},
    )
    profile: str = Field(
        "quick",
        description=f"recipe: {', '.join(PROFILES)}, or a TOML file that changes experiments and "
        "adds others",
        json_schema_extra={"metavar": "NAME|FILE"},
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
        le=10_000,
    )
    epochs: int | None = Field(
        None,
        description="most epochs of every experiment [as the profile says]",
        gt=0,
        le=MOST_EPOCHS,
    )
    seed: int = Field(524, description="seed of all random numbers", ge=0, lt=SEED_LIMIT)
    views: int | None = Field(
        None,
        description="number of augmented views that experiments with a frozen base, or frozen "
        "lower blocks, use in turn: faster, but an approximation [a new view every epoch]",
        gt=0,
        le=MOST_EPOCHS,
    )
    view_seed: int | None = Field(
        None,
        description="seed of the augmented views; with --views, a run finds the features of "
        "another run with the same views [as the profile says, else each seed has its own]",
        ge=0,
        lt=SEED_LIMIT,
    )
    set: tuple[str, ...] = Field(
        (),
        description="change one field of one experiment, or of all with `*`; may be repeated; "
        "wins over the profile",
        json_schema_extra={"metavar": "EXPERIMENT.FIELD=VALUE"},
    )
    weights: tuple[str, ...] = Field(
        (),
        description="ImageNet weights: a file for the base that it belongs to, or a folder of such "
        "files; `shipped` is the 8-bit copy of VGG16's in the package, `none` means random "
        "weights; may be repeated [looked for in the usual places, then downloaded]",
        json_schema_extra={"metavar": "FILE|DIR|shipped|none"},
    )
    storage_wait: float = _storage_wait()
    retries: int = Field(
        2,
        description="restarts of an experiment whose workers died; at most one if they hang",
        ge=0,
        le=100,
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
        20, description="maximum size of that folder in GiB", gt=0, le=2**30, allow_inf_nan=False
    )
    address: str | None = Field(
        None,
        description="Ray cluster to run in [$RAY_ADDRESS, else one started on this machine]",
    )
    workers: str = _workers("experiment")

    @field_validator("run_name")
    @classmethod
    def _safe_run_name(cls, value: str | None) -> str | None:
        if value is not None and value.lower() == FEATURES:
            raise ValueError(
                "the output folder has a folder of this name, for all runs; choose another name"
            )
        if value is not None and not _RUN_NAME.fullmatch(value):
            raise ValueError(
                "a run name is 1 to 100 letters, digits, dots, dashes and underscores "
                "and begins with a letter or digit, so that it stays inside the output folder"
            )
        return value

    @field_validator("workers")
    @classmethod
    def _sane_workers(cls, value: str) -> str:
        least, most = worker_range(value)
        if least < 1:
            raise ValueError("an experiment needs at least 1 worker")
        if least > most:
            raise ValueError(
                f"the minimum, {least}, is more than the maximum, {most}; give MIN:MAX"
            )
        if most > MOST_WORKERS:
            raise ValueError(f"an experiment has at most {MOST_WORKERS:,} workers")
        return value


class CommonSettings(TrainingSettings):
    """The flags that `run`, `run-one` and `check` share."""

    seeds: str = Field(
        "1",
        description="train each experiment so often, with the seeds from --seed on, or with the "
        "seeds of a list, of which the first is the run's",
        json_schema_extra={"metavar": "N|A,B,…"},
    )
    only_seed: int | None = Field(
        None,
        description="train only this one of the seeds now; other jobs train the others [all]",
    )
    threads: int | None = Field(
        None,
        description="threads of one operation on a CPU; the same results to the last bit need the "
        "same number [--cpus-per-worker if given; else the cores of the largest node, divided "
        "among the workers of one experiment; a run that continues keeps its number]",
        gt=0,
        le=MOST_THREADS,
    )
    feature_cache: bool = Field(
        True,
        description="compute the features of frozen blocks again each time they are needed; "
        "slow, for comparison",
    )
    scale_batch: bool = Field(
        False,
        description="multiply global batch and learning rate by the number of workers; "
        "results then depend on it",
    )
    deadline: float | None = Field(
        None,
        description="minutes after which an experiment that is still running fails",
        gt=0,
        le=MOST_MINUTES,
        json_schema_extra={"metavar": "MINUTES"},
    )
    stall: float = Field(
        30,
        description="minutes without progress after which workers count as hanging: the report "
        "says where each of them stands; they are started again once, then the experiment fails",
        gt=0,
        le=MOST_MINUTES,
        json_schema_extra={"metavar": "MINUTES"},
    )
    price: str | None = Field(
        None,
        description="what an hour of a GPU costs, or of a worker if workers have no GPU, such as "
        "2.50USD; the report then has costs in money",
        json_schema_extra={"metavar": "MONEY"},
    )
    budget: str | None = Field(
        None,
        description="worker-hours that the run may take, all experiments and earlier commands "
        "together, or with --price an amount of money, such as 30USD; the experiments that take "
        "least start first, what is closest to its end goes on longest, and all else goes on "
        "with a larger budget [no limit]",
        json_schema_extra={"metavar": "HOURS|MONEY"},
    )

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """All seeds of the run, its first one first."""
        return parse_seeds(self.seeds, self.seed)

    @property
    def money_an_hour(self) -> Money | None:
        """`price` as an amount."""
        return None if self.price is None else parse_money(self.price)

    @field_validator("price")
    @classmethod
    def _sane_price(cls, value: str | None) -> str | None:
        if value is not None:
            parse_money(value)
        return value

    @property
    def allowance(self) -> float | Money | None:
        """`budget`: worker-hours, or money in the currency of `price`."""
        return None if self.budget is None else parse_budget(self.budget)

    @field_validator("budget")
    @classmethod
    def _sane_budget(cls, value: str | None, info: ValidationInfo) -> str | None:
        budget = None if value is None else parse_budget(value)
        if isinstance(budget, Money) and "price" in info.data:  # else it is refused for itself
            price = info.data["price"]
            if price is None:
                raise ValueError("a budget of money needs a price; add --price, such as 2.50USD")
            if parse_money(price).currency != budget.currency:
                raise ValueError(f"--price is {price}; give both in the same currency")
        if isinstance(budget, float) and budget > MOST_MINUTES:
            raise ValueError(f"input should be less than or equal to {MOST_MINUTES}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _list_decides(cls, values: dict[str, Any]) -> dict[str, Any]:
        first = first_of(str(values.get("seeds", "")))
        return values if first is None else {"seed": first, **values}

    @field_validator("seeds")
    @classmethod
    def _sane_seeds(cls, value: str, info: ValidationInfo) -> str:
        if "seed" in info.data:  # else it is refused for itself
            parse_seeds(value, info.data["seed"])
        return value

    @field_validator("only_seed")
    @classmethod
    def _one_of_them(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and {"seed", "seeds"} <= info.data.keys():
            seeds = parse_seeds(info.data["seeds"], info.data["seed"])
            if value not in seeds:
                raise ValueError(f"is not among the run's {in_words(seeds)}; see --seeds")
        return value


class RunSettings(CommonSettings):
    """The flags of `run`."""

    experiments: str | None = _EXPERIMENTS
    resolve: bool = Field(
        False,
        description="then train more seeds of the experiments whose differences are not decided, "
        f"each time twice as many; begins with --seeds {FEWEST} or more",
    )
    max_seeds: int = Field(
        20, description="with --resolve: most seeds of an experiment", le=MOST_SEEDS
    )
    dry_run: bool = _DRY_RUN
    list_experiments: bool = Field(
        False, description="print the names of the experiments, one per line, and start nothing"
    )
    list_replicates: bool = Field(
        False,
        description="print `NAME SEED` for each experiment and each of its seeds, one per line, "
        "and start nothing",
    )

    @property
    def possible_seeds(self) -> tuple[int, ...]:
        """The seeds that the run may come to have: more than `all_seeds` with `--resolve`."""
        return further(self.all_seeds, self.max_seeds) if self.resolve else self.all_seeds

    @model_validator(mode="before")
    @classmethod
    def _enough_to_look_at(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {"seeds": str(FEWEST), **values} if values.get("resolve") else values

    @field_validator("resolve")
    @classmethod
    def _can_look(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("only_seed") is not None:
            raise ValueError("looks at all seeds; leave --only-seed out")
        if value and {"seed", "seeds"} <= info.data.keys():
            seeds = len(parse_seeds(info.data["seeds"], info.data["seed"]))
            if seeds < FEWEST:
                raise ValueError(
                    f"looks first at {FEWEST} seeds or more, and --seeds says {seeds}; give "
                    f"--seeds {FEWEST}, or leave it out"
                )
        return value

    @field_validator("max_seeds")
    @classmethod
    def _not_fewer(cls, value: int, info: ValidationInfo) -> int:
        if not info.data.get("resolve"):
            raise ValueError("is for --resolve; add that flag, or leave this one out")
        if {"seed", "seeds"} <= info.data.keys():
            seeds = len(parse_seeds(info.data["seeds"], info.data["seed"]))
            if value < seeds:
                raise ValueError(f"is less than the {seeds} of --seeds; give {seeds} or more")
        return value

    def named(self) -> "RunSettings":
        """The same settings with a run name: the given one, or profile and UTC time."""
        if self.run_name is not None:
            return self
        return self.model_copy(update={"run_name": f"{profile_name(self.profile)}-{utc_name()}"})

    def recipe(self) -> Recipe:
        """The experiments with profile, `--set`, `--epochs` and `--view-seed` applied.

        Raises:
            UserError: a name, key or value is not allowed, or the profile's file cannot be read.
        """
        return resolve(self.profile, self.set, self.epochs, self.experiments, self.view_seed)


class OneSettings(CommonSettings):
    """The arguments of `run-one`."""

    experiment: str = Field(
        description=f"which one: {', '.join(EXPERIMENTS)}, or one that a recipe file adds",
        json_schema_extra={"argument": True},
    )
    dry_run: bool = _DRY_RUN

    def suite(self) -> RunSettings:
        """The settings of a run of this one experiment."""
        return RunSettings(experiments=self.experiment, **self.model_dump(exclude={"experiment"}))

    @field_validator("experiment")
    @classmethod
    def _only_one(cls, value: str) -> str:
        if "," in value:
            raise ValueError("give the name of one experiment")
        return value


class CheckSettings(CommonSettings):
    """The flags of `check`: those that say what a run would do, and where."""

    experiments: str | None = _EXPERIMENTS
    seconds: float = Field(
        50,
        description="time for the nodes' answers together; more where Python's packages lie on a "
        "slow file system",
        gt=0,
        le=3600,
    )

    def suite(self) -> RunSettings:
        """The settings of the run to check for."""
        return RunSettings(**self.model_dump(exclude={"seconds"}))


class TuneSettings(TrainingSettings):
    """The arguments of `tune`."""

    experiments: str = Field(
        description=f"which experiments, separated by commas: {', '.join(EXPERIMENTS)}, or those "
        "that a recipe file adds",
        json_schema_extra={"argument": True},
    )
    workers: str = _workers("trial")
    trials: int = Field(20, description="recipes to try for each experiment", gt=0, le=100_000)
    budget: float | None = Field(
        None,
        description="worker-hours for each experiment's trials; the best recipes are then trained "
        "again as always [no limit]",
        gt=0,
        le=MOST_MINUTES,
        json_schema_extra={"metavar": "HOURS"},
    )
    space: str | None = Field(
        None,
        description="TOML file with the fields to search and their values [one for every "
        "experiment of the study]",
        json_schema_extra={"metavar": "FILE"},
    )
    finalists: int = Field(
        3, description="best recipes to train again with several seeds", gt=0, le=1000
    )
    seeds: int = Field(3, description="seeds of each of them", gt=0, le=1000)
    dry_run: bool = _DRY_RUN

    def named(self) -> "TuneSettings":
        """The same settings with a run name: the given one, or `tune` and UTC time."""
        if self.run_name is not None:
            return self
        return self.model_copy(update={"run_name": f"tune-{utc_name()}"})

    def suite(self) -> RunSettings:
        """The settings of a run of the same experiments."""
        own = {"trials", "budget", "space", "finalists", "seeds"}
        return RunSettings(**self.model_dump(exclude=own))


def utc_name() -> str:
    """The time as a part of a run's name."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")


def worker_range(value: str) -> tuple[int, int]:
    """`N` or `MIN:MAX` → (minimum, maximum). Raises ValueError if it is neither."""
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


class IngestSettings(BaseModel):
    """The flags of `ingest`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        description="data set as split/class/image: a folder, an archive (.tar, .tar.gz, .tgz, "
        ".tar.xz, .zip), or the https:// address of an archive",
        json_schema_extra={"metavar": "PATH|URL"},
    )
    store: str = Field(
        description="where to: s3://BUCKET/PREFIX, or a directory, which is created",
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
        description="images per shard [as many as take 6 MB: 2048 of 32×32 pixels], small, "
        "so that training starts soon, and large enough for the full speed of S3",
        gt=0,
        le=65_536,
    )
    processes: int | None = Field(
        None, description="processes that decode images [one per CPU]", gt=0, le=1024
    )
    cache: str | None = Field(
        None,
        description="folder for downloads and unfinished shards [$XDG_CACHE_HOME/tlcluster]",
        json_schema_extra={"metavar": "DIR"},
    )
    storage_wait: float = _storage_wait()

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


class AuditSettings(BaseModel):
    """The flags of `audit`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: str = Field(
        description="an ingested data set: s3://BUCKET/PREFIX or a directory",
        json_schema_extra={"metavar": "URL"},
    )
    to: str | None = Field(
        None,
        description="where audit.json and audit.html are written: a directory, which is created, "
        "or s3://BUCKET/PREFIX [the store, where runs find them]",
        json_schema_extra={"metavar": "URL"},
    )
    bound: float = Field(
        BOUND,
        description="largest distance of near duplicates: 1 − correlation of their details",
        ge=0,
        le=1,
    )
    cache: str | None = Field(
        None,
        description="folder for downloaded shards [$XDG_CACHE_HOME/tlcluster]",
        json_schema_extra={"metavar": "DIR"},
    )
    storage_wait: float = _storage_wait()

    @field_validator("store", "to")
    @classmethod
    def _lasting_store(cls, value: str | None) -> str | None:
        if value == EMBEDDED:
            raise ValueError(
                "the embedded store ends with the run that starts it; give s3://BUCKET/PREFIX or a "
                "directory"
            )
        return value


class _OfRun(BaseModel):
    """The flag that names a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(
        description="folder of the run, OUTPUT/RUN-NAME: a directory or s3://BUCKET/PREFIX",
        json_schema_extra={"metavar": "URL"},
    )


class TrackSettings(_OfRun):
    """The flags of `track`."""


class _OfRunAndData(_OfRun):
    """The flags that name a run and its data set."""

    store: str | None = Field(
        None,
        description="the data set that the run was trained on: s3://BUCKET/PREFIX or a directory; "
        "pictures that the page shows and the run did not keep are read from it [not read]",
        json_schema_extra={"metavar": "URL"},
    )


class ReportSettings(_OfRunAndData):
    """The flags of `report`."""

    audit: str | None = Field(
        None,
        description="where an audit of the run's data set is, its store or what --to of the audit "
        "named: the run takes a copy, and the report shows the accuracy without duplicates [as "
        "the run has one]",
        json_schema_extra={"metavar": "URL"},
    )


class VerifySettings(_OfRunAndData):
    """The flags of `verify`."""

    store: str | None = Field(
        None,
        description="the data set that the run was trained on: s3://BUCKET/PREFIX or a directory; "
        "the predictions' images and labels, and the pictures, are compared with it "
        "[not compared]",
        json_schema_extra={"metavar": "URL"},
    )


class CompareSettings(BaseModel):
    """The arguments of `compare`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: tuple[str, ...] = Field(
        description="folder of a run, OUTPUT/RUN-NAME, or a folder of runs, in which those that "
        "cannot be used are left out: a directory or s3://BUCKET/PREFIX; runs are compared with "
        "the first one, in a folder the oldest",
        json_schema_extra={"argument": True},
    )
    to: str = Field(
        "comparison",
        description="folder for the page and its tables: a directory or s3://BUCKET/PREFIX",
        json_schema_extra={"metavar": "URL"},
    )
    any_images: bool = Field(
        False,
        description="also show named runs that were tested on other images than the first one; "
        "there are no statistics between these",
    )


EXPORT_FORMATS = ("keras", "saved-model", "onnx", "onnx-int8", "litert")
"""Formats of exported models; see `tlcluster.export.formats`."""


class ExportSettings(_OfRunAndData):
    """The flags of `export`."""

    experiment: str = Field(
        description="which of the run's experiments; its training must have finished",
        json_schema_extra={"metavar": "NAME"},
    )
    format: str = Field(
        description=f"which formats, separated by commas: {', '.join(EXPORT_FORMATS)}",
        json_schema_extra={"metavar": "A,B,…"},
    )
    to: str = Field(
        description="folder for the models and their card; it must not exist, or be empty",
        json_schema_extra={"metavar": "DIR"},
    )
    seed: int | None = Field(
        None, description="which of the run's seeds [the first]", ge=0, lt=2**31
    )
    store: str | None = Field(
        None,
        description="the data set that the run was trained on: s3://BUCKET/PREFIX or a directory; "
        "the models are scored on its test split [where the run found it]",
        json_schema_extra={"metavar": "URL"},
    )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.format.split(",")))

    @field_validator("format")
    @classmethod
    def _known_formats(cls, value: str) -> str:
        for name in map(str.strip, value.split(",")):
            if name not in EXPORT_FORMATS:
                raise ValueError(f"no format {name!r}; {nearest(name, EXPORT_FORMATS)}")
        return value


class PredictSettings(BaseModel):
    """The arguments of `predict`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="a model that export wrote: a .keras, .onnx or .tflite file, or the folder of "
        "a SavedModel",
        json_schema_extra={"metavar": "FILE"},
    )
    path: tuple[str, ...] = Field(
        description="PNG and JPEG pictures of any size, and folders that hold some",
        json_schema_extra={"argument": True},
    )
    csv: str | None = Field(
        None,
        description="file for the answers as CSV, with the probability of every class",
        json_schema_extra={"metavar": "FILE"},
    )
    top: int = Field(
        3, description="most probable classes that the table shows of each picture", gt=0, le=1000
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
"""Part of the benchmark → its tables; `--only` takes the names of both. The longest is the last, so
that the others are known before it ends."""


class BenchSettings(BaseModel):
    """The flags of `bench`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    only: str = Field(
        ",".join(BENCH_PARTS),
        description="which parts, separated by commas",
        json_schema_extra={"metavar": "A,B,…"},
    )
    data: str | None = Field(
        None,
        description="images to measure on: a folder or an archive of CINIC-10 "
        "[../shared/data/cinic10-cifar-part.tar.xz, else the sample of the package]",
        json_schema_extra={"metavar": "PATH"},
    )
    per_class: int = Field(
        60,
        description="images per class and split in measurements that take long and do the same "
        "for every image",
        gt=0,
        le=1_000_000,
    )
    repeats: int = Field(3, description="how often everything is measured", gt=0, le=1000)
    quick: bool = Field(
        False, description="the sample, once, few epochs: to check that everything works"
    )
    findings: str | None = Field(
        None,
        description="file for all results as JSON",
        json_schema_extra={"flag": "--json", "metavar": "FILE"},
    )
    work: str = Field(
        "build/bench",
        description="folder for records in the peers' formats and for runs; images stay there "
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
        description="VGG16's ImageNet weights, `shipped` for the 8-bit copy in the package, or "
        "`none` for random ones [looked for in the usual places, then downloaded]",
        json_schema_extra={"metavar": "FILE|shipped|none"},
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
