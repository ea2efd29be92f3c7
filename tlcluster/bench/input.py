"""`input`: images per second on one core, ours and the peers', from a node's disk and from S3."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tlcluster.bench import program
from tlcluster.bench.context import Context
from tlcluster.bench.machine import cores
from tlcluster.bench.measures import Comparison, Part, Timing, fastest, ratio
from tlcluster.storage.directory import DirectoryStore
from tlcluster.storage.embedded import embedded_store
from tlcluster.storage.open import open_store

RATE = "images/s"

OUR_EPOCHS = 10
"""Epochs per process of our reader: each takes a tenth of a second."""


class Reader(NamedTuple):
    """A program that reads images, in one of its forms."""

    name: str
    module: str
    form: str | None
    """`png` or `raw`, if the program has both."""
    own: bool = False
    """It runs in the peers' environment."""
    s3: bool = False
    """It also reads S3."""

    @property
    def place(self) -> str:
        """Folder of its records, relative to the folder or bucket."""
        return f"{self.module}-{self.form or 'png'}"

    @property
    def options(self) -> list[str]:
        return ["--form", self.form] if self.form else []


PNG = (
    Reader("WebDataset, PNG", "peer_webdataset", None, own=True, s3=True),
    Reader("MosaicML Streaming, PNG", "peer_mosaicml", "png", own=True, s3=True),
    Reader("LitData, PNG", "peer_litdata", "png", own=True, s3=True),
    Reader("TFRecord, PNG", "peer_tfrecord", "png"),
)
"""Images as the peers' users write them."""

RAW = (
    Reader("MosaicML Streaming, raw", "peer_mosaicml", "raw", own=True, s3=True),
    Reader("LitData, raw", "peer_litdata", "raw", own=True, s3=True),
    Reader("TFRecord, raw", "peer_tfrecord", "raw"),
)
"""The same without compression."""


def measure(context: Context) -> Part:
    """Read the train split with every reader in turn: the machine is not always equally fast."""
    images = context.all_images
    records = images.folder.parent
    rates: dict[str, list[float]] = {}
    commands: list[str] = []
    _make(context, records)
    core, *others = cores()
    with _bound_to(others or [core]), embedded_store() as s3:
        _upload(images.store, f"{s3.url}/ours")
        for reader in (*PNG, *RAW):
            if reader.s3:
                _upload(records / reader.place, f"{s3.url}/{reader.place}")
        for number in range(1, context.repeats + 1):
            context.say(f"input: round {number} of {context.repeats}")
            for name, answer, command in _round(context, records, s3.url, core):
                seconds, counts = answer.said["seconds"], answer.said["images"]
                if set(counts) != {images.rows["train"]}:
                    raise AssertionError(f"{name} read {counts}, not every image once")
                rates.setdefault(name, []).extend(
                    count / second for count, second in zip(counts, seconds, strict=True)
                )
                if command not in commands:
                    commands.append(command)
    timings = {n: Timing(name=n, unit=RATE, values=tuple(v)) for n, v in rates.items()}
    return Part(
        name="input",
        about=f"{images.rows['train']:,} images, shuffled, as uint8 batches of 128, on one core; "
        "the S3 server has the others",
        timings=tuple(timings.values()),
        comparisons=_comparisons(timings),
        commands=tuple(commands),
    )


CACHE = "tlcluster, node cache, verified"
CACHE_TF = "tlcluster, the same through tf.data"
S3 = "tlcluster, S3, first epoch, verified"
VERIFYING = "verifying the same shards, nothing else"


