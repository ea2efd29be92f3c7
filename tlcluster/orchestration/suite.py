"""A run from its settings to its report."""

import contextlib
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console

from tlcluster import cli
from tlcluster.checkup.stores import exercise, new_mark
from tlcluster.dataset.pixels import images_of
from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.money import price_record
from tlcluster.orchestration.driver import Driver
from tlcluster.orchestration.errands import read_result
from tlcluster.orchestration.looks import next_look
from tlcluster.orchestration.manifest import (
    continued,
    deciding_settings,
    new_manifest,
    read_manifest,
    utc_now,
    write_manifest,
)
from tlcluster.orchestration.plan import show_plan
from tlcluster.orchestration.ready import Ready, made_ready
from tlcluster.orchestration.replicates import Replicate, flat
from tlcluster.orchestration.stopping import StopRequests
from tlcluster.records import RESULT, RunManifest, RunStatus
from tlcluster.report import write as report
from tlcluster.report.leakage import adopted
from tlcluster.report.pictures import Look
from tlcluster.settings import RunSettings
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.locks import LockTaken, process_lock
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.terminal import say
from tlcluster.tracking.process import FINISH_SECONDS, STOPPED_SECONDS, Sending, sending

MANIFEST_LOCK = ".manifest.lock"
"""Held by the driver that reads, writes or shows the manifest of a run: with `jobs/run_one.py`,
several drivers may work on one run."""

STATUS_OF_SIGNAL: Mapping[signal.Signals | None, int] = {
    signal.SIGINT: cli.INTERRUPTED,
    signal.SIGHUP: cli.HUNG_UP,
}
"""Exit status of a run that a signal interrupted; for any other signal, `cli.TERMINATED`."""


def run_suite(settings: RunSettings, command: str, started: float) -> int:
    """Run the chosen experiments to the end and write the report.

    Args:
        settings: what to run.
        command: the command line, for the report.
        started: when the command was started, in seconds since 1970.

    Returns:
        An exit status: 0 all finished, 1 some failed or the report could not be written, 129,
        130 or 143 interrupted.

    Raises:
        UserError: something given cannot be used. Nothing was started or written, unless storage
            refuses to write during the run.
        StoreUnavailable: storage does not answer. Nothing was started.
    """
    began = time.monotonic()
    console = Console()
    # Before the embedded store makes it point at itself.
    environment = dict(os.environ)
    with contextlib.ExitStack() as stack:
        if settings.dry_run:
            show_plan(console, made_ready(settings, stack))
            return cli.OK
        output = stack.enter_context(opened_output(settings.output))
        exercise(output, new_mark().key)
        ready = made_ready(settings, stack)
        for notice in filter(None, (found.notice for found in ready.weights.values())):
            say(console, notice)
        run_url = f"{output.url.rstrip('/')}/{ready.settings.run_name}"
        run = stack.enter_context(opened_output(run_url))
        look: Ready | None = ready
        ours: list[Replicate] = []
        trackers: Sending | None = None
        while look is not None:
            with held(run, MANIFEST_LOCK, wait=True):
                old = read_manifest(run)
                ready = look.going_on(old)
                manifest = begun_manifest(ready, run, old, command)
                new = [one for one in ready.replicates if one not in ours]
                stack.enter_context(claimed(run, new))
                ours += new
                write_manifest(run, manifest)
            if trackers is None:
                sent = sending(run.url, ready.possible_keys, environment, partial(say, console))
                trackers = stack.enter_context(sent)
            driver = Driver(ready, manifest, output, run, console, started)
            with driver.stopping.heard():
                try:
                    driver.run()
                    look = further_look(driver, ready, run)
                    if look is None:
                        # A run that is being stopped may have seconds left: they go to the report.
                        stopped = driver.stopping.first is not None
                        pictures = None if stopped else partial(pictured, ready)
                        data = None if stopped else ready.store
                        seconds = time.monotonic() - began
                        last = conclusion(driver, run, manifest, seconds, pictures, data)
                finally:
                    driver.leave()
                if look is None:
                    trackers.finish(run.url, patience(driver.stopping, time.monotonic()))
    # After the block: Ray prints something when it ends, and this is the last line.
    if budget := driver.budget_spent:
        say(
            console,
            f"--budget {budget} is spent; what is not finished has a checkpoint, and the same "
            "command with a larger budget goes on",
        )
    say(console, last.line)
    statuses = set(driver.statuses.values())
    if "interrupted" in statuses and driver.stopping.first:
        return STATUS_OF_SIGNAL.get(driver.stopping.first.signal, cli.TERMINATED)
    if driver.budget_spent:
        return cli.INTERRUPTED
    return cli.FAILED if "failed" in statuses or not last.written else cli.OK


