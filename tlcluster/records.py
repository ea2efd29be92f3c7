"""What training leaves behind and the report reads. Nothing else passes between the two.

A run is a folder (or an S3 prefix) with this content:

    manifest.json                     RunManifest
    pictures.json                     PicturesRecord, written with the first report
    audit.json                        Audit (`tlcluster.leakage`), if the data set has one
    <experiment>/config.json          ExperimentConfig
    <experiment>/epochs.jsonl         one EpochRecord a line
    <experiment>/result.json          ExperimentResult
    <experiment>/hangs.jsonl          one HangRecord a line, if its workers hung
    <experiment>/predictions.npz      source, label, probabilities of every test image
    <experiment>/model.weights.h5     the best weights, base and head
    <experiment>/checkpoints/         what an interrupted experiment goes on from
    <experiment>/tensorboard/         event files for live curves
    <experiment>/seeds/<seed>/        the same files of each seed but the run's first
    report/                           what `tlcluster.report.write` writes
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tlcluster.experiments import Experiment

MANIFEST = "manifest.json"
PICTURES = "pictures.json"
CONFIG = "config.json"
EPOCHS = "epochs.jsonl"
RESULT = "result.json"
HANGS = "hangs.jsonl"
PREDICTIONS = "predictions.npz"
WEIGHTS = "model.weights.h5"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
REPORT = "report"
PAGE = f"{REPORT}/index.html"
"""Written last of the report."""
FEATURES = "features"
"""Beside the runs: features of frozen bases, which all runs share."""
SEEDS = "seeds"


def replicate_folder(experiment: str, seed: int, first: int) -> str:
    """Where in a run's folder the records of one seed of an experiment are.

    Args:
        experiment: its name.
        seed: of this replicate.
        first: the run's first seed. Its records lie where those of a run of one seed do.
    """
    return experiment if seed == first else f"{experiment}/{SEEDS}/{seed}"


class Record(BaseModel):
    """A frozen value that is written as JSON and read back unchanged."""

    # JSON has no NaN; as a string the loss of a diverged epoch is read back unchanged.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class LayerRecord(Record):
    """One layer of a model, in order from input to output, the base's own layers included."""

    name: str
    kind: str
    """The Keras class: `InputLayer`, `Conv2D`, `MaxPooling2D`, `Dense`, …"""
    output_shape: tuple[int, ...]
    """Without the batch dimension."""
    params: int
    trainable: bool
    in_base: bool
    """True for the base's layers, False for the input, the preprocessing and the head."""
    block: str = ""
    """The block of the base that the layer is in, for example `block1`; "" if in none."""


class ExperimentConfig(Record):
    """Everything that decides what an experiment's result is, and what its model looks like."""

    experiment: Experiment
    seed: int
    layers: tuple[LayerRecord, ...]
    trainable_params: int
    total_params: int


class EpochRecord(Record):
    """One finished epoch."""

    epoch: int
    """Counts from 1."""
    loss: float
    """Of training, with label smoothing if the recipe has it; `val_loss` has none."""
    accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    """Training and validation of this epoch, without checkpoints."""
    images_per_second: float
    """Training images a second of training time, all workers together."""
    learning_rate: float
    """Of its last step."""
    workers: int
    feature_seconds: dict[str, float] | None = None
    """Group of features → seconds in which workers computed some of them, all workers together,
    since the record before. The groups are those that the epoch read; see
    `tlcluster.training.feature_key.FeatureKey.group`. None in runs of version 0.1.0."""
    input_seconds: float | None = None
    """Of `seconds`: the first worker's training steps waited for input; see
    `tlcluster.training.waiting`. None in runs of version 0.1.0, like the next two."""
    validation_seconds: float | None = None
    """Of `seconds`: the first worker validated its part."""
    sum_seconds: float | None = None
    """Of `seconds`: it waited for the other workers' parts. What is left of `seconds` are training
    steps, with the sums of gradients in them."""
    joules: float | None = None
    """That the workers used since the record before, all of them together; see
    `tlcluster.training.energy`. None in runs of version 0.1.0, and if a GPU does not count its
    energy."""
    energy_source: str = ""
    """Where `joules` comes from on the first worker's node: `RAPL`, `an estimate`, or `NVML and`
    one of them."""


