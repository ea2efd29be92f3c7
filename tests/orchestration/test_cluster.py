"""The Ray cluster a run lives in: joined where there is one, else started here."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from real_run import ROOT, Command, alive, gone, started_by

from tlcluster.dataset.ingest import ingest
from tlcluster.errors import UserError
from tlcluster.machine import local_cpus, processor
from tlcluster.orchestration.cluster import (
    RAY_TRAIN,
    TRIES,
    given_address,
    local_nodes,
    ray_cluster,
)
from tlcluster.orchestration.questions import Questions
from tlcluster.records import ExperimentResult, RankRecord
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.training.diary import opened


@pytest.fixture(autouse=True)
def no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine where somebody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def free_port() -> int:
    """A port where nobody listens, outside of those that Ray gives to its workers."""
    for port in range(6400, 10_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port
    raise AssertionError("every port is taken")


def refusal(flag: str | None) -> str:
    with pytest.raises(UserError) as caught:
        given_address(flag)
    return str(caught.value)


def test_without_an_address_a_cluster_is_started() -> None:
    assert given_address(None) is None
    assert given_address("") is None
    assert given_address("local") is None


def test_an_address_is_taken_from_the_flag_or_from_ray_s_own_variable(
    listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"127.0.0.1:{listener}"
    assert given_address(address) == address
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert given_address(None) == address
    assert given_address("auto") == "auto"
    assert given_address("local") is None


def test_an_address_where_nobody_listens_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"127.0.0.1:{free_port()}"
    said = (
        f"{address}: no Ray cluster answers ([errno 111] connection refused); check the address, "
        "or leave it out to start Ray on this machine"
    )
    assert refusal(address) == f"--address {said}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert refusal(None) == f"RAY_ADDRESS {said}"


@pytest.mark.parametrize(
    "address", ["head", "head:", ":6379", "ray://head:10001", "http://head:8265", "head:port"]
)
def test_what_is_no_address_of_a_cluster_is_refused(address: str) -> None:
    assert refusal(address) == (
        f"--address {address}: give HOST:PORT of the head node, usually port 6379, `auto` on a "
        "node of the cluster, or `local`; from outside: ray job submit --address http://…"
    )


def test_ray_train_hands_on_what_it_is_set_to() -> None:
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE  # noqa: PLC0415

    assert set(RAY_TRAIN) <= ENV_VARS_TO_PROPAGATE


def test_this_machine_is_one_node_with_the_cores_of_this_process() -> None:
    (node,) = local_nodes()
    assert node.host == socket.gethostname()
    assert node.cpus == local_cpus() == len(os.sched_getaffinity(0))
    assert node.memory_bytes > 2**28
    assert node.processor == processor()


def test_a_process_that_may_use_one_core_has_one() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert local_nodes()[0].cpus == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_ray_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def init(**_: object) -> None:
        tries.append(1)
        raise Exception("The current node timed out during startup.\nMore of it.")

    monkeypatch.setattr(ray, "init", init)
    before = dict(os.environ)
    with pytest.raises(UserError) as caught, ray_cluster(None):
        pass
    assert str(caught.value) == (
        "Ray did not start on this machine (The current node timed out during startup.); see "
        "whether it is overloaded or out of memory, and try again"
    )
    assert dict(os.environ) == before
    assert len(tries) == TRIES


@pytest.mark.cluster
@pytest.mark.drill  # Ray waits for half a minute
def test_a_ray_that_starts_too_slowly_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The node that was started first is not found in time."""
    services = ray._private.services
    looked, get_node = [0.0], services.get_node

    def slow(*arguments: object) -> object:
        if looked[0] < 1:
            looked[0] = time.monotonic()
        if time.monotonic() - looked[0] < 31:
            raise RuntimeError("not there yet")
        return get_node(*arguments)

    monkeypatch.setattr(services, "get_node", slow)
    before = started_by(os.getpid())
    with ray_cluster(None) as nodes:
        assert len(nodes) == 1
        assert time.monotonic() - looked[0] > 30
    assert gone(started_by(os.getpid()) - before)


def looked_at() -> RankRecord:
    """Where this process stands, seen by one that Ray starts on its node."""
    diary, pages = opened(0)
    diary.does("test")
    asking, node = Questions(), ray.get_runtime_context().get_node_id()
    asking.ask("frozen", [(node, pages)], time.monotonic())
    while not (answers := asking.answers(time.monotonic())):
        time.sleep(0.05)
    return answers["frozen"][0]


