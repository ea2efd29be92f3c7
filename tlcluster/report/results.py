"""What `results.json` holds, as models that write it; its JSON Schema is made from them."""

from typing import Literal

from tlcluster.experiments import Experiment, StudyResult
from tlcluster.leakage import Method
from tlcluster.records import (
    HangRecord,
    NodeRecord,
    PriceRecord,
    RunStatus,
    WeightsRecord,
    WorkerRecord,
)
from tlcluster.report.cost_part import CostPart
from tlcluster.report.scores import (
    DisputedPart,
    Interval,
    MistakePart,
    Number,
    Part,
    SeedTest,
    TestPart,
)
from tlcluster.report.seeds.moments import Covers
from tlcluster.report.trained import ReplicateStatus

VERSION = 1
"""Raised if a field gets another name or meaning. Fields that are new do not raise it."""


class RunPart(Part):
    """The run as a whole."""

    name: str
    status: RunStatus
    profile: str
    seed: int
    """The first, or only, seed."""
    started: str
    """UTC, ISO 8601."""
    finished: str | None
    wall_seconds: float
    """All attempts together."""
    versions: dict[str, str]
    """Package → version."""
    hardware: tuple[NodeRecord, ...]
    git_commit: str | None
    weights: WeightsRecord
    """Of the first experiment's base."""
    weights_by_base: dict[str, WeightsRecord]
    seeds: tuple[int, ...]
    """All seeds of the run, the first of them first. With `resolution`, not every experiment has
    all of them: see its `replicates`."""
    command: str
    settings: dict[str, str | int | float | bool | None]
    """The settings that decide the results."""
    recipe: str | None
    """Content of the recipe file; null for a built-in profile."""
    store: str
    """Where the data set was read."""
    price: PriceRecord | None
    """What an hour costs, with which `money` was calculated; null without `--price`."""
    budget_spent: str | None
    """The budget that ended the run, as `--budget` said; null if none did."""
    cost: CostPart | None
    """Of all trainings; null if that of one is not known."""


class DatasetPart(Part):
    """What was trained on."""

    name: str
    index_sha256: str
    splits: dict[str, int]
    """Split → images."""
    classes: tuple[str, ...]


class History(Part):
    """One value for each epoch."""

    loss: tuple[Number, ...]
    accuracy: tuple[Number, ...]
    val_loss: tuple[Number, ...]
    val_accuracy: tuple[Number, ...]
    epoch_seconds: tuple[Number, ...]


class ReplicatePart(Part):
    """One seed of an experiment."""

    seed: int
    status: ReplicateStatus
    error: str | None
    """One line; null unless it failed or is damaged."""
    attempts: int
    epochs_run: int
    best_epoch: int | None
    """Counts from 1; the epoch whose weights were kept and tested."""
    stopped_early: bool
    wall_seconds: float
    startup_seconds: float | None
    images_per_second: float | None
    test: SeedTest | None
    history: History
    cost: CostPart | None
    """null if its records do not say how many workers it had for how long."""
    hangs: tuple[HangRecord, ...]
    """Attempts whose workers made no progress for `--stall`."""


class Mean(Part):
    """A measure over the seeds that were tested."""

    mean: Number
    sd: Number
    """Standard deviation between seeds; null with one seed."""


class MeanAccuracy(Mean):
    """An accuracy over the seeds that were tested."""

    ci95: Interval
    """Of the expected accuracy, over what `covers` names."""
    seeds: int
    """How many were tested."""
    covers: Covers


class AcrossSeeds(Part):
    """All seeds of an experiment that were tested."""

    seeds: tuple[int, ...]
    accuracy: MeanAccuracy | None
    """null if no seed was tested, as are the others."""
    loss: Mean | None
    precision_macro: Mean | None
    recall_macro: Mean | None
    f1_macro: Mean | None
    ece: Mean | None
    """Mean of the seeds' errors, not the error of all their predictions together."""
    brier: Mean | None
    per_origin: dict[str, MeanAccuracy]
    note: str | None
    """Why something is null, or what an interval does not cover."""
    cost: CostPart | None
    """Of all seeds, tested or not; null if that of one is not known."""


class ReplicationPart(Part):
    """The study's figure beside ours."""

    published_accuracy: float
    published_test_images: int
    prediction95: Interval | None
    """Where one more training of ours would be on as many other test images; null with one seed."""
    inside: bool | None
    """Whether the published accuracy is in `prediction95`; null with one seed."""
    sentence: str
    """The verdict in words, with what is known to differ from the study."""


