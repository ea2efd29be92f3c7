"""A search from its settings to its recipe file."""

import contextlib
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import ray
from rich.console import Console

from tlcluster import cli
from tlcluster.checkup.versions import versions
from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.orchestration.admission import Admission, admit
from tlcluster.orchestration.display import duration
from tlcluster.orchestration.manifest import utc_now
from tlcluster.orchestration.plan import cluster_line, count, share_line
from tlcluster.orchestration.ready import Ready, made_ready
from tlcluster.orchestration.replicates import replicates
from tlcluster.orchestration.suite import held, opened_output
from tlcluster.orchestration.trainer import new_task
from tlcluster.recipe_files import load_profile
from tlcluster.settings import TuneSettings, worker_range
from tlcluster.storage.locks import LockTaken
from tlcluster.storage.protocol import Store
from tlcluster.storage.scratch import scratch_folder
from tlcluster.terminal import say
from tlcluster.training.devices import possible_precisions
from tlcluster.training.feature_key import delete_view
from tlcluster.training.task import feature_key
from tlcluster.tuning.budget import refuse_less_than_a_trial, trial_seconds
from tlcluster.tuning.folder import (
    begun,
    read_trials,
    refuse_another,
    searches,
    write_manifest,
    write_trial,
)
from tlcluster.tuning.page import PAGE, write_page
from tlcluster.tuning.records import (
    TRIALS,
    TUNED,
    Planned,
    TrialRecord,
)
from tlcluster.tuning.search import search
from tlcluster.tuning.space import Space, as_record, load_space
from tlcluster.tuning.table import SearchTable
from tlcluster.tuning.tuned import base_profile, tuned_toml, winner
from tlcluster.tuning.workers import Order

LOCK = ".tuning.lock"

Records = dict[str, dict[int, TrialRecord]]


def run_tuning(settings: TuneSettings, command: str, started: float) -> int:
    """Search better recipes for the chosen experiments.

    Args:
        settings: what to search.
        command: the command line, for the records.
        started: when the command was started, in seconds since 1970.

    Returns:
        An exit status: 0, or 1 if no trial of an experiment finished.

    Raises:
        UserError: something given cannot be used. Nothing was started or written.
    """
    console = Console()
    settings = settings.named()
    try:
        return _searched(console, settings, command, started)
    except (KeyboardInterrupt, SystemExit):
        if not settings.dry_run:
            again = f"run the same command again with --run-name {settings.run_name} to go on"
            say(console, f"interrupted; {again}")
        raise


def _searched(console: Console, settings: TuneSettings, command: str, started: float) -> int:
    recipe = settings.suite().recipe()
    known = {one.name: one for one in recipe.experiments}
    spaces = {one.name: load_space(settings.space, one, known) for one in recipe.chosen}
    with contextlib.ExitStack() as stack:
        if settings.dry_run:
            ready = made_ready(settings.suite(), stack)
            show_plan(console, settings, ready, admission(settings, ready), spaces)
            return cli.OK
        output = stack.enter_context(opened_output(settings.output))
        url = f"{output.url.rstrip('/')}/{settings.run_name}"
        folder = stack.enter_context(opened_output(url))
        asked = searches(recipe.chosen, spaces)
        # Before Ray is started, which takes a while.
        old = refuse_another(folder, settings, asked, None)
        ready = made_ready(settings.suite(), stack)
        if settings.budget is not None and old is None:
            refuse_less_than_a_trial(settings.budget, trial_seconds(ready))
        for notice in filter(None, (found.notice for found in ready.weights.values())):
            say(console, notice)
        try:
            stack.enter_context(held(folder, LOCK, wait=False))
        except LockTaken:
            raise UserError(
                f"{folder.url}: another process searches there; wait for it, stop it, or use "
                "another --run-name"
            ) from None
        share = admission(settings, ready)
        manifest = begun(folder, settings, ready, share, asked, command)
        records = {one.name: read_trials(folder, one.name) for one in ready.experiments}
        heading = f"{settings.run_name}, {settings.profile} profile"
        with (
            scratch_folder("tune", Path(tempfile.gettempdir())) as scratch,
            SearchTable(
                console, heading, settings.trials, (settings.finalists + 1) * settings.seeds
            ) as table,
        ):
            orders = [
                new_order(ready, share, one, folder, output, started) for one in ready.experiments
            ]
            for order in orders:
                name = order.experiment.name
                search(
                    settings,
                    share,
                    order,
                    spaces[name],
                    records[name],
                    write=partial(write_trial, folder, name),
                    changed=partial(table.show, records, order.experiment),
                    scratch=scratch,
                )
        if settings.views is None:
            # Nobody shows these views again; with --views, runs find them.
            for order in orders:
                trials = records[order.experiment.name]
                delete_views(output, order, trials, ready.index.image_shape)
        base = base_profile(settings.profile)
        start = load_profile(base).experiments
        found = [winner(one, records[one.name], start) for one in ready.experiments]
        winners = [one for one in found if one is not None]
        folder.put(TUNED, tuned_toml(manifest, base, winners).encode())
        manifest = manifest.model_copy(update={"finished": utc_now()})
        write_manifest(folder, manifest)
        write_page(folder, manifest, records, spaces)
    say(console, f"report: {folder.url}/{PAGE}")
    say(console, f"{folder.url}/{TUNED}")
    return cli.OK if len(winners) == len(ready.experiments) else cli.FAILED


