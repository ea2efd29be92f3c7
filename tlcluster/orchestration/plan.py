"""What `--dry-run` prints: what would run where."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from tlcluster.backbones import BACKBONES
from tlcluster.cinic10 import SPLITS
from tlcluster.cost import flop
from tlcluster.experiments import Experiment, differences
from tlcluster.orchestration.display import duration
from tlcluster.orchestration.ready import Ready
from tlcluster.terminal import printable
from tlcluster.training.work import Work, ask_work


def show_plan(console: Console, ready: Ready) -> None:
    """Print what a run would do."""
    settings, admission, index = ready.settings, ready.admission, ready.index
    rows = {split: index.rows(split) for split in SPLITS}
    size = sum(info.bytes for split in SPLITS for info in index.shards(split))
    cpus, gpus = (sum(getattr(node, kind) for node in ready.nodes) for kind in ("cpus", "gpus"))
    facts = {
        "run": f"{settings.run_name}, profile {ready.recipe.profile}, seed {settings.seed}",
        "data": f"{ready.shown_store}: {', '.join(f'{rows[split]:,} {split}' for split in SPLITS)}"
        f"; {size / 1e6:,.1f} MB to read",
        "weights": "; ".join(found.record.found for found in ready.weights.values()),
        "output": f"{settings.output}/{settings.run_name}",
        "cluster": f"{count(len(ready.nodes), 'node')}, {cpus:g} CPUs, {gpus:g} GPUs",
        "at once": f"{admission.at_once} of {len(ready.experiments)}, each with "
        f"{count(admission.workers, 'worker')} of {admission.cpus_per_worker:g} CPUs and "
        f"{admission.gpus_per_worker:g} GPUs",
    }
    for name, value in facts.items():
        say(console, f"{name:10s} {value}")
    works = ask_work(ready.experiments, image_shape=index.image_shape, classes=len(index.classes))
    work = [
        flop(experiment, one.forward, rows, settings.views, features=settings.feature_cache)
        for experiment, one in zip(ready.experiments, works, strict=True)
    ]
    rate = None if admission.gpus_per_worker else matrix_product_rate()
    seconds = [
        flops / (BACKBONES[experiment.base].efficiency * rate) if rate else 0.0
        for experiment, flops in zip(ready.experiments, work, strict=True)
    ]
    times = [duration(one) if rate else "" for one in seconds]
    console.print(_table(ready.experiments, works, times))
    if settings.feature_cache:
        for experiment, one in zip(ready.experiments, works, strict=True):
            if one.row_bytes:
                say(console, lower_part_line(experiment, one, rows))
    if rate:
        say(
            console,
            f"All epochs of all experiments take about {duration(sum(seconds))} on this machine, "
            f"whose matrix product rate is {rate / 1e9:,.0f} GFLOP/s; early stopping makes it "
            "less.",
        )
    else:
        say(console, "No estimate of time: the speed of the GPUs is not known.")
    say(console, "Dry run: nothing was started.")


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


def say(console: Console, line: str) -> None:
    """Print one line as it is: not wrapped, not coloured, without markup."""
    console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


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


def matrix_product_rate() -> float:
    """This machine's rate in float32 matrix products, in floating-point operations per second."""
    size = 1024
    matrix = np.random.default_rng(0).random((size, size), dtype=np.float32)
    fastest = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        _ = matrix @ matrix
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest
