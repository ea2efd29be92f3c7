"""What the driver and every worker find in their environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlcluster.orchestration.environment import (
    FORWARDED,
    quiet_import,
    tensorflow_environment,
    worker_environment,
)

ROOT = Path(__file__).parents[2]


def test_tensorflow_is_told_before_it_is_imported_to_use_keras_2_and_one_dnn() -> None:
    variables = tensorflow_environment()
    assert variables["TF_USE_LEGACY_KERAS"] == "1"
    assert variables["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert variables.items() <= worker_environment().items()


def test_workers_learn_where_storage_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FORWARDED:
        monkeypatch.delenv(name, raising=False)
    assert worker_environment().keys() & set(FORWARDED) == set()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert worker_environment()["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert worker_environment()["AWS_PROFILE"] == "mine"


def test_no_credential_reaches_what_ray_shows_in_plain_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secrets = {
        "AWS_ACCESS_KEY_ID": "AKIDSECRET",
        "AWS_SECRET_ACCESS_KEY": "KEYSECRET",
        "AWS_SESSION_TOKEN": "TOKENSECRET",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "CONTAINERSECRET",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    assert "SECRET" not in str(worker_environment().values())
    assert secrets.keys() & worker_environment().keys() == set()


QUIET = """
import os, sys
from tlcluster.orchestration.environment import quiet_import

with quiet_import():
    os.write(2, b"from a library in C++\\n")
    print("from Python", file=sys.stderr)
print("afterwards", file=sys.stderr)
with quiet_import():
    raise ImportError("it is not installed")
"""


def test_an_import_is_quiet_and_its_errors_are_not() -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert done.stderr.startswith("afterwards\nTraceback")
    assert done.stderr.endswith("ImportError: it is not installed\n")


def test_a_quiet_import_leaves_no_file_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with quiet_import():
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before
