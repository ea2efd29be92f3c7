"""Every fault that a cluster has, in a real run: what happens, what it costs, and that the results
are those of a run that met none. `make drill` prints the table, and `docs/faults.md` holds one.
"""

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faulty_s3
import pytest
from drill import TRAINED, Drill, stop
from fault_table import TABLE, Row
from faulty_s3 import Fault, FaultyS3
from real_run import Command, kill

from tlcluster.dataset.ingest import ingest
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store

pytestmark = [pytest.mark.drill, pytest.mark.cluster, pytest.mark.timeout(1500)]

AWAY_SECONDS = 90.0
BUSY_SECONDS = 60.0

Act = Callable[[Drill, Command], None]


class Case(NamedTuple):
    """A fault, and what the suite promises about it."""

    what: str
    act: Act
    """Called when the second epoch trains."""
    statuses: tuple[int, ...] = (0,)
    """Of the command, and of the same command again, as often as it is needed."""
    flags: tuple[object, ...] = ()
    between: Callable[[Drill], None] = lambda _: None
    """Called between the command and the same command again."""


# --- what befalls workers ------------------------------------------------------------------------


def killed(rank: int) -> Act:
    return lambda drill, command: kill([drill.worker(command, rank)])


def stopped(drill: Drill, command: Command) -> None:
    stop(drill.worker(command, 1))


def asked(what: str) -> Act:
    """What the hook in the workers does; see `drill_hooks`."""
    return lambda drill, _: (drill.log / what).touch()


def out_of_memory(drill: Drill, command: Command) -> None:
    """The kernel kills it, as for a container with a limit."""
    worker, limit = drill.worker(command, 1), memory_limit()
    (limit.parent / "cgroup.procs").write_text(str(worker.pid))
    # What it has already counts elsewhere; of new memory it gets next to none.
    limit.write_text(str(2**20))
    command.until(lambda: worker not in command.workers())
    command.until(lambda: removed(limit.parent))


