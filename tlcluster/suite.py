"""A run from its settings to its report."""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
from rich.console import Console

from tlcluster import cli, report
from tlcluster.driver import Driver
from tlcluster.errors import UserError
from tlcluster.experiments import Experiment
from tlcluster.manifest import (
    continued,
    deciding_settings,
    new_manifest,
    read_manifest,
    utc_now,
    write_manifest,
)
from tlcluster.plan import show_plan
from tlcluster.progress import Row
from tlcluster.ready import Ready, made_ready
from tlcluster.records import RunManifest
from tlcluster.settings import RunSettings
from tlcluster.store import Store, open_store


def run_suite(settings: RunSettings, command: str) -> int:
    """Run the chosen experiments to the end and write the report.

    Args:
        settings: what to run.
        command: the command line, for the report.

    Returns:
        An exit status: 0 all finished, 1 some failed, 130 or 143 interrupted.

    Raises:
        UserError: something given cannot be used. Nothing was started or written.
    """
    began = time.monotonic()
    console = Console()
    with contextlib.ExitStack() as stack:
        if settings.dry_run:
            show_plan(console, made_ready(settings, stack))
            return cli.OK
        output = open_store(settings.output, create=True)
        ready = made_ready(settings, stack)
        run_url = f"{output.url.rstrip('/')}/{ready.settings.run_name}"
        stack.enter_context(claimed(run_url, ready.experiments))
        run = open_store(run_url, create=True)
        manifest = begun_manifest(ready, run, command)
        driver = Driver(ready, manifest, output, run, console)
        with driver.signals():
            driver.run()
            return conclude(run, manifest, driver.rows, driver.stopping, began, console)


def begun_manifest(ready: Ready, run: Store, command: str) -> RunManifest:
    """Write the manifest of a run that begins, or goes on.

    Raises:
        UserError: the run exists with other settings.
    """
    manifest = new_manifest(
        ready.settings,
        command=command,
        decided=deciding_settings(ready.settings, ready.experiments, ready.admission.workers),
        experiments=ready.experiments,
        nodes=ready.nodes,
        weights=ready.weights,
        index=ready.index,
        index_sha256=ready.index_sha256,
        store_url=ready.shown_store,
    )
    old = read_manifest(run)
    if old is not None:
        manifest = continued(old, manifest)
    write_manifest(run, manifest)
    return manifest


def conclude(
    run: Store,
    manifest: RunManifest,
    rows: dict[str, Row],
    ended: signal.Signals | None,
    began: float,
    console: Console,
) -> int:
    """Write the manifest's last state and the report; returns the exit status."""
    failed = any(row.status == "failed" for row in rows.values())
    write_manifest(
        run,
        manifest.model_copy(
            update={
                "status": "interrupted" if ended else "failed" if failed else "finished",
                "finished": utc_now(),
                "wall_seconds": manifest.wall_seconds + time.monotonic() - began,
            }
        ),
    )
    key = report.write_report(run)
    console.print(f"{run.url}/{key}", highlight=False, soft_wrap=True, markup=False)
    if ended:
        return cli.INTERRUPTED if ended == signal.SIGINT else cli.TERMINATED
    return cli.FAILED if failed else cli.OK


@contextlib.contextmanager
def claimed(run_url: str, experiments: Sequence[Experiment]) -> Iterator[None]:
    """Hold the experiments of a run, so that no second driver trains them at the same time.

    The lock is the file system's: it ends with the process, however that ends.
    S3 has no such thing; there, two drivers with one run name are the user's to avoid.
    """
    if "://" in run_url:
        yield
        return
    with contextlib.ExitStack() as stack:
        for experiment in experiments:
            folder = Path(run_url, experiment.name)
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / ".lock")
            try:
                stack.enter_context(lock.acquire(blocking=False))
            except filelock.Timeout:
                raise UserError(
                    f"{run_url}: another process is training {experiment.name} in this run; wait "
                    "for it, stop it, or use another --run-name"
                ) from None
        yield