def admission(settings: TuneSettings, ready: Ready) -> Admission:
    """What a trial reserves, and how many run at once."""
    return admit(
        ready.nodes,
        settings.trials,
        worker_range(settings.workers),
        # A trial that gets every second turn of a core only ends later.
        settings.cpus_per_worker or 1.0,
        settings.gpus_per_worker,
    )


def new_order(
    ready: Ready,
    share: Admission,
    experiment: Experiment,
    folder: Store,
    output: Store,
    started: float,
) -> Order:
    """What every process that trains trials of an experiment is given."""
    (replicate,) = replicates([experiment], [ready.settings.seed])
    task = new_task(
        ready,
        ready.index_sha256,
        replicate,
        output=output.url,
        run=folder.url,
        started=started,
        earlier_seconds=0.0,
        attempt=1,
    )
    # A trial reserves less than an experiment of a run: others train beside it.
    task = task._replace(threads=share.threads, gpus=share.gpus_per_worker)
    content = ready.weights[experiment.base].content
    return Order(experiment, task, [ray.put(content)], f"{folder.url}/{TRIALS}", versions())


def delete_views(
    output: Store, order: Order, trials: dict[int, TrialRecord], image_shape: tuple[int, int, int]
) -> None:
    """Delete the features of the augmented views that trials have shown.

    Args:
        output: where features are kept.
        order: of the experiment.
        trials: its trials.
        image_shape: of the images, (height, width, channels).
    """
    tasks = (order.task_of(Planned(0, "search", 0, 0, dict(t.fields))) for t in trials.values())
    shown = [one for one in tasks if one.experiment.augment and one.experiment.feature_end]
    for key in {feature_key(task, image_shape) for task in shown}:
        for view in range(1, order.experiment.epochs + 1):
            delete_view(output, key, "train", view, possible_precisions(order.task.gpus))


def show_plan(
    console: Console,
    settings: TuneSettings,
    ready: Ready,
    share: Admission,
    spaces: Mapping[str, Space],
) -> None:
    """Print what a search would do."""
    rows = {split: ready.index.rows(split) for split in ("train", "valid")}
    facts = {
        "search": f"{settings.run_name}, profile {ready.recipe.profile}, seed {settings.seed}",
        "data": f"{ready.shown_store}: {rows['train']:,} train, {rows['valid']:,} valid; the test "
        "split is not read",
        "cluster": cluster_line(ready.nodes),
        "at once": share_line(share, settings.trials),
        "then": f"the best {settings.finalists} and the profile's recipe again, with "
        f"{count(settings.seeds, 'seed')} each",
    }
    for name, value in facts.items():
        say(console, f"{name:10s} {value}")
    seconds = trial_seconds(ready)
    for experiment in ready.experiments:
        epochs, trials = count(experiment.epochs, "epoch"), count(settings.trials, "trial")
        time = f", the first about {duration(seconds[experiment.name])}" if seconds else ""
        say(console, f"{experiment.name}: {trials} of at most {epochs}{time}, in")
        for field, words in as_record(spaces[experiment.name]).items():
            say(console, f"  {field:16s} {words}")
    say(console, "Dry run: nothing was started.")