def further_look(driver: Driver, ready: Ready, run: Store) -> Ready | None:
    """What to train after this, with `--resolve`; None if the run is over."""
    if driver.gave_up:
        return None
    try:
        return next_look(ready, run)
    except StoreUnavailable:
        return None  # the conclusion meets it too, and says so


def patience(stopping: StopRequests, ended: float) -> Callable[[], float]:
    """Until when a run waits for its trackers, asked again and again.

    Args:
        stopping: who asked the run to stop, before its end or now.
        ended: when it ended.
    """

    def until() -> float:
        if stopping.first is None:
            return ended + FINISH_SECONDS
        return max(stopping.first.asked, ended) + STOPPED_SECONDS

    return until


class Conclusion(NamedTuple):
    """The end of a run."""

    line: str
    """What the command prints last."""
    written: bool
    """Whether the report was."""


def conclusion(
    driver: Driver,
    run: Store,
    manifest: RunManifest,
    seconds: float,
    look: Look | None = None,
    data: Store | None = None,
) -> Conclusion:
    """Write the manifest and the report, unless storage is away; arguments as of `conclude`."""
    why = driver.away.why if driver.away else None
    if driver.away is None:
        try:
            with held(run, MANIFEST_LOCK, wait=True):
                index = conclude(run, manifest, seconds, look, data, driver.budget_spent)
                return Conclusion(f"{run.url}/{index}", True)
        except StoreUnavailable as error:
            why = str(error)
    return Conclusion(
        f"the report was not written, storage is away: {why}; run the same command again with "
        f"--run-name {manifest.name} to go on",
        False,
    )


@contextlib.contextmanager
def opened_output(url: str) -> Iterator[Store]:
    """The store at an address, created if it does not exist; folders that stay empty are removed.

    Raises:
        UserError: it cannot be written.
    """
    missing: list[Path] = []
    with contextlib.suppress(OSError, RuntimeError):
        path = Path(url).expanduser().absolute()
        if "://" not in url:
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield open_store(url, create=True)
    finally:
        with contextlib.suppress(OSError):
            for folder in missing:
                folder.rmdir()


def begun_manifest(ready: Ready, run: Store, old: RunManifest | None, command: str) -> RunManifest:
    """The manifest of a run that begins or continues.

    Args:
        ready: what to run.
        run: the run's folder.
        old: the manifest that is there, if there is one.
        command: the command line.

    Raises:
        UserError: the run exists with other settings, or its folder holds other files.
    """
    if old is None:
        refuse_to_overwrite(run)
    manifest = new_manifest(
        ready.settings,
        command=command,
        decided=deciding_settings(ready.settings, ready.recipe, ready.admission),
        recipe=ready.recipe,
        nodes=ready.nodes,
        weights={base: found.record for base, found in ready.weights.items()},
        index=ready.index,
        index_sha256=ready.index_sha256,
        store_url=ready.shown_store,
        seeds=ready.seeds,
        seed_counts=ready.counts,
        price=price_record(ready.settings.money_an_hour, ready.admission.gpus_per_worker),
    )
    order = [experiment.name for experiment in ready.recipe.experiments]
    return manifest if old is None else continued(old, manifest, order)


