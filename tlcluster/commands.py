"""The commands of `tlcluster`. `jobs/*.py` call the same functions.

Large libraries are imported by the command that needs them, after its arguments
were checked: Ray, TensorFlow and Matplotlib take seconds to import.
"""

import itertools
import math
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import tlcluster
from tlcluster.cinic10 import ARCHIVE_URL
from tlcluster.cli import FAILED, OK, nearest, parse
from tlcluster.errors import UserError
from tlcluster.settings import (
    AuditSettings,
    BenchSettings,
    CheckSettings,
    CompareSettings,
    ExportSettings,
    IngestSettings,
    OneSettings,
    PredictSettings,
    ReportSettings,
    RunSettings,
    TrackSettings,
    TuneSettings,
    VerifySettings,
)
from tlcluster.terminal import printable

if TYPE_CHECKING:
    from tlcluster.dataset.shards import Index
    from tlcluster.records import RunManifest
    from tlcluster.storage.protocol import Store


class Command(NamedTuple):
    """One command of `tlcluster`."""

    about: str
    run: Callable[[Sequence[str], str], int]
    """(arguments, how the command was typed) → exit status."""


def run(argv: Sequence[str], typed: str) -> int:
    """Train the experiments and write one report."""
    started = time.time()
    settings = parse(RunSettings, typed, COMMANDS["run"].about, argv)
    if settings.list_experiments:
        for experiment in settings.recipe().chosen:
            print(experiment.name)
        return OK
    if settings.list_replicates:
        # As they are trained: the first seed of every experiment before any second one.
        for seed, experiment in itertools.product(settings.all_seeds, settings.recipe().chosen):
            print(experiment.name, seed)
        return OK
    return _suite(settings, argv, typed, started)


def run_one(argv: Sequence[str], typed: str) -> int:
    """Train one experiment, in a run of its own or in one with others."""
    started = time.time()
    settings = parse(OneSettings, typed, COMMANDS["run-one"].about, argv)
    return _suite(settings.suite(), argv, typed, started)


def _suite(settings: RunSettings, argv: Sequence[str], typed: str, started: float) -> int:
    # A wrong recipe should not have to wait for the imports.
    settings.recipe()
    from tlcluster.orchestration.environment import quiet_import, tensorflow_environment

    os.environ.update(tensorflow_environment())
    with quiet_import():
        from tlcluster.orchestration.suite import run_suite

    return run_suite(settings, _command_line(typed, argv), started)


def check(argv: Sequence[str], typed: str) -> int:
    """Look whether a run could start on every node."""
    given = parse(CheckSettings, typed, COMMANDS["check"].about, argv)
    settings = given.suite()
    settings.recipe()
    from tlcluster.orchestration.environment import quiet_import, tensorflow_environment

    os.environ.update(tensorflow_environment())
    with quiet_import():
        from tlcluster.orchestration.check import run_check

    return run_check(settings, given.seconds)


def tune(argv: Sequence[str], typed: str) -> int:
    """Search better recipes."""
    started = time.time()
    settings = parse(TuneSettings, typed, COMMANDS["tune"].about, argv)
    settings.suite().recipe()
    from tlcluster.orchestration.environment import quiet_import, tensorflow_environment

    os.environ.update(tensorflow_environment())
    with quiet_import():
        from tlcluster.tuning.suite import run_tuning

    return run_tuning(settings, _command_line(typed, argv), started)


def ingest(argv: Sequence[str], typed: str) -> int:
    """Write images into a store."""
    settings = parse(IngestSettings, typed, COMMANDS["ingest"].about, argv)
    from tlcluster.dataset.ingest import ingest
    from tlcluster.storage.cache import NodeCache
    from tlcluster.storage.open import open_store

    cache = NodeCache(Path(settings.cache) if settings.cache else None)
    store = open_store(settings.store, cache, create=True)
    outcome = ingest(
        settings.source,
        store,
        rows_per_shard=settings.rows_per_shard,
        image_size=settings.size,
        valid_fraction=settings.valid_fraction,
        name=settings.name,
        processes=settings.processes,
        cache=cache.folder,
        show=True,
        storage_wait=60 * settings.storage_wait,
    )
    shards = outcome.shards
    if not outcome.written:
        print("the store already holds these images; nothing changed")
    elif outcome.written < len(shards):
        print(f"{len(shards) - outcome.written} of the shards were there already and were kept")
    index = outcome.index
    height, width, _ = index.image_shape
    print(f"{index.dataset}: {len(index.classes):,} classes, images of {width}×{height} pixels")
    print(
        f"{outcome.images:,} images in {len(shards):,} shards, "
        f"{sum(shard.bytes for shard in shards):,} bytes, {outcome.seconds:.1f} s, "
        f"{outcome.images / outcome.seconds:,.0f} images/s: {printable(store.url)}"
    )
    return OK


