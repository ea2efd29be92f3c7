"""Starts the processes that send a run to trackers, and ends them in time, whatever they do.

Nothing here waits for a tracker but `Sending.finish`, and that only for so long.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from tlcluster.errors import reason
from tlcluster.paths import CHECKOUT, typed
from tlcluster.terminal import one_line
from tlcluster.tracking.messages import Note, Order
from tlcluster.tracking.trackers import Tracker, asked, lacking

MODULE = "tlcluster.tracking.sender"

FINISH_SECONDS = 60.0
"""How long a run that has ended waits for trackers to take the rest and the report."""

STOPPED_SECONDS = 5.0
"""The same for a run that was asked to stop: what asked may not wait long."""

POLL_SECONDS = 0.1

DEFAULTS = {
    # A tracker that does not answer should be given up soon; it is tried again later.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "WANDB_INIT_TIMEOUT": "30",
    # What the libraries tell their makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    # Sums over a few predictions need no more, and the cores are for the training.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Variables of the process, unless the user has set them."""


WANDB_FOLDERS = ("WANDB_DIR", "WANDB_DATA_DIR")
"""Variables with the folders of what Weights & Biases has not sent."""


class _Process:
    """One process, which sends to one tracker."""

    def __init__(
        self,
        tracker: Tracker,
        order: Order,
        environment: Mapping[str, str],
        say: Callable[[str], None],
    ) -> None:
        self.tracker, self._say = tracker, say
        self.last: Note | None = None
        self._popen = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **DEFAULTS,
                # Beside the records, if they are in a directory; else in the working folder.
                **({} if "://" in order.run else dict.fromkeys(WANDB_FOLDERS, order.run)),
                **environment,
                # This package, wherever the command was started.
                "PYTHONPATH": os.pathsep.join(
                    filter(None, (str(CHECKOUT), environment.get("PYTHONPATH")))
                ),
                # Otherwise a folder `wandb` in the working directory would be imported.
                "PYTHONSAFEPATH": "1",
            },
            # Ctrl-C is for the driver, which ends this process when the report is written.
            start_new_session=True,
        )
        with contextlib.suppress(OSError):  # it has died already, which `ended` says
            self._stdin.write(order.model_dump_json().encode() + b"\n")
            self._stdin.flush()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def _stdin(self) -> Any:
        return self._popen.stdin

    @property
    def _stdout(self) -> Any:
        return self._popen.stdout

    def close(self) -> None:
        """The run has ended; from now on, the process sends the rest."""
        with contextlib.suppress(OSError):
            self._stdin.close()

    def ended(self) -> bool:
        return self.last is not None or not self._reader.is_alive()

    def kill(self) -> None:
        self.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._reader.join()
        self._stdout.close()

    def _read(self) -> None:
        for line in self._stdout:
            try:
                note = Note.model_validate_json(line)
            except ValidationError:
                continue
            if note.last:
                self.last = note
                return
            self._say(
                f"{self.tracker.name}: {one_line(note.text)}; the run goes on, and it is tried "
                "again later"
            )


class Sending:
    """The processes of a run, one for each tracker."""

    def __init__(self, processes: Sequence[_Process], say: Callable[[str], None]) -> None:
        self._processes, self._say = processes, say

    def finish(self, run: str, until: Callable[[], float]) -> bool:
        """Let the trackers have the rest, and say what they have; True if they have everything.

        Args:
            run: address of the run's folder, for the way out.
            until: called again and again; the time, in seconds of `time.monotonic`, at which the
                processes are given up.
        """
        for one in self._processes:
            one.close()
        while not all(one.ended() for one in self._processes) and time.monotonic() < until():
            time.sleep(POLL_SECONDS)
        for one in self._processes:
            self._say(f"{one.tracker.name}: {_said(one, run)}")
        return all(one.last and one.last.sent for one in self._processes)


def _said(one: _Process, run: str) -> str:
    if one.last and one.last.sent:
        return one_line(one.last.text)
    if one.last:
        why = one_line(one.last.text)
    elif one.ended():
        why = "the process that sends has died"
    else:
        why = "it took too long"
    return f"not everything was sent ({why}); `{typed('track')} --run {run}` sends the rest"


@contextlib.contextmanager
def sending(
    run: str,
    keys: frozenset[str] | None,
    environment: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[Sending]:
    """Inside the block, the run's records are sent to each tracker that the environment asks for.

    If its library is missing, one line says so. At the end of the block the processes are killed.

    Args:
        run: address of the run's folder.
        keys: folders of the replicates that this driver trains; None: all that there are, now.
        environment: the variables that ask for trackers, and those of the processes.
        say: prints one line; another thread may call it.
    """
    processes = []
    try:
        for tracker, variable in asked(environment).items():
            missing = lacking(tracker, variable)
            if missing:
                say(missing)
                continue
            order = Order(module=tracker.module, run=run, keys=keys)
            try:
                processes.append(_Process(tracker, order, environment, say))
            except OSError as error:
                say(f"{tracker.name}: {reason(error)}; nothing is sent there")
        yield Sending(processes, say)
    finally:
        for one in processes:
            one.kill()