@pytest.mark.cluster
def test_a_cluster_that_is_started_here_ends_with_the_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_worker_maximum_startup_concurrency", raising=False)
    environment = dict(os.environ)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    before = started_by(os.getpid())
    with ray_cluster(None) as nodes:
        started = started_by(os.getpid()) - before
        assert alive(started)
        assert [(node.host, node.cpus) for node in nodes] == [(socket.gethostname(), local_cpus())]
        assert signal.getsignal(signal.SIGTERM) == on_sigterm
        seen = looked_at()
        assert (seen.pid, seen.doing) == (os.getpid(), "test")
        assert any(frame.endswith(" looked_at") for frame in seen.stack)
    assert gone(started)
    changed = {name for name, _ in set(os.environ.items()) ^ set(environment.items())}
    assert not {name for name in changed if name.startswith("RAY_TRAIN")}
    assert "RAY_worker_maximum_startup_concurrency" not in changed


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of one node with two CPUs that demands a token.

    It is ended by the number of its process: `ray stop` would end every Ray of the machine.
    """
    folder = tmp_path_factory.mktemp("head")
    token = folder / "token"
    token.write_text("t" * 40)
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        # Nothing is to be moved to other nodes at the end; Ray would wait half a minute for that.
        patch.setenv("RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S", "0")
        start = ["-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}"]
        more = ["--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats"]
        with Command(folder, *start, *more) as ray:
            ray.until(lambda: "Ray runtime started" in ray.said())
            yield f"127.0.0.1:{port}"
            ray.send(signal.SIGTERM)


JOIN = """
import sys
import time
from tlcluster.orchestration.cluster import ray_cluster
from tlcluster.errors import UserError

try:
    with ray_cluster(sys.argv[1]):
        pass
except UserError as error:
    print(error)
"""

LEFT = """
import sys
import time
import ray
from ray._private.state import actors

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
for actor in actors().values():
    if actor["State"] != "DEAD":
        print(actor["ActorClassName"])
for group in ray.util.placement_group_table().values():
    if group["state"] != "REMOVED":
        print("a placement group")
"""


def printed(code: str, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    return done.stdout.splitlines()


@pytest.mark.cluster
def test_a_cluster_with_another_token_is_refused(head: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("w" * 40)
    (line,) = printed(JOIN, head, RAY_AUTH_TOKEN_PATH=str(token))
    assert line.startswith(f"--address {head}: no Ray cluster answers (")
    assert line.endswith(
        "; check the address and that RAY_AUTH_MODE and its token are the cluster's, or leave it "
        "out to start Ray here"
    )


@pytest.mark.drill
@pytest.mark.cluster
def test_two_workers_an_experiment_train_from_and_into_s3_on_a_cluster_that_stays(
    head: str, s3: EmbeddedStore, s3_url: str, small_cinic: Path, tmp_path: Path
) -> None:
    assert s3_url.startswith(s3.url)
    ingest(str(small_cinic), open_store(f"{s3_url}/data"), rows_per_shard=50, processes=1)
    with Command(
        tmp_path, "jobs/run_all.py", "--address", head, "--store", f"{s3_url}/data",
        "--output", f"{s3_url}/runs", "--run-name", "first", "--experiments", "frozen,augmented",
        "--workers", "2", "--epochs", "2", "--weights", "none", "--cache", tmp_path / "cache",
    ) as command:  # fmt: skip
        assert command.ended() == 0, command.said()
        last = command.stdout.read_text().splitlines()[-1]
    assert last == f"{s3_url}/runs/first/report/index.html"

    run = open_store(f"{s3_url}/runs/first")
    for name in ("frozen", "augmented"):
        result = ExperimentResult.model_validate_json(run.get(f"{name}/result.json"))
        assert (result.status, result.epochs_run) == ("finished", 2)
        assert [worker.rank for worker in result.workers] == [0, 1]
    # Both experiments, both workers of each: one set of plain features, none of the views left.
    features = [item.key for item in open_store(f"{s3_url}/runs").list("features/")]
    places = {key.split("/", 2)[2].rpartition("/")[0] for key in features}
    assert places == {"train/00000", "valid/00000", "test/00000"}
    assert len([key for key in features if key.endswith(".npy")]) == 3 * 4
    # Nothing of the run stays on the cluster but what Ray has once for all runs.
    assert set(printed(LEFT, head)) <= {"_AutoscalingCoordinatorActor"}
