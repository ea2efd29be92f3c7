"""A run from its settings to its report: check everything, run the experiments, conclude."""

import contextlib
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock
from rich.console import Console

from tlcluster import cli, report
from tlcluster.admission import admit
from tlcluster.cinic10 import CLASSES
from tlcluster.cluster import given_address, ray_cluster
from tlcluster.driver import Driver
from tlcluster.embedded import embedded_store, fill_with_sample
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
from tlcluster.progress import Row
from tlcluster.records import RunManifest
from tlcluster.settings import EMBEDDED, RunSettings, chosen_experiments, worker_range
from tlcluster.shards import Index, check_complete, read_index
from tlcluster.store import Store, open_store
from tlcluster.weights import find_weights


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
    settings = settings.named()
    experiments = chosen_experiments(settings)
    console = Console()
    with contextlib.ExitStack() as stack:
        output = open_store(settings.output, create=True)
        store = stack.enter_context(opened_store(settings))
        index, index_sha256 = checked_index(store)
        weights_record, weights = find_weights(settings.weights, store)
        nodes = stack.enter_context(ray_cluster(given_address(settings.address)))
        if settings.store == EMBEDDED and len(nodes) > 1:
            raise UserError(
                f"--store {EMBEDDED}: this cluster has {len(nodes)} nodes, and the embedded store "
                "is on one; fill a store that all nodes reach with jobs/ingest.py and name it"
            )
        admission = admit(
            nodes,
            len(experiments),
            worker_range(settings.workers),
            settings.cpus_per_worker,
            settings.gpus_per_worker,
        )
        manifest = new_manifest(
            settings,
            command=command,
            decided=deciding_settings(settings, experiments, admission.workers),
            experiments=experiments,
            nodes=nodes,
            weights=weights_record,
            index=index,
            index_sha256=index_sha256,
            store_url=settings.store if settings.store == EMBEDDED else store.url,
        )
        run_url = f"{output.url.rstrip('/')}/{settings.run_name}"
        stack.enter_context(claimed(run_url, experiments))
        run = open_store(run_url, create=True)
        old = read_manifest(run)
        if old is not None:
            manifest = continued(old, manifest)
        write_manifest(run, manifest)
        driver = Driver(settings, experiments, admission, manifest, output, run, store, console)
        with driver.signals():
            driver.run(weights)
            return conclude(run, manifest, driver.rows, driver.stopping, began, console)


def checked_index(store: Store) -> tuple[Index, str]:
    """The index of a store that holds all of it, with CINIC-10's classes, and its sha256."""
    index, sha256 = read_index(store)
    if index.classes != CLASSES:
        raise UserError(
            f"{store.url}: its classes are {', '.join(index.classes)}; the experiments are "
            f"about {', '.join(CLASSES)}: ingest CINIC-10 into another store"
        )
    check_complete(store, index)
    return index, sha256


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
def opened_store(settings: RunSettings) -> Iterator[Store]:
    """The store of the run. The embedded one is started, filled, and stopped at the end."""
    if settings.store != EMBEDDED:
        yield open_store(settings.store)
        return
    if "://" in settings.output:
        raise UserError(
            f"--output {settings.output}: with the embedded store the output is a directory, since "
            "both would ask one endpoint; name a directory, or a store in S3 as well"
        )
    with embedded_store() as embedded:
        store = open_store(embedded.url)
        fill_with_sample(store)
        yield store


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
