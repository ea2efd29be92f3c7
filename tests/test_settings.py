"""What a run may be told, and what is said about the rest."""

import re
from collections.abc import Sequence

import pytest
from pydantic import BaseModel

from tlcluster.cli import parse
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, RECIPE
from tlcluster.settings import (
    IngestSettings,
    OneSettings,
    ReportSettings,
    RunSettings,
    worker_range,
)


def told(*arguments: str) -> RunSettings:
    return parse(RunSettings, "jobs/run_all.py", "", arguments)


def one(*arguments: str) -> OneSettings:
    return parse(OneSettings, "jobs/run_one.py", "", arguments)


def refusal(model: type[BaseModel], arguments: Sequence[str]) -> str:
    """What is said about a command line, by the settings themselves or by what they choose."""

    def choose() -> None:
        settings = parse(model, "jobs/run_all.py", "", arguments)
        assert isinstance(settings, RunSettings)
        settings.recipe()

    with pytest.raises(UserError) as caught:
        choose()
    return str(caught.value)


NAMES = "allowed: frozen, augmented, regularized, finetuned"
FIELDS = f"allowed: {', '.join(RECIPE)}"
POSITIVE = "input should be greater than 0"
AT_LEAST_ONE_WORKER = "an experiment needs at least 1 worker"
N_OR_RANGE = "give a number N, or MIN:MAX"