def _comparisons(timings: Mapping[str, Timing]) -> tuple[Comparison, ...]:
    def best(readers: Sequence[Reader], name: Callable[[Reader], str]) -> Timing:
        return fastest([timings[name(reader)] for reader in readers])

    ours, verifying = timings[CACHE], timings[VERIFYING]
    png, raw = best(PNG, _name), best(RAW, _name)
    from_s3 = [reader for reader in (*PNG, *RAW) if reader.s3]
    s3_png = best([reader for reader in from_s3 if reader in PNG], _s3_name)
    s3 = best(from_s3, _s3_name)
    return (
        ratio(f"node cache ÷ the fastest of PNG, {png.name}", ours, png, 25),
        ratio("node cache ÷ TFRecord, raw", ours, timings["TFRecord, raw"], 4),
        ratio(f"node cache ÷ the fastest of raw, {raw.name}", ours, raw),
        ratio("node cache ÷ verifying alone", ours, verifying),
        ratio(f"S3 ÷ the fastest peer, {s3.name}", timings[S3], s3, 10),
        ratio(f"S3 ÷ the fastest of PNG, {s3_png.name}", timings[S3], s3_png),
    )


def _name(reader: Reader) -> str:
    return reader.name


def _s3_name(reader: Reader) -> str:
    return f"{reader.name}, S3, first epoch"


Read = tuple[str, program.Answer, str]


def _round(context: Context, records: Path, s3: str, core: int) -> Iterator[Read]:
    """Run every reader once: its name, its answer, its command."""
    cache = context.work / "cache"

    def ours(name: str, epochs: int, *options: str) -> Read:
        arguments = ("--cache", cache, "--epochs", epochs, *options)
        answer = program.ask("read_stream", f"{s3}/ours", *arguments, cores=[core])
        shown = ("--cache", "CACHE", "--epochs", epochs, *options)
        return name, answer, program.shown("read_stream", "s3://…", *shown, cores=[core])

    def peer(reader: Reader, name: str, place: object, epochs: int, *options: object) -> Read:
        arguments = (*reader.options, "--epochs", epochs)
        answer = program.ask(
            reader.module,
            "read",
            place,
            *arguments,
            *options,
            python=context.peers if reader.own else None,
            cores=[core],
            environment={"S3_ENDPOINT_URL": os.environ["AWS_ENDPOINT_URL"]},
        )
        return name, answer, program.shown(reader.module, "read", "PLACE", *arguments, cores=[core])

    with _emptied(cache):
        yield ours(S3, 1)
        epochs = OUR_EPOCHS if not context.quick else 2
        yield _warm(ours(CACHE, 1 + epochs))
        yield _warm(ours(CACHE_TF, 1 + epochs, "--tf-data"))
        yield _warm(ours(VERIFYING, 1 + epochs, "--verify-only"))
    for reader in (*PNG, *RAW):
        # The first epoch warms up: it reads files into memory and starts threads.
        yield _warm(peer(reader, reader.name, records / reader.place, 2))
        if reader.s3:
            with _emptied(cache):
                place = f"{s3}/{reader.place}"
                options = [] if reader.module == "peer_webdataset" else ["--cache", cache]
                yield peer(reader, _s3_name(reader), place, 1, *options)


def _warm(read: Read) -> Read:
    """The answer without its first epoch."""
    name, answer, command = read
    said = {key: values[1:] for key, values in answer.said.items()}
    return name, answer._replace(said=said), command


@contextlib.contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _bound_to(some: list[int]) -> Iterator[None]:
    """Bind processes that start inside to these cores; the S3 server must not use the readers'."""
    before = cores()
    os.sched_setaffinity(0, some)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _make(context: Context, records: Path) -> None:
    """Make the records of every peer, unless an earlier benchmark has made them."""
    for reader in (*PNG, *RAW):
        place = records / reader.place
        if place.is_dir():
            continue
        context.say(f"input: making the records of {reader.name}")
        unfinished = place.with_name(f"{place.name}.part")
        shutil.rmtree(unfinished, ignore_errors=True)
        program.ask(
            reader.module,
            "make",
            unfinished,
            "--source",
            context.all_images.folder / "train",
            *reader.options,
            python=context.peers if reader.own else None,
        )
        unfinished.rename(place)


def _upload(folder: Path, url: str) -> None:
    target = open_store(url)
    for item in DirectoryStore(folder).list():
        target.put(item.key, folder / item.key)
