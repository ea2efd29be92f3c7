"""Requests to stop: which signals are heard, and which request counts."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tlcluster.orchestration.stopping import SIGNALS, StopRequests

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", SIGNALS)
def test_a_signal_asks_to_stop_and_afterwards_is_handled_as_before(kind: signal.Signals) -> None:
    before = signal.getsignal(kind)
    requests = StopRequests()
    with requests.heard():
        assert requests.first is None
        os.kill(os.getpid(), kind)
        assert requests.first is not None
        assert requests.first.signal == kind
    assert signal.getsignal(kind) == before


def test_only_the_first_request_counts() -> None:
    requests = StopRequests()
    with requests.heard():
        requests.ask(signal.SIGPIPE)
        first = requests.first
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert requests.first is first
    assert first is not None
    assert first.signal == signal.SIGPIPE


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        requests = StopRequests()
        with requests.heard():
            os.kill(os.getpid(), signal.SIGHUP)
        assert requests.first is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_once_more_ends_the_process_at_once() -> None:
    code = """
import os, signal
from tlcluster.orchestration.stopping import StopRequests

with StopRequests().heard():
    os.kill(os.getpid(), signal.SIGTERM)
    print("goes on", flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never said")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout) == (130, "goes on\n")