def refuse_to_overwrite(folder: Store, kind: str = "run") -> None:
    """Refuse a folder that holds other files, which might have the names of ours.

    Args:
        folder: has no manifest.
        kind: what would be written there.

    Raises:
        UserError: it holds files.
    """
    others = [item.key for item in folder.list() if not item.key.startswith(".")]
    if others:
        raise UserError(
            f"{folder.url}: holds files and no {kind} ({others[0][:100]!r} and {len(others) - 1} "
            f"more); a {kind} would write among them: use another --run-name or --output"
        )


def conclude(
    run: Store,
    manifest: RunManifest,
    seconds: float,
    look: Look | None = None,
    data: Store | None = None,
    budget: str | None = None,
) -> str:
    """Write the manifest's last state and the report; returns the report's key.

    Args:
        run: the run's folder.
        manifest: of the run, as this driver began it; other drivers may have added to it.
        seconds: time that this driver worked on it.
        look: reads test images for the report's pictures; None to go without those that are not
            kept yet.
        data: the store of the data set, whose audit the run takes.
        budget: that ended the run, as it was given; None if none did.
    """
    manifest = read_manifest(run) or manifest
    if data is not None:
        # Most data sets have none. One that cannot be read must not cost the report.
        with contextlib.suppress(UserError, StoreUnavailable):
            manifest = adopted(run, data, manifest)
    by_folder = {folder: read_result(run, folder).status for folder in manifest.folders}
    statuses = set(by_folder.values())
    digests = {
        folder: hashlib.sha256(run.get(f"{folder}/{RESULT}")).hexdigest()
        for folder, its in by_folder.items()
        # Another driver writes the others again.
        if its not in ("queued", "running")
    }
    status: RunStatus = "finished"
    if "interrupted" in statuses:
        status = "interrupted"
    elif statuses & {"queued", "running"}:
        # Another driver trains them.
        status = "running"
    elif "failed" in statuses:
        status = "failed"
    write_manifest(
        run,
        manifest.model_copy(
            update={
                "status": status,
                "finished": None if status == "running" else utc_now(),
                "wall_seconds": manifest.wall_seconds + seconds,
                "results_sha256": digests,
                "budget_spent": budget,
            }
        ),
    )
    return report.write_report(run, look=look)


def pictured(
    ready: Ready, numbers: Sequence[int]
) -> Iterator[tuple[int, str, npt.NDArray[np.uint8]]]:
    """Images of the test split, from the store of a run; see `images_of`."""
    # Through the cache of the workers, who have most likely fetched them.
    cache = NodeCache(Path(ready.settings.cache) if ready.settings.cache else None)
    yield from images_of(open_store(ready.store.url, cache), ready.index, "test", numbers)


@contextlib.contextmanager
def claimed(run: Store, replicates: Sequence[Replicate]) -> Iterator[None]:
    """Hold the locks of replicates, so that no second driver trains them at the same time.

    Raises:
        UserError: another driver has one of them.
    """
    with contextlib.ExitStack() as stack:
        for one in replicates:
            try:
                stack.enter_context(held(run, f".{flat(one.key)}.lock", wait=False))
            except LockTaken:
                raise UserError(
                    f"{run.url}: another process is training {one.key} in this run; wait "
                    "for it, stop it, or use another --run-name"
                ) from None
        yield


@contextlib.contextmanager
def held(run: Store, name: str, wait: bool) -> Iterator[None]:
    """Hold a lock in a run's folder. It ends with the process, however that ends.

    S3 has no locks, and some file systems have none. There, the user must not start two drivers
    with one run name.

    Raises:
        LockTaken: another process holds the lock, and `wait` is False.
    """
    if "://" in run.url:
        yield
        return
    with process_lock(Path(run.url, name), wait=wait):
        yield