REFUSED = {
    "--experiments frozen,frozen": "has frozen twice; name each once",
    "--profile papr": "no such profile; did you mean paper? allowed: paper, quick, or a file whose "
    "name ends in .toml",
    "--set frozen.speed=1": f"no field 'speed'; {FIELDS}",
    "--set frozen.epoch=1": f"no field 'epoch'; did you mean epochs? {FIELDS}",
    "--set frozen.title=Best": f"no field 'title'; {FIELDS}",
    "--set frosen.epochs=3": f"no experiment 'frosen'; did you mean frozen? {NAMES}",
    "--set epochs=3": "give EXPERIMENT.FIELD=VALUE",
    "--set frozen.epochs": "give EXPERIMENT.FIELD=VALUE",
    "--set frozen.epochs=0": POSITIVE,
    "--set *.global_batch=-5": POSITIVE,
    "--set frozen.learning_rate=inf": "input should be a finite number",
    "--set frozen.learning_rate=nan": "input should be a finite number",
    "--set frozen.augment=maybe": "input should be a valid boolean, unable to interpret input",
    "--set frozen.preprocess=caffe": "input should be 'raw' or 'base'",
    "--epochs 0": POSITIVE,
    "--epochs -1": POSITIVE,
    "--epochs 1.5": "input should be a valid integer, unable to parse string as an integer",
    "--views 0": POSITIVE,
    "--seed -1": "input should be greater than or equal to 0",
    "--seed 2147483648": "input should be less than 2147483648",
    "--workers 0": AT_LEAST_ONE_WORKER,
    "--workers -2": AT_LEAST_ONE_WORKER,
    "--workers 0:4": AT_LEAST_ONE_WORKER,
    "--workers 4:2": "the minimum, 4, is more than the maximum, 2; give MIN:MAX",
    "--workers 10001": "an experiment has at most 10,000 workers",
    "--workers two": N_OR_RANGE,
    "--workers 1:": N_OR_RANGE,
    "--workers 1:2:3": N_OR_RANGE,
    "--gpus-per-worker 2": "input should be less than or equal to 1",
    "--cpus-per-worker 0": "input should be greater than or equal to 0.01",
    "--deadline 0": POSITIVE,
    "--stall 0": POSITIVE,
    "--threads 0": POSITIVE,
    "--retries -1": "input should be greater than or equal to 0",
    "--cache-gib inf": "input should be a finite number",
    "--price 2.50": "give an amount above 0 and the three letters of its currency, such as 2.50USD",
    "--budget 0": "give worker-hours above 0, such as 8, or an amount of money, such as 30USD",
    "--budget 8h": "give worker-hours above 0, such as 8, or an amount of money, such as 30USD",
    "--budget 30USD": "a budget of money needs a price; add --price, such as 2.50USD",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_a_run_may_not_be_told_is_one_line_that_repeats_it(arguments: str) -> None:
    assert refusal(RunSettings, arguments.split()) == f"{arguments}: {REFUSED[arguments]}"


def test_a_budget_and_a_price_have_the_same_currency() -> None:
    assert told("--price", "2.50USD", "--budget", "30USD").allowance == (30.0, "USD")
    assert told("--price", "2.50USD", "--budget", "30").allowance == 30.0
    assert refusal(RunSettings, ["--price", "2.50USD", "--budget", "30EUR"]) == (
        "--budget 30EUR: --price is 2.50USD; give both in the same currency"
    )


def test_a_wrong_set_is_told_whichever_experiments_are_chosen() -> None:
    assert refusal(RunSettings, ["--experiments", "frozen", "--set", "finetuned.epochs=0"]) == (
        f"--set finetuned.epochs=0: {POSITIVE}"
    )


@pytest.mark.parametrize(
    "name", ["../elsewhere", "/x", "..", ".hidden", "a/b", "a b", "", "-x", "é", "x" * 101]
)
def test_a_run_name_that_could_leave_the_output_folder_is_refused(name: str) -> None:
    assert refusal(RunSettings, [f"--run-name={name}"]) == (
        f"--run-name {name}: a run name is 1 to 100 letters, digits, dots, dashes and underscores "
        "and begins with a letter or digit, so that it stays inside the output folder"
    )


@pytest.mark.parametrize("name", ["features", "Features"])
def test_a_run_is_not_named_as_the_folder_that_all_runs_share(name: str) -> None:
    assert refusal(RunSettings, ["--run-name", name]) == (
        f"--run-name {name}: the output folder has a folder of this name, for all runs; choose "
        "another name"
    )


def test_a_run_without_a_name_is_named_by_profile_and_utc_time() -> None:
    name = told("--profile", "paper").named().run_name
    assert name is not None
    assert re.fullmatch(r"paper-\d{8}T\d{6}Z", name)
    assert told("--run-name", "first").named().run_name == "first"


def test_run_one_names_its_experiment_and_hands_everything_else_on() -> None:
    arguments = [
        "--epochs",
        "3",
        "--set",
        "*.patience=2",
        "--no-feature-cache",
        "--store",
        "s3://b",
    ]
    assert one("augmented", *arguments).suite() == told("--experiments", "augmented", *arguments)


def test_run_one_and_run_all_have_the_same_flags() -> None:
    assert RunSettings.model_fields.keys() ^ OneSettings.model_fields.keys() == {
        "experiment",
        "experiments",
        "list_experiments",
        "list_replicates",
        "max_seeds",
        "resolve",
    }


@pytest.mark.parametrize("names", ["augmentd", "frozen,augmentd", ",augmentd"])
def test_an_unknown_experiment_is_refused_with_the_nearest_ones(names: str) -> None:
    refused = refusal(RunSettings, ["--experiments", names])
    assert refused in (
        f"no experiment 'augmentd'; did you mean augmented? {NAMES}",
        f"no experiment ''; {NAMES}",
    )


def test_run_one_takes_one_experiment() -> None:
    assert refusal(OneSettings, ["frozen,augmented"]) == (
        "EXPERIMENT frozen,augmented: give the name of one experiment"
    )
    with pytest.raises(UserError, match="no experiment 'augmentd'; did you mean augmented"):
        one("augmentd").suite().recipe()


@pytest.mark.parametrize("flag", ["--epochs", "--views", "--workers", "--seed", "--cache-gib"])
def test_a_number_of_400_digits_is_refused(flag: str) -> None:
    assert refusal(RunSettings, [flag, "9" * 400]).startswith(f"{flag} 999")


def test_experiments_come_in_the_order_of_the_report() -> None:
    chosen = told("--experiments", "finetuned, frozen").recipe().chosen
    assert [experiment.name for experiment in chosen] == ["frozen", "finetuned"]


def test_the_paper_profile_is_the_study_s_recipe() -> None:
    assert told("--profile", "paper").recipe().chosen == tuple(EXPERIMENTS.values())


def test_later_changes_win_and_the_epochs_flag_is_last() -> None:
    settings = told(
        *("--set", "*.patience=4", "--set", "frozen.patience=2", "--set", "frozen.epochs=7"),
        *("--experiments", "frozen,augmented", "--epochs", "3"),
    )
    frozen, augmented = settings.recipe().chosen
    assert (frozen.patience, augmented.patience) == (2, 4)
    assert (frozen.epochs, augmented.epochs) == (3, 3)


@pytest.mark.parametrize(
    ("text", "numbers"), [("1", (1, 1)), ("3", (3, 3)), ("2:5", (2, 5)), ("4:4", (4, 4))]
)
def test_workers_are_a_number_or_the_least_and_the_most(
    text: str, numbers: tuple[int, int]
) -> None:
    assert worker_range(text) == numbers
    assert told("--workers", text).workers == text


def test_ingest_needs_a_store_that_outlives_it() -> None:
    assert refusal(IngestSettings, ["--source", "x", "--store", "embedded"]) == (
        "--store embedded: the embedded store ends with the run that starts it, and is filled by "
        "it; give s3://BUCKET/PREFIX or a directory"
    )


def test_a_report_needs_a_run() -> None:
    assert refusal(ReportSettings, []) == (
        "the following arguments are required: --run; see jobs/run_all.py --help"
    )
