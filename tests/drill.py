"""One run of a drill: the real command on S3, what befalls it, and what that has cost."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from faulty_s3 import FaultyS3
from real_run import ROOT, TIMES, Command, Process, without

from tlcluster.records import EPOCHS, RESULT, ExperimentResult
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import ObjectMissing, Store

HOOKS = Path(__file__).parent / "drill_hooks"
NAME = "run"
TRAINED = "augmented"

FLAGS = (
    "--experiments", TRAINED, "--workers", "2", "--cpus-per-worker", "1", "--weights", "none",
    "--checkpoint-seconds", "2", "--run-name", NAME,
    "--set", "*.global_batch=10", "--set", "*.patience=99", "--set", f"{TRAINED}.epochs=6",
)  # fmt: skip
"""Two workers, six epochs of 20 steps, each with a new view; a checkpoint every two seconds."""

ITS_OWN = TIMES | {"store", "attempts", "hangs"}
"""What a fault may change in a report, beside times."""


class Call(NamedTuple):
    """Training steps that a worker has done in one call."""

    rank: int
    pid: int
    epoch: int
    step: int
    steps: int


@dataclass
class Drill:
    """A run of its own, with an output and a cache of its own, on data that others read too."""

    folder: Path
    data: Store
    s3: FaultyS3

    def __post_init__(self) -> None:
        self.log.mkdir(parents=True, exist_ok=True)
        self.seconds = 0.0
        self.statuses: list[int] = []
        self.said = ""

    @property
    def log(self) -> Path:
        """Where workers write their steps down."""
        return self.folder / "log"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def output(self) -> str:
        return f"{self.data.url.rpartition('/')[0]}/{self.folder.name}"

    @cached_property
    def run(self) -> Store:
        return open_store(f"{self.output}/{NAME}")

    def command(self, *flags: object) -> Command:
        """Start the command, for the first time or again."""
        return Command(
            self.folder, "jobs/run_all.py", "--store", self.data.url, "--output", self.output,
            "--cache", self.cache, *FLAGS, *flags,
            environment={
                **self.s3.environment,
                "PYTHONPATH": f"{ROOT}:{HOOKS}",
                "TLCLUSTER_DRILL": str(self.log),
            },
        )  # fmt: skip

    def ended(self, command: Command, since: float) -> int:
        """Wait for the end of a command, and count its time."""
        status = command.ended()
        self.seconds += time.monotonic() - since
        self.statuses.append(status)
        self.said += command.said()
        return status

    def epochs(self) -> int:
        """Epochs that are finished."""
        try:
            return len(self.run.get(f"{TRAINED}/{EPOCHS}").splitlines())
        except ObjectMissing:
            return 0

    def result(self) -> ExperimentResult:
        try:
            return ExperimentResult.model_validate_json(self.run.get(f"{TRAINED}/{RESULT}"))
        except ObjectMissing:
            return ExperimentResult(status="queued")

    def results(self) -> list[Any]:
        """What the report says, without what no two runs have in common."""
        whole = json.loads(self.run.get("report/results.json"))
        return [without(whole[part], ITS_OWN) for part in ("dataset", "experiments", "comparisons")]

    def calls(self) -> Iterator[Call]:
        """What the workers have done so far."""
        for path in sorted(self.log.glob("steps-*")):
            _, rank, pid = path.name.split("-")
            for line in path.read_text().splitlines():
                yield Call(int(rank), int(pid), *map(int, line.split()))

    def trains(self, epoch: int) -> bool:
        """Whether an epoch has begun to train, in the workers that are there now."""
        return any(call.epoch >= epoch for call in self.calls())

    def worker(self, command: Command, rank: int) -> Process:
        """The process of a rank."""
        pids = {call.pid for call in self.calls() if call.rank == rank}
        return next(one for one in command.workers() if one.pid in pids)

    @property
    def repeated(self) -> int:
        """Steps that were trained twice."""
        done = [
            (call.epoch, call.step + n)
            for call in self.calls()
            if call.rank == 0
            for n in range(call.steps)
        ]
        return len(done) - len(set(done))


def stop(process: Process) -> None:
    """Let a process do nothing more, without ending it."""
    os.kill(process.pid, signal.SIGSTOP)
