"""Real commands on a file system without locks and hard links."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from poor_file_system import poor_file_system
from real_run import Command

from tlcluster.dataset.shards import INDEX_KEY, check_complete, read_index
from tlcluster.storage.open import open_store

ROOT = Path(__file__).parent.parent

LOOK = """
import fcntl, json, os, sys
folder, said = sys.argv[1], {}
def no(name, call):
    try:
        call()
    except OSError as error:
        said[name] = error.errno
file = os.open(f"{folder}/file", os.O_RDWR | os.O_CREAT)
no("flock", lambda: fcntl.flock(file, fcntl.LOCK_EX))
no("lockf", lambda: fcntl.lockf(file, fcntl.LOCK_EX))
no("link", lambda: os.link(f"{folder}/file", f"{folder}/other"))
fcntl.fcntl(file, fcntl.F_GETFD)
print(json.dumps(said))
"""

WRITERS = """
import os, sys, threading
from pathlib import Path
from tlcluster.orchestration.replicates import replicates
from tlcluster.orchestration.suite import claimed, held
from tlcluster.storage.open import open_store
from tlcluster.experiments import EXPERIMENTS
store = open_store(sys.argv[1], create=True)
frozen = replicates([EXPERIMENTS["frozen"]], [524])
with held(store, ".manifest.lock", wait=True), claimed(store, frozen):
    print(store.put_if_absent("index.json", b"mine"), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def poor(tmp_path: Path) -> Mapping[str, str]:
    """The environment in which `tmp_path / "poor"` has neither locks nor hard links."""
    (tmp_path / "poor").mkdir()
    return poor_file_system(tmp_path, tmp_path / "poor")


def said(poor: Mapping[str, str], script: str, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **poor},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("lock", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_the_library_takes_locks_and_links_away_below_one_folder_only(
    tmp_path: Path, lock: int
) -> None:
    (tmp_path / "poor").mkdir()
    poor = poor_file_system(tmp_path, tmp_path / "poor", lock=lock, link=errno.EPERM)
    for folder, expected in {
        "poor": {"flock": lock, "lockf": lock, "link": errno.EPERM},
        ".": {},
    }.items():
        done = said(poor, LOOK, tmp_path / folder)
        assert json.loads(done.stdout or "null") == expected, done.stderr


def test_an_ingest_that_is_killed_goes_on(
    poor: Mapping[str, str], tiny_cinic: Path, tmp_path: Path
) -> None:
    store, cache = tmp_path / "poor" / "store", tmp_path / "poor" / "cache"
    arguments = (
        "jobs/ingest.py", "--source", tiny_cinic, "--store", store, "--cache", cache,
        "--rows-per-shard", 1, "--processes", 1,
    )  # fmt: skip
    with Command(tmp_path, *arguments, environment=poor) as job:
        job.until(lambda: any(store.glob("train/*.npy")))
        assert job.send(signal.SIGKILL) == -signal.SIGKILL
    assert not (store / INDEX_KEY).exists()
    with Command(tmp_path, *arguments, environment=poor) as job:
        assert job.ended() == 0, job.said()
    ingested = open_store(str(store))
    check_complete(ingested, read_index(ingested)[0])


def test_a_driver_that_is_killed_blocks_no_other(poor: Mapping[str, str], tmp_path: Path) -> None:
    run = tmp_path / "poor" / "run"
    for expected in ("True\n", "False\n"):
        done = said(poor, WRITERS, run)
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, expected), done.stderr
    assert (run / "index.json").read_bytes() == b"mine"
    assert [item.key for item in open_store(str(run)).list("index")] == ["index.json"]