def audit(argv: Sequence[str], typed: str) -> int:
    """Find images that splits share."""
    settings = parse(AuditSettings, typed, COMMANDS["audit"].about, argv)
    from tlcluster.audit.write import summary, write_audit
    from tlcluster.checkup.stores import exercise, new_mark
    from tlcluster.dataset.shards import read_index
    from tlcluster.leakage import PAGE
    from tlcluster.storage.cache import NodeCache
    from tlcluster.storage.open import open_store

    cache = NodeCache(Path(settings.cache) if settings.cache else None)
    store = open_store(settings.store, cache)
    read_index(store)
    try:
        place = store if settings.to is None else open_store(settings.to, cache, create=True)
        # The audit may take minutes; whether it can be written is known before.
        exercise(place, new_mark().key)
    except UserError as error:
        if settings.to is not None:
            raise
        raise UserError(f"{error}; or name another place for the audit with --to") from None
    found = write_audit(
        store, place, settings.bound, storage_wait=60 * settings.storage_wait, show=True
    )
    for line in summary(found):
        print(printable(line))
    print(printable(f"{place.url}/{PAGE}"))
    return OK


def report(argv: Sequence[str], typed: str) -> int:
    """Write the report of a run again."""
    settings = parse(ReportSettings, typed, COMMANDS["report"].about, argv)
    from tlcluster.report.runs import manifest_of, open_run
    from tlcluster.report.write import write_report

    store, look = open_run(settings.run), None
    if settings.audit is not None:
        from tlcluster.orchestration.manifest import write_manifest
        from tlcluster.report.leakage import adopted
        from tlcluster.storage.open import open_store

        manifest = manifest_of(store)
        if manifest.status == "running":
            raise UserError(
                f"--audit {settings.audit}: the run is not over, and takes the audit of its store "
                "at its end; wait for it, or leave out --audit"
            )
        write_manifest(store, adopted(store, open_store(settings.audit), manifest))
    if settings.store is not None:
        from tlcluster.dataset.pixels import images_of

        look = partial(images_of, *_data_set(settings.store, manifest_of(store)), "test")
    index = write_report(store, look=look)
    print(printable(f"{store.url}/{index}"))
    return OK


def verify(argv: Sequence[str], typed: str) -> int:
    """Check a run's report against its records."""
    settings = parse(VerifySettings, typed, COMMANDS["verify"].about, argv)
    from tlcluster.report.runs import manifest_of, open_run
    from tlcluster.report.verify import SplitImages, verify

    store, split, look = open_run(settings.run), None, None
    if settings.store is not None:
        from tlcluster.dataset.labels import sources_and_labels
        from tlcluster.dataset.pixels import images_of

        images, index = _data_set(settings.store, manifest_of(store))
        split = SplitImages(*sources_and_labels(images, index, "test"))
        look = partial(images_of, images, index, "test")
    failed = 0
    for claim in verify(store, split, look):
        failed += claim.verdict == "FAILS"
        print(printable(f"{claim.verdict:12s} {claim.claim}"))
        for line in claim.found:
            print(printable(f"{'':12s}   {line}"))
    print("all that was checked holds" if not failed else f"{failed} of these claims do not hold")
    return FAILED if failed else OK


def _data_set(url: str, manifest: "RunManifest") -> "tuple[Store, Index]":
    """The data set of a run, opened.

    Raises:
        UserError: it cannot be opened, or is not the one that the run was trained on.
    """
    from tlcluster.dataset.shards import read_index
    from tlcluster.storage.open import open_store

    store = open_store(url)
    index, sha256 = read_index(store)
    expected = manifest.dataset.index_sha256
    if sha256 != expected:
        raise UserError(
            f"--store {url}: is not the data set of this run: its index has sha256 {sha256}, the "
            f"run's had {expected}; give the store that it was trained on"
        )
    return store, index


def compare(argv: Sequence[str], typed: str) -> int:
    """Show several runs on one page."""
    settings = parse(CompareSettings, typed, COMMANDS["compare"].about, argv)
    from tlcluster.comparison.write import write_comparison

    page = write_comparison(
        settings.run, settings.to, _command_line(typed, argv), any_images=settings.any_images
    )
    print(printable(page))
    return OK


def track(argv: Sequence[str], typed: str) -> int:
    """Send a run's records to trackers."""
    settings = parse(TrackSettings, typed, COMMANDS["track"].about, argv)
    from tlcluster.report.runs import manifest_of, open_run
    from tlcluster.tracking.process import sending
    from tlcluster.tracking.trackers import asked, lacking

    store = open_run(settings.run)
    manifest_of(store)
    trackers = asked(os.environ)
    if not trackers:
        raise UserError(
            "no tracker is named: set MLFLOW_TRACKING_URI for MLflow, or WANDB_API_KEY or another "
            "WANDB_ variable for Weights & Biases"
        )
    for tracker, variable in trackers.items():
        if missing := lacking(tracker, variable):
            raise UserError(missing)
    with sending(store.url, None, os.environ, lambda line: print(printable(line))) as processes:
        return OK if processes.finish(store.url, lambda: math.inf) else FAILED


