"""What `--dry-run` prints: what would run where."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from tlcluster.cinic10 import SPLITS
from tlcluster.experiments import Experiment, differences
from tlcluster.orchestration.admission import Admission
from tlcluster.orchestration.budget import allowed_seconds
from tlcluster.orchestration.display import duration
from tlcluster.orchestration.estimate import matrix_product_rate, seconds_alone
from tlcluster.orchestration.ready import Ready
from tlcluster.records import NodeRecord
from tlcluster.seeds import in_words
from tlcluster.terminal import say
from tlcluster.training.work import Work, ask_work


def show_plan(console: Console, ready: Ready) -> None:
    """Print what a run would do."""
    settings, admission, index = ready.settings, ready.admission, ready.index
    rows = {split: index.rows(split) for split in SPLITS}
    size = sum(info.bytes for split in SPLITS for info in index.shards(split))
    seeds = in_words(tuple(dict.fromkeys(one.seed for one in ready.replicates)))
    if settings.resolve:
        seeds += f", and up to {settings.max_seeds} where differences are not decided"
    facts = {
        "run": f"{settings.run_name}, profile {ready.recipe.profile}, {seeds}",
        "data": f"{ready.shown_store}: {', '.join(f'{rows[split]:,} {split}' for split in SPLITS)}"
        f"; {size / 1e6:,.1f} MB to read",
        "weights": "; ".join(found.record.found for found in ready.weights.values()),
        "output": f"{settings.output}/{settings.run_name}",
        "cluster": cluster_line(ready.nodes),
        "at once": share_line(admission, len(ready.replicates)),
    }
    if (allowed := allowed_seconds(settings, admission.gpus_per_worker)) is not None:
        hours = f"{allowed / 3600:.3g} worker-hours for all of it, earlier commands included"
        facts["budget"] = f"{settings.budget}: {hours}"
    for name, value in facts.items():
        say(console, f"{name:10s} {value}")
    works = ask_work(ready.experiments, image_shape=index.image_shape, classes=len(index.classes))
    rate = None if admission.gpus_per_worker else matrix_product_rate()
    seconds = seconds_alone(ready, works, rows, rate) if rate else []
    times = [duration(one) for one in seconds] or [""] * len(works)
    console.print(_table(ready.experiments, works, times))
    if settings.feature_cache:
        for experiment, one in zip(ready.experiments, works, strict=True):
            if one.row_bytes:
                say(console, lower_part_line(experiment, one, rows))
    several = len(ready.replicates) > len(ready.experiments)
    if several and settings.feature_cache:
        for line in shared_lines(ready.experiments, ready.recipe.view_seed):
            say(console, line)
    if rate:
        of_all = "all experiments and seeds" if several else "all experiments"
        say(
            console,
            f"All epochs of {of_all} take about {duration(sum(seconds))} on this machine, "
            f"whose matrix product rate is {rate / 1e9:,.0f} GFLOP/s; early stopping makes it "
            "less.",
        )
    else:
        say(console, "No estimate of time: the speed of the GPUs is not known.")
    say(console, "Dry run: nothing was started.")


def cluster_line(nodes: Sequence[NodeRecord]) -> str:
    """How large a cluster is."""
    cpus, gpus = (sum(getattr(node, kind) for node in nodes) for kind in ("cpus", "gpus"))
    return f"{count(len(nodes), 'node')}, {cpus:g} CPUs, {gpus:g} GPUs"


def share_line(admission: Admission, total: int) -> str:
    """How many trainings of a total run at the same time, and what each of them reserves."""
    return (
        f"{admission.at_once} of {total}, each with {count(admission.workers, 'worker')} of "
        f"{admission.cpus_per_worker:g} CPUs and {admission.gpus_per_worker:g} GPUs"
    )


def shared_lines(experiments: Sequence[Experiment], view_seed: int | None) -> Iterator[str]:
    """Which features all seeds share.

    Args:
        experiments: what is trained with several seeds.
        view_seed: of the augmented views; None: each seed has its own.
    """
    kept = [one for one in experiments if one.feature_end]
    if kept:
        yield "Features of plain images do not depend on the seed: they are counted once."
    if any(one.augment for one in kept):
        yield (
            "Each seed has augmented views of its own, with their features; --view-seed shares "
            "them."
            if view_seed is None
            else f"All seeds show the augmented views of seed {view_seed}: counted once, too."
        )


def lower_part_line(experiment: Experiment, work: Work, rows: Mapping[str, int]) -> str:
    """What happens to the features of the frozen blocks below those that are trained.

    Args:
        work: of the experiment, with `row_bytes`.
        rows: images of each split.
    """
    blocks = f"{experiment.name}: the blocks below {experiment.trainable_from} are frozen; "
    size = f"{work.row_bytes / 1e3:,.1f} kB an image"
    if not work.kept_share:
        return f"{blocks}they are computed in every step, for their features are not worth {size}."
    view = "each view of train" if experiment.augment else "train"
    each = f"{work.row_bytes * rows['train'] / 1e6:,.1f} MB for {view}"
    others = f"{work.row_bytes * (rows['valid'] + rows['test']) / 1e6:,.1f} MB for valid and test"
    return f"{blocks}their features, {size}, are kept in the output: {each}, {others}."


def count(number: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _table(experiments: Sequence[Experiment], works: Sequence[Work], times: Sequence[str]) -> Table:
    table = Table()
    table.add_column("experiment")
    table.add_column("trainable parameters", justify="right")
    table.add_column("differs from the defaults")
    table.add_column("at most", justify="right")
    for experiment, work, at_most in zip(experiments, works, times, strict=True):
        parameters = f"{work.trainable_params:,}"
        table.add_row(experiment.name, parameters, ", ".join(differences(experiment)), at_most)
    return table
