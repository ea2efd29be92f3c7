"""The parts of a benchmark, one after another: measured, shown, written."""

import datetime
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from tlcluster import cli
from tlcluster.bench import concurrency, input, memory, scaling, startup, suite, views  # noqa: A004
from tlcluster.bench.context import Context
from tlcluster.bench.datasets import chosen_source, prepared
from tlcluster.bench.machine import cores, peer_versions, this_machine
from tlcluster.bench.measures import Part, Report
from tlcluster.bench.show import show_machine, show_part
from tlcluster.dataset.sample import sample
from tlcluster.errors import UserError
from tlcluster.settings import BenchSettings

WIDTH = 130

PARTS: Mapping[str, Callable[[Context], Part]] = {
    "input": input.measure,
    "scaling": scaling.measure,
    "concurrency": concurrency.measure,
    "startup": startup.measure,
    "memory": memory.measure,
    "suite-finetuned": suite.measure_finetuned,
    "suite-fresh-views": views.measure_fresh,
    "suite-frozen": suite.measure_frozen,
    "suite-accuracy": suite.measure_accuracy,
    "suite-few-views": views.measure_few,
}


def run_bench(settings: BenchSettings, command: str) -> int:
    """Measure the chosen parts and print a table each.

    Args:
        settings: what to measure.
        command: the command line, for the report.

    Returns:
        An exit status, 0. A goal that is not reached is a finding, not a failure.

    Raises:
        UserError: something given cannot be used, or a program that is measured failed.
    """
    names = settings.tables()
    cores()
    # Absolute, not resolved: the interpreter of an environment is a link out of it.
    peers = Path(settings.peers).absolute()
    versions = peer_versions(peers) if "input" in names else {}
    target = None if settings.findings is None else writable(settings.findings)
    # Into a file, tables are as wide as they need; 80 columns would cut names.
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    quiet = Console(stderr=True)
    source, words = (sample(), "the sample") if settings.quick else chosen_source(settings.data)
    work = work_folder(settings.work)
    quiet.print(f"preparing images in {work}", highlight=False, markup=False)
    every = prepared(source, work)
    per_class = 20 if settings.quick else settings.per_class
    context = Context(
        all_images=every,
        some_images=prepared(source, work, per_class),
        work=work,
        peers=peers,
        weights=settings.weights,
        repeats=1 if settings.quick else settings.repeats,
        quick=settings.quick,
        console=quiet,
    )
    machine = this_machine(versions)
    data = f"{every.total:,} images of {words}"
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    show_machine(console, machine, data)
    parts: list[Part] = []
    for name in names:
        parts.append(PARTS[name](context))
        show_part(console, parts[-1])
        if target:
            # After every part, for one that fails should not take the others with it.
            report = Report(
                command=command, started=started, machine=machine, data=data, parts=tuple(parts)
            )
            target.write_text(report.model_dump_json(indent=1) + "\n")
    return cli.OK


def work_folder(folder: str) -> Path:
    """The folder for all files of a benchmark, created if there is none.

    Raises:
        UserError: it cannot be created.
    """
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--work {folder}: {(error.strerror or '').lower()}; name a folder that can be created"
        ) from None
    return path


def writable(file: str) -> Path:
    """The file for the findings, checked before anything is measured.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(file)
    try:
        path.open("a").close()
    except OSError as error:
        raise UserError(
            f"--json {file}: {(error.strerror or '').lower()}; name a file that can be written"
        ) from None
    return path