def export(argv: Sequence[str], typed: str) -> int:
    """Write the model of an experiment for other programs."""
    settings = parse(ExportSettings, typed, COMMANDS["export"].about, argv)
    from tlcluster.orchestration.environment import (
        NO_SETTINGS_OF_OTHERS,
        quiet_import,
        tensorflow_environment,
    )

    os.environ.update({**tensorflow_environment(), **NO_SETTINGS_OF_OTHERS})
    # GPUs round products, and other runtimes have none: all formats are scored on the processor.
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    with quiet_import():
        from tlcluster.export.suite import run_export

    return run_export(settings)


def predict(argv: Sequence[str], typed: str) -> int:
    """Classify pictures."""
    settings = parse(PredictSettings, typed, COMMANDS["predict"].about, argv)
    from tlcluster.export.answers import run_predict
    from tlcluster.orchestration.environment import tensorflow_environment

    os.environ.update(tensorflow_environment())
    return run_predict(settings)


def bench(argv: Sequence[str], typed: str) -> int:
    """Measure tlcluster beside other libraries."""
    settings = parse(BenchSettings, typed, COMMANDS["bench"].about, argv)
    from tlcluster.bench.parts import run_bench

    return run_bench(settings, _command_line(typed, argv))


COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        "run": Command("Train the experiments at the same time and write one report.", run),
        "run-one": Command(
            "Train one experiment, in a run of its own or in one with others.", run_one
        ),
        "check": Command(
            "Look, in less than a minute, whether a run could start: on every node that it would "
            "use, its devices, storage, disk, clock, network and versions. Give the flags of the "
            "run. Prints a table, and one line for each thing to change. Trains nothing, and "
            "removes what it writes. Exit status: 0 if a run can start, else 2.",
            check,
        ),
        "tune": Command(
            "Search better recipes for experiments, on the validation split. The same command "
            "continues a search under the same --run-name. The last line is the recipe file, "
            "which --profile takes.",
            tune,
        ),
        "ingest": Command(
            "Decode a data set of images once and write it into a store, as shards with an index. "
            "After an interruption, the same command continues. A data set is split/class/image: "
            "folders train, valid (or val, validation) and test, each with one folder per class, "
            "with PNG or JPEG files. Photographs are turned upright as their EXIF data says. "
            f"The official archive of CINIC-10 is {ARCHIVE_URL}",
            ingest,
        ),
        "audit": Command(
            "Find images that the splits of an ingested data set share, exactly or nearly, and "
            "write audit.json and a page with examples. Runs on this store then report their test "
            "accuracy without them, too. Needs neither TensorFlow nor a GPU. The last line is the "
            "path of the page.",
            audit,
        ),
        "report": Command(
            "Write the report of a run again, from its records. The run may be finished, "
            "interrupted or still running. The last line is the path of the report.",
            report,
        ),
        "verify": Command(
            "Compute every number of a report again from the stored predictions, and compare. Also "
            "checks, by sha256, that results, predictions and weights are those that the run "
            "wrote. Needs neither TensorFlow nor Ray. Exit status: 0 if all that was checked "
            "holds, 1 if not; what does not is named.",
            verify,
        ),
        "compare": Command(
            "Show several runs on one page: their results, time and cost, what differs between "
            "their settings, and which run is better, for each experiment that two runs on the "
            "same test images have. Needs neither TensorFlow nor Ray. The last line is the path "
            "of the page.",
            compare,
        ),
        "track": Command(
            "Send a run to MLflow (MLFLOW_TRACKING_URI) or Weights & Biases (WANDB_ variables), "
            "from its records: the whole run, or what a tracker did not take while it went on. "
            "What a tracker has is not sent again. Exit status: 0 if it has everything, else 1.",
            track,
        ),
        "export": Command(
            "Write the model of a finished experiment for other programs: images in, "
            "probabilities out, with names of classes and a model card. Every file is opened again "
            "and scored on the whole test split; the table says whether it is equal to the "
            "training, or by how much not. The last line is the card.",
            export,
        ),
        "predict": Command(
            "Classify pictures with a model that export wrote. Needs no Ray, and for ONNX and "
            "LiteRT files no TensorFlow.",
            predict,
        ),
        "bench": Command("Measure tlcluster beside other libraries on this machine.", bench),
    }
)
"""Name → command."""


def main(argv: Sequence[str], program: str) -> int:
    """Run the command that the first argument names; without one, list the commands.

    Args:
        argv: name of the command, then its arguments.
        program: how the user called this program: `tlcluster` or `python -m tlcluster`.

    Raises:
        UserError: there is no such command, or it cannot use its arguments.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: {program} COMMAND ...\n\n{tlcluster.__doc__}\n\ncommands:")
        for known, command in COMMANDS.items():
            print(f"  {known:8s} {command.about.partition('. ')[0].rstrip('.')}")
        print(f"\n{program} COMMAND --help lists the flags of a command.")
        return OK
    if name == "--version":
        print(f"tlcluster {tlcluster.__version__}")
        return OK
    if name not in COMMANDS:
        raise UserError(f"{name}: no such command; {nearest(name, COMMANDS)}")
    return COMMANDS[name].run(rest, f"{program} {name}")


def _command_line(typed: str, argv: Sequence[str]) -> str:
    """The command as a shell takes it."""
    return " ".join([typed, shlex.join(argv)]).rstrip()