Status = Literal["queued", "running", "finished", "failed", "interrupted"]


class WorkerRecord(Record):
    """Where one worker ran."""

    rank: int
    host: str
    device: str
    """For example `CPU, 1 thread` or `NVIDIA H100`."""


class ExperimentResult(Record):
    """How an experiment ended. Test metrics are not here: they follow from the predictions."""

    status: Status
    error: str | None = None
    """One line; None unless `status` is `failed`."""
    workers: tuple[WorkerRecord, ...] = ()
    attempts: int = 0
    """How often its workers were started, resumed runs included."""
    epochs_run: int = 0
    best_epoch: int | None = None
    """Counts from 1; the epoch whose weights were kept and tested."""
    stopped_early: bool = False
    wall_seconds: float = 0.0
    """Time with workers running, all attempts together, test evaluation included."""
    startup_seconds: float | None = None
    """From the start of the command to the end of the first training step that it led to. It
    includes the turns of others where experiments queue."""
    images_per_second: float | None = None
    """Training images a second over all epochs."""
    sha256: dict[str, str] = {}
    """Of the files that the training wrote at its end, by their name. Empty in runs of version
    0.1.0."""
    worker_seconds: float | None = None
    """From the start of its workers to their end, of all workers and attempts together. None in
    runs of version 0.1.0 and if the driver was killed at the end; see `reserved_seconds`."""
    gpu_seconds: float | None = None
    """The same times the GPUs that a worker reserved."""
    feature_seconds: dict[str, float] | None = None
    """That of `EpochRecord`, of the test and of what was computed after the last epoch."""
    test_seconds: float | None = None
    """Of `wall_seconds`: the test."""
    joules: float | None = None
    """That of `EpochRecord`, of the test."""
    energy_source: str = ""

    @property
    def reserved_seconds(self) -> float | None:
        """`worker_seconds`, or its time times the workers that it had at its end; None if it is
        not known how many these were."""
        if self.worker_seconds is not None:
            return self.worker_seconds
        known = self.workers or not self.wall_seconds
        return self.wall_seconds * len(self.workers) if known else None


class RankRecord(Record):
    """Where one worker stood when nothing had moved for too long."""

    rank: int
    host: str
    pid: int
    process: str
    """What the system said of its process, in words, or why nothing is known of it."""
    cores: float | None = None
    """How many cores it used while it was looked at; None if it is not known, as what follows."""
    doing: str = ""
    """What it did, as a noun."""
    seconds: float | None = None
    """For how long."""
    exchange: str = ""
    """The last thing that it did together with all other workers; "" before the first."""
    inside: bool | None = None
    """Whether it had not come out of that."""
    exchanges: int | None = None
    """How many of them it had begun. All workers begin the same ones in the same order."""
    stack: tuple[str, ...] = ()
    """The Python frames of the thread that trains, `file:line function`, the innermost last."""
    other_stacks: tuple[tuple[str, ...], ...] = ()
    """Those of other threads that were in code of tlcluster."""


class HangRecord(Record):
    """An attempt whose workers made no progress for `--stall`."""

    attempt: int
    """Its number, counted from 1."""
    seconds: float
    """Without progress, when its workers were looked at."""
    why: str
    """What kept them, in one line."""
    ranks: tuple[RankRecord, ...]
    """Empty if no worker had said where it is."""


class DatasetRecord(Record):
    """What was trained on."""

    name: str
    index_sha256: str
    classes: tuple[str, ...]
    splits: dict[str, int]
    """Split → images."""
    store: str
    """The store's address; it never holds a credential."""


class NodeRecord(Record):
    """One node of the Ray cluster."""

    host: str
    cpus: float
    gpus: float
    memory_bytes: int
    processor: str = ""


class WeightsRecord(Record):
    """What the models of one base started from."""

    kind: Literal["imagenet", "imagenet-8bit", "random"]
    """`imagenet-8bit` is the copy in the package: close to the published numbers, not equal."""
    sha256: str | None
    """Of the file; None for random weights, and in a dry run if they would be downloaded."""
    found: str
    """Where the file was found, in words."""


RunStatus = Literal["running", "finished", "failed", "interrupted"]
"""`finished` if every experiment finished, `failed` if one or more did not."""


class LooksRecord(Record):
    """The rule of `--resolve`; see `tlcluster.report.seeds.resolve`."""

    first: int
    """Seeds at the first look."""
    most: int


class PriceRecord(Record):
    """What an hour costs, as `--price` says."""

    amount: float = Field(ge=0, allow_inf_nan=False)
    currency: str = Field(pattern="^[A-Z]{3}$")
    per: Literal["GPU-hour", "worker-hour"]
    """A run without GPUs pays for its workers."""


class RunManifest(Record):
    """One run: who, when, where, from what."""

    name: str
    status: RunStatus
    profile: str
    seed: int
    """The first, or only, seed."""
    experiments: tuple[str, ...]
    """Names, in the order of the report."""
    command: str
    started: str
    """UTC, ISO 8601."""
    finished: str | None = None
    wall_seconds: float = 0.0
    """All attempts together."""
    versions: dict[str, str]
    """Package → version, with `python` and `tlcluster`."""
    hardware: tuple[NodeRecord, ...]
    git_commit: str | None
    weights: WeightsRecord
    """Of the first experiment's base."""
    weights_by_base: dict[str, WeightsRecord] = {}
    """Base → its weights. Empty in runs of version 0.1.0; see `base_weights`."""
    dataset: DatasetRecord
    settings: dict[str, str | int | float | bool | None]
    """The settings that decide the results; a rerun under this name must have the same."""
    recipe: str | None = None
    """Content of the recipe file; None for a built-in profile."""
    results_sha256: dict[str, str] = {}
    """Replicate's folder → sha256 of its `result.json`, once it has ended. Empty in runs of
    version 0.1.0."""
    seeds: tuple[int, ...] = ()
    """All seeds of the run, the first of them first. Empty in runs of version 0.1.0; see
    `all_seeds`."""

    seed_counts: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Experiment → how many of `seeds`, from the first on, it is trained with. All of them if it is
    not here."""
    looks: LooksRecord | None = None
    """When results decide about more seeds; None if they do not."""
    audit_sha256: str | None = None
    """Of the run's copy of its data set's audit, `audit.json`; None without one."""
    price: PriceRecord | None = None
    """The last that was given; None if none was."""
    budget_spent: str | None = None
    """The budget that ended the run, as `--budget` said; None if none did."""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the run, also of version 0.1.0, which knew one seed a run."""
        return self.seeds or (self.seed,)

    def seeds_of(self, experiment: str) -> tuple[int, ...]:
        """The seeds that an experiment is trained with."""
        return self.all_seeds[: self.seed_counts.get(experiment)]

    @property
    def folders(self) -> tuple[str, ...]:
        """Where the records of each seed of each experiment are, in the order of the report."""
        return tuple(
            replicate_folder(name, seed, self.seed)
            for name in self.experiments
            for seed in self.seeds_of(name)
        )

    @property
    def base_weights(self) -> dict[str, WeightsRecord]:
        """Base → its weights, also for runs of version 0.1.0, which knew VGG16 only."""
        return self.weights_by_base or {"vgg16": self.weights}


class PictureRecord(Record):
    """The picture of one test image."""

    image: int
    """Its number in the test split, from 0 on."""
    source: str
    png: str
    """In base64."""


class PicturesRecord(Record):
    """The pictures that the page shows. They are kept because the data set may be gone later."""

    index_sha256: str
    """The data set that they are of."""
    pictures: tuple[PictureRecord, ...]
    lacking: str | None = None
    """Why some are missing, in words; None if none is."""
