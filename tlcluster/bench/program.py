"""Programs that a benchmark runs: one process each, bound to cores, with one answer."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tlcluster
from tlcluster.errors import UserError
from tlcluster.paths import CHECKOUT, IN_CHECKOUT

PACKAGE = Path(tlcluster.__file__).resolve().parent

_OURS = {
    # A checkout measures its own code, whatever is installed.
    **({"PYTHONPATH": str(CHECKOUT)} if IN_CHECKOUT else {}),
    # What is measured is no run that anybody tracks.
    "MLFLOW_TRACKING_URI": "",
    "WANDB_MODE": "disabled",
}


class Answer(NamedTuple):
    """The result of a program."""

    said: dict[str, Any]
    """The JSON object in the last line that it printed."""
    seconds: float
    """From its start to its end."""
    peak_bytes: int
    """Peak of its resident memory."""


def ask(
    program: str,
    *arguments: object,
    python: Path | None = None,
    cores: Collection[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Answer:
    """Run a module of this package as a program and read its answer.

    Args:
        program: name of the module in `tlcluster.bench`.
        arguments: its own.
        python: the interpreter; by default this one.
        cores: the only ones that it and its threads may use; by default this process's.
        environment: variables to add.

    Raises:
        UserError: it failed; says its last words.
    """
    command = [*_pinned(cores), str(python or sys.executable), "-P", "-m"]
    command += [f"tlcluster.bench.{program}", *map(str, arguments)]
    with contextlib.ExitStack() as stack:
        if python is not None:
            path = stack.enter_context(package_alone())
            environment = {**(environment or {}), "PYTHONPATH": str(path)}
        ended = finished(command, environment)
    lines = ended.stdout.splitlines()
    if ended.status or not lines:
        words = [line for line in ended.stderr.splitlines() if line.strip()]
        raise UserError(
            f"{shlex.join(command)} ended with status {ended.status}: "
            f"{words[-1] if words else 'it said nothing'}; run it by hand to see more"
        )
    return Answer(json.loads(lines[-1]), ended.seconds, ended.peak_bytes)


def shown(program: str, *arguments: object, cores: Collection[int] = ()) -> str:
    """The command as a reader may type it, with `python` for the interpreter."""
    return shlex.join(
        [*_pinned(cores), "python", "-m", f"tlcluster.bench.{program}", *map(str, arguments)]
    )


class Ended(NamedTuple):
    status: int
    """Negative for a signal."""
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int


@contextlib.contextmanager
def package_alone() -> Iterator[Path]:
    """A folder that holds this package and nothing else.

    On the path of another interpreter, a folder of installed packages would replace its own.
    """
    with tempfile.TemporaryDirectory(prefix="tlcluster-bench-") as folder:
        Path(folder, "tlcluster").symlink_to(PACKAGE)
        yield Path(folder)


def finished(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Ended:
    """Run a command to its end; it is terminated if this process is interrupted."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**os.environ, **_OURS, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
        try:
            # The only way to wait that also gives the peak of memory.
            _, code, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(code)
        seconds = time.perf_counter() - start
        stdout.seek(0)
        stderr.seek(0)
        # Linux counts in KiB, macOS in bytes.
        unit = 1 if sys.platform == "darwin" else 1024
        peak = usage.ru_maxrss * unit
        return Ended(process.returncode, stdout.read(), stderr.read(), seconds, peak)


def _pinned(cores: Collection[int]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, sorted(cores)))] if cores else []
