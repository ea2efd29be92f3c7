"""The real commands as processes of their own, for tests to watch, to stop and to kill."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from tlcluster.records import EPOCHS, RESULT, EpochRecord, ExperimentResult

ROOT = Path(__file__).parent.parent
PATIENCE = 1200.0
"""Seconds to wait for what never takes so long, also on a slow machine that does other work; only
against what would never end."""

EPOCH_TIMES = {
    "seconds", "images_per_second", "feature_seconds", "input_seconds", "validation_seconds",
    "sum_seconds", "joules", "energy_source",
}  # fmt: skip
"""Fields of an `EpochRecord` that no two trainings have in common."""

TIMES = {"wall_seconds", "startup_seconds", "images_per_second", "epoch_seconds", "cost"}
"""Fields of `results.json` that no two runs have in common."""


class Process(NamedTuple):
    """A process of this machine; its start tells it from a later one with the same number."""

    pid: int
    start: str


class Command:
    """`python jobs/run_all.py …`, running."""

    def __init__(
        self,
        folder: Path,
        *arguments: object,
        program: Sequence[str] = (sys.executable,),
        cpus: str | None = None,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            folder: where its output goes, a new file each.
            arguments: the job and its arguments.
            program: what runs it.
            cpus: the cores that it may use, as `taskset` takes them.
            environment: changes to this process's environment.
        """
        self.stdout = folder / f"stdout-{time.monotonic_ns()}"
        self.stderr = folder / f"stderr-{time.monotonic_ns()}"
        if cpus:
            program = ("taskset", "-c", cpus, *program)
        with self.stdout.open("w") as stdout, self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [*program, *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )

    def __enter__(self) -> "Command":
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def ended(self) -> int:
        """Wait for its end; its exit status, negative for a signal."""
        return self.process.wait(PATIENCE)

    def send(self, kind: signal.Signals) -> int:
        """Send a signal to the command alone, as `kill` does; its exit status."""
        self.process.send_signal(kind)
        return self.ended()

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that the command brings about."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.process.poll() is None, f"it ended too soon: {self.said()}"
            assert time.monotonic() < deadline, f"it did not happen: {self.said()}"
            time.sleep(0.02)

    def said(self) -> str:
        """All that it printed."""
        return self.stdout.read_text() + self.stderr.read_text()

    def started(self) -> set[Process]:
        """The processes that it and those that it started have started."""
        return started_by(self.process.pid)

    def workers(self) -> list[Process]:
        """Ray's processes that train."""
        return self._titled("ray::RayTrainWorker")

    def trial_processes(self) -> list[Process]:
        """Ray's processes that Ray Tune gives the trials of a search."""
        return self._titled("ray::ResourceTrainable")

    def trial_workers(self) -> list[Process]:
        """Ray's processes that train trials with several workers."""
        return self._titled("ray::TrialWorker")

    def controllers(self) -> list[Process]:
        """Ray's processes that look after the workers of one experiment each."""
        return self._titled("ray::TrainController")

    def _titled(self, beginning: str) -> list[Process]:
        return [one for one in self.started() if title(one).startswith(beginning)]


def started_by(pid: int) -> set[Process]:
    """The processes that a process and those that it started have started."""
    return set(_descendants(pid))


def alive(processes: set[Process]) -> set[Process]:
    """Those that still run."""
    return {one for one in processes if _stat(one.pid)[1:] == [one.start]}


def gone(processes: set[Process]) -> bool:
    """Wait for all of them to end; False if they do not within half a minute."""
    deadline = time.monotonic() + 30
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(processes)


def kill(processes: list[Process]) -> None:
    for one in processes:
        os.kill(one.pid, signal.SIGKILL)


def result(run: Path, experiment: str) -> ExperimentResult:
    """What is written of an experiment's end, `queued` if nothing is."""
    try:
        return ExperimentResult.model_validate_json((run / experiment / RESULT).read_bytes())
    except FileNotFoundError:
        return ExperimentResult(status="queued")


def epochs(run: Path, experiment: str) -> list[EpochRecord]:
    """The epochs that an experiment has finished so far."""
    try:
        lines = (run / experiment / EPOCHS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [EpochRecord.model_validate_json(line) for line in lines]


def results_json(run: Path) -> dict[str, Any]:
    """What other programs read of a run's report."""
    content: dict[str, Any] = json.loads((run / "report" / "results.json").read_text())
    return content


def without(value: Any, fields: Set[str]) -> Any:
    """A report's content without some fields, wherever they are."""
    if isinstance(value, dict):
        return {key: without(one, fields) for key, one in value.items() if key not in fields}
    return [without(one, fields) for one in value] if isinstance(value, list) else value


def _descendants(pid: int) -> Iterator[Process]:
    parents = {int(path.name): _stat(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    family = {pid}
    # Numbers may be used again, so a child can have a smaller one than its parent.
    while more := {p for p, s in parents.items() if s and int(s[0]) in family} - family:
        family |= more
    for member in family - {pid}:
        yield Process(member, parents[member][1])


def _stat(pid: int) -> list[str]:
    """A process's parent and start; empty where there is none, or only its status is left."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] in "ZX" else [fields[1], fields[19]]


def title(process: Process) -> str:
    """What a process calls itself, its arguments separated by zero bytes."""
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
