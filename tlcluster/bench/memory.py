"""`memory`: the largest worker of a run, and whether memory grows with the data set."""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from tlcluster.bench import program
from tlcluster.bench.context import Context
from tlcluster.bench.measures import Comparison, Part, Timing
from tlcluster.bench.runs import emptied, run

GIB = 2**30
FEW_ROWS, MANY_ROWS = 60_000, 1_300_000
POLL_SECONDS = 0.5
WORKER = "ray::RayTrainWorker"
"""Title of Ray's training processes."""


def measure(context: Context) -> Part:
    """Train all four and watch their processes; then iterate over orders of two sizes."""
    images = context.all_images
    output = emptied(context.work / "runs")
    with watched_workers() as peaks:
        ended = run(context, images.store, output, "memory", "--profile", "paper", "--epochs", 1)
    largest = Timing(
        name="largest worker, most resident",
        unit="GiB",
        values=(max(peaks.values()) / GIB,),
        note=f"of {len(peaks)} processes; pages of shards that the kernel can drop are in it",
    )
    orders = []
    for rows in (FEW_ROWS, MANY_ROWS):
        answers = [program.ask("read_order", rows) for _ in range(context.repeats)]
        orders.append(
            Timing(
                name=f"index and order of {rows:,} images, whole process, most resident",
                unit="GiB",
                values=tuple(answer.peak_bytes / GIB for answer in answers),
            )
        )
    few, many = orders
    return Part(
        name="memory",
        about=f"all four at once on {images.total:,} images, one epoch; then the order of one "
        "epoch of a generated index",
        timings=(largest, few, many),
        comparisons=(
            Comparison(
                name="largest worker", value=largest.median, goal=1.6, better="less", unit="GiB"
            ),
            Comparison(
                name=f"growth from {FEW_ROWS:,} to {MANY_ROWS:,} images",
                value=many.median - few.median,
                goal=0.05,
                better="less",
                unit="GiB",
            ),
        ),
        commands=(ended.command, program.shown("read_order", MANY_ROWS)),
    )


@contextlib.contextmanager
def watched_workers() -> Iterator[dict[int, int]]:
    """Inside the block, collect the peak of resident bytes of each training process, by its id."""
    peaks: dict[int, int] = {}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_SECONDS):
            for process in Path("/proc").glob("[0-9]*"):
                # A process may end in the meantime; its files are then gone.
                with contextlib.suppress(OSError):
                    title = (process / "cmdline").read_bytes()
                    if title.startswith(WORKER.encode()) and ours(int(process.name)):
                        peaks[int(process.name)] = peak_bytes((process / "status").read_text())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def ours(pid: int) -> bool:
    """True if this process started the process, directly or through others."""
    while pid not in (0, os.getpid()):
        status = Path(f"/proc/{pid}/status").read_text()
        pid = int(status.partition("PPid:")[2].split()[0])
    return pid > 0


def peak_bytes(status: str) -> int:
    """`VmHWM` of a `/proc/<pid>/status`, 0 if the process has ended."""
    lines = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) * 1024 if lines else 0