def removed(group: Path) -> bool:
    """Remove a control group; false as long as a process of it has not quite ended."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True


def memory_limit() -> Path:
    """The file with the limit, in bytes, of a new control group; else the test is skipped."""
    for parent, name in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        limit = parent / f"tlcluster-{os.getpid()}" / name
        with contextlib.suppress(OSError):
            limit.parent.mkdir()
            if limit.exists():
                return limit
            limit.parent.rmdir()
    pytest.skip("needs a memory control group that this account may make")


# --- what befalls the driver ---------------------------------------------------------------------


def signalled(*kinds: signal.Signals) -> Act:
    def act(_: Drill, command: Command) -> None:
        for kind in kinds:
            command.process.send_signal(kind)
            time.sleep(0.2)

    return act


# --- what befalls storage ------------------------------------------------------------------------


def away(drill: Drill, command: Command) -> None:
    drill.s3.off()
    began = time.monotonic()
    command.until(lambda: time.monotonic() - began > AWAY_SECONDS)
    drill.s3.on()


def answered(fault: Fault, *, seconds: float | None = None, times: int = 3) -> Act:
    """Storage answers with a fault, for some time or until it was met some times."""

    def act(drill: Drill, command: Command) -> None:
        began = time.monotonic()
        with drill.s3.with_fault(fault):
            if seconds is None:
                command.until(lambda: drill.s3.met >= times)
            else:
                command.until(lambda: time.monotonic() - began > seconds)

    return act


def flipped(content: bytes) -> bytes:
    """One bit in the middle is another one."""
    changed, middle = bytearray(content), len(content) // 2
    changed[middle] ^= 1
    return bytes(changed)


def damaged_cache(drill: Drill) -> None:
    shards = [path for path in drill.cache.rglob("*") if path.is_file() and path.stat().st_size]
    for path in shards:
        path.chmod(0o600)
        path.write_bytes(flipped(path.read_bytes()))
    assert shards


def damaged_features(drill: Drill) -> None:
    output = open_store(drill.output)
    keys = [item.key for item in output.list("features/") if item.key.endswith(".npy")]
    for key in keys:
        output.put(key, flipped(output.get(key)))
    assert keys, [item.key for item in output.list("features/")]


def checkpoints(drill: Drill) -> list[str]:
    """Keys, the newest last."""
    return sorted(item.key for item in drill.run.list(f"{TRAINED}/checkpoints/"))


def changed_checkpoint(change: Callable[[bytes], bytes]) -> Callable[[Drill], None]:
    def between(drill: Drill) -> None:
        newest = checkpoints(drill)[-1]
        drill.run.put(newest, change(drill.run.get(newest)))

    return between


def without_newest(drill: Drill) -> None:
    drill.run.delete(checkpoints(drill)[-1])


KILLED_AND_AGAIN = (-signal.SIGKILL, 0)

CASES = (
    Case("SIGKILL of rank 0", killed(0)),
    Case("SIGKILL of rank 1", killed(1)),
    Case("SIGSTOP of rank 1", stopped, flags=("--stall", "0.5")),
    Case("rank 1 out of memory", out_of_memory),
    Case("an exception in a step of rank 1", asked("raise-1")),
    Case(
        "rank 1 never enters a collective", asked("never-enter-1"), flags=("--stall", "0.5")
    ),
    Case("SIGKILL of the driver", signalled(signal.SIGKILL), KILLED_AND_AGAIN),
    Case("SIGINT twice", signalled(signal.SIGINT, signal.SIGINT), (130, 0)),
    Case("SIGHUP", signalled(signal.SIGHUP), (129, 0)),
    Case(f"storage away for {AWAY_SECONDS:.0f} s", away),
    Case(
        f"503 for {BUSY_SECONDS:.0f} s",
        answered(faulty_s3.unavailable, seconds=BUSY_SECONDS),
    ),
    Case("expired credentials, then fresh ones", answered(faulty_s3.expired)),
    Case("objects stall on the wire", answered(faulty_s3.stalled, times=1)),
    Case("truncated objects on the wire", answered(faulty_s3.truncated)),
    Case("a flipped bit on the wire", answered(faulty_s3.flipped)),
    Case(
        "a flipped bit in every file of the cache",
        signalled(signal.SIGKILL), KILLED_AND_AGAIN, between=damaged_cache,
    ),
    Case(
        "a flipped bit in every feature file",
        signalled(signal.SIGKILL), KILLED_AND_AGAIN, between=damaged_features,
    ),
    Case(
        "a flipped bit in the newest checkpoint",
        signalled(signal.SIGKILL), KILLED_AND_AGAIN, between=changed_checkpoint(flipped),
    ),
    Case(
        "the newest checkpoint is cut short",
        signalled(signal.SIGKILL), KILLED_AND_AGAIN,
        between=changed_checkpoint(lambda content: content[: len(content) // 2]),
    ),
    Case(
        "the newest checkpoint is gone",
        signalled(signal.SIGKILL), KILLED_AND_AGAIN, between=without_newest,
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def data(s3: EmbeddedStore, small_cinic: Path) -> Store:
    """200 images a split in four shards, in S3."""
    store = open_store(f"{s3.url}/drill/data")
    ingest(str(small_cinic), store, rows_per_shard=50, processes=1)
    return store


@pytest.fixture
def proxy(s3: EmbeddedStore) -> Iterator[FaultyS3]:
    with contextlib.closing(FaultyS3(s3.endpoint)) as found:
        yield found


class Undisturbed(NamedTuple):
    results: list[Any]
    seconds: float


@pytest.fixture(scope="module")
def undisturbed(
    s3: EmbeddedStore, data: Store, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    with contextlib.closing(FaultyS3(s3.endpoint)) as proxy:
        drill = Drill(tmp_path_factory.mktemp("undisturbed"), data, proxy)
        began = time.monotonic()
        with drill.command() as command:
            assert drill.ended(command, began) == 0, drill.said
    assert drill.repeated == 0
    return Undisturbed(drill.results(), drill.seconds)


@pytest.mark.parametrize("case", CASES, ids=[case.what.replace(" ", "-") for case in CASES])
def test_a_run_that_meets_a_fault_ends_with_the_results_of_one_that_met_none(
    case: Case,
    data: Store,
    proxy: FaultyS3,
    undisturbed: Undisturbed,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    drill = Drill(tmp_path_factory.mktemp("drill"), data, proxy)
    for number, _ in enumerate(case.statuses):
        began = time.monotonic()
        with drill.command(*case.flags) as command:
            if number == 0:
                command.until(lambda: drill.trains(epoch=2))
                case.act(drill, command)
            drill.ended(command, began)
        if number == 0:
            case.between(drill)
    assert drill.statuses == list(case.statuses), drill.said
    assert "Traceback" not in drill.said
    same = drill.results() == undisturbed.results
    row = Row(case.what, happened(drill), drill.repeated, drill.seconds - undisturbed.seconds, same)
    TABLE.append(row)
    assert same, row


def happened(drill: Drill) -> str:
    """In words, what became of the run."""
    attempts = drill.result().attempts
    times = {1: "the first attempt went on", 2: "started again once"}
    what = times.get(attempts, f"started again {attempts - 1} times")
    *interrupted, _ = drill.statuses
    if interrupted:
        return f"ended with status {interrupted[0]}; the same command went on"
    return what


def test_a_loss_that_is_no_number_fails_at_once_and_is_not_tried_again(
    data: Store, proxy: FaultyS3, undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory
) -> None:
    drill = Drill(tmp_path_factory.mktemp("drill"), data, proxy)
    began = time.monotonic()
    with drill.command("--set", f"{TRAINED}.learning_rate=1e30") as command:
        assert drill.ended(command, began) == 1, drill.said
    failed = drill.result()
    assert (failed.status, failed.attempts) == ("failed", 1)
    assert failed.error is not None
    assert re.match(r"the loss became (nan|inf) in steps? \d+( to \d+)? of epoch 1: ", failed.error)
    assert "Traceback" not in drill.said
    lost = drill.seconds - undisturbed.seconds
    TABLE.append(
        Row("the loss is no number", "failed at once, with its steps", drill.repeated, lost, None)
    )