class ExperimentPart(Part):
    """One experiment. What is not in `replicates` or `across_seeds` is of the first seed."""

    name: str
    title: str
    status: ReplicateStatus
    error: str | None
    workers: tuple[WorkerRecord, ...]
    attempts: int
    """How often its workers were started, resumed runs included."""
    trainable_params: int | None
    total_params: int | None
    epochs_run: int
    best_epoch: int | None
    """Counts from 1; the epoch whose weights were kept and tested."""
    stopped_early: bool
    wall_seconds: float
    """Time with workers running, all attempts together, test evaluation included."""
    startup_seconds: float | None
    """From the start of the command to the end of the first training step."""
    images_per_second: float | None
    """Training images a second over all epochs."""
    test: TestPart | None
    history: History
    cost: CostPart | None
    """See `replicates`."""
    summary: str
    recipe: Experiment | None
    hangs: tuple[HangRecord, ...]
    """Attempts whose workers made no progress for `--stall`."""
    replicates: tuple[ReplicatePart, ...]
    """One for each seed of the run, in its order."""
    across_seeds: AcrossSeeds
    replication: ReplicationPart | None
    """null if the study has no such figure, or no seed was tested."""
    mistakes: tuple[MistakePart, ...]
    """The images that the first seed took for another class, with the highest probabilities, the
    highest first."""
    mistakes_by_class: tuple[MistakePart, ...]
    """The first of them for each class; of many classes, those with the lowest and the highest
    F1."""


class ComparisonPart(Part):
    """Two experiments, with the first seed of each, on the same test images."""

    a: str
    b: str
    accuracy_difference: float
    """Accuracy of `a` less that of `b`."""
    ci95: Interval
    """Newcombe's, of the difference."""
    p_value: float
    """McNemar's test."""
    p_adjusted: float
    """By Holm's method, for all pairs."""
    test: Literal["exact", "chi-square", "t"]
    only_a_right: int
    """Images that `a` got right and `b` wrong."""
    only_b_right: int
    effect_size: float
    """Cohen's h."""


class ContrastPart(Part):
    """Two experiments, over all seeds that were tested."""

    a: str
    b: str
    seeds_a: int
    """How many were tested."""
    seeds_b: int
    accuracy_difference: float
    """Mean accuracy of `a` less that of `b`."""
    ci95: Interval
    """Of the difference, over what `covers` names."""
    covers: Covers
    p_value: float
    p_adjusted: float
    """By Holm's method, for all pairs."""
    test: Literal["exact", "chi-square", "t"]
    """McNemar's, in one of its two forms, with one seed of both, else Student's t."""
    effect_size: float
    """Cohen's h."""
    probability_a_better: float | None
    """That a new training of `a` is better than a new one of `b`; null if either has one seed."""
    smallest_difference: float
    """That this run would have found with probability 80 %."""
    smallest_difference_any_seeds: float | None
    """The same with any number of seeds and no more test images; null if either has one seed."""


class DecisionPart(Part):
    """What the looks of `--resolve` say of two experiments."""

    a: str
    b: str
    better: str | None
    """The better one; null while that is not decided."""
    seeds: int
    """Of each at the last look that this pair had part in; 0 before the first."""
    accuracy_difference: float | None
    """Mean accuracy of `a` less that of `b` at that look."""
    interval: Interval | None
    """Of the difference. It covers at all looks together with 95 %."""
    p_adjusted: float | None
    """By Holm's method, at that look; decided if below `level`."""


class ResolutionPart(Part):
    """More seeds for what was not decided. Quote these decisions, not the tests of
    `comparisons_across_seeds`, which take the number of seeds as chosen beforehand."""

    first: int
    """Seeds at the first look."""
    most: int
    """Seeds that an experiment may get."""
    level: float
    """Of each look, so that any wrong decision at any look has a probability of at most 5 %."""
    pairs: tuple[DecisionPart, ...]
    wanted: dict[str, int]
    """Experiment → seeds that it needs for the next look. Empty at the end."""


class DuplicatesPart(Part):
    """One experiment, over all seeds that were tested, with and without duplicates."""

    name: str
    all: MeanAccuracy
    """On all test images."""
    without: MeanAccuracy | None
    """On those that no other split has; null if there are none."""
    only: MeanAccuracy | None
    """On those that another split has; null if there are none."""


class LeakagePart(Part):
    """Test images that `train` or `valid` has too, as an audit of the data set found them."""

    images: int
    """Of the test split."""
    duplicates: int
    """Those that another split has, exactly or nearly."""
    exact: int
    """Those with the same pixels as their partner."""
    other_class: int
    """Those whose partner has another class."""
    method: Method
    experiments: tuple[DuplicatesPart, ...]
    """Those that were tested."""


class Results(Part):
    """The results of a run of tlcluster. Accuracies are fractions, numbers are unrounded."""

    version: Literal[1]
    """Of this format. Fields may be added to it; other changes raise it."""
    run: RunPart
    dataset: DatasetPart
    experiments: tuple[ExperimentPart, ...]
    comparisons: tuple[ComparisonPart, ...]
    """Every two experiments whose first seed was tested."""
    study: tuple[StudyResult, ...]
    """What the original study reports, as far as it can be compared with this run."""
    comparisons_across_seeds: tuple[ContrastPart, ...]
    """Every two experiments of which any seed was tested."""
    resolution: ResolutionPart | None
    """null without `--resolve`."""
    verdict: str
    """Which experiments are better than which, over all seeds, in words."""
    limits: str
    """What intervals and tests cover, in words."""
    differences_from_study: tuple[str, ...]
    disputed: tuple[DisputedPart, ...]
    """The test images of which the first seeds of the experiments say the most different classes;
    of as many classes, those whose probabilities are the furthest apart (Jensen–Shannon)."""
    leakage: LeakagePart | None
    """null without an audit of the data set, or if nothing was tested."""
