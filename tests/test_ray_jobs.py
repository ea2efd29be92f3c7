"""README's recipe for a Ray cluster, on a real one: submitted, stopped, continued, and harmed."""

import json
import os
import re
import shlex
import signal
import ssl
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from k8s_container import why_not
from ray_lab import Node, RayLab, forbid, one_more, ray_lab
from readme import recipe
from real_run import EPOCH_TIMES, PATIENCE, Command

from tlcluster.dataset.ingest import ingest
from tlcluster.orchestration.environment import FORWARDED
from tlcluster.records import EPOCHS, RESULT, EpochRecord, ExperimentResult
from tlcluster.storage.embedded import EmbeddedStore
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import ObjectMissing, Store

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.cluster,
    # Where the suite decides whether a change is taken, the tests fail instead.
    pytest.mark.skipif(WHY_NOT is not None and os.environ.get("CI") != "true", reason=str(WHY_NOT)),
]

FLAGS = (
    "--weights", "none", "--checkpoint-seconds", "0", "--set", "*.global_batch=10",
    "--set", "frozen.epochs=2", "--set", "augmented.epochs=9", "--set", "regularized.epochs=9",
)  # fmt: skip
"""They make the recipe's run a short one."""
PATIENT = f"--seconds {PATIENCE}"
"""`check` waits for a machine that does other work."""
LONGER = ("augmented", "regularized")
EVERY_RUN = {"actors: _AutoscalingCoordinatorActor"}
"""What Ray may have once for all runs."""


class Stage(NamedTuple):
    """What was left when a job of the run had ended."""

    status: int
    """Exit status of `ray job submit`."""
    said: str
    job: dict[str, Any]
    """What the Jobs API tells of it."""
    left: set[str]
    """What is left of it on the cluster."""
    results: dict[str, Any]
    ended: dict[str, ExperimentResult]
    epochs: dict[str, list[EpochRecord]]


class Submission:
    """A job that was submitted with a command of the README."""

    def __init__(self, lab: RayLab, folder: Path, command: str) -> None:
        self.lab = lab
        self.command = Command(
            folder, "-c", command, program=("bash",), environment=lab.environment
        )

    def __enter__(self) -> "Submission":
        self.command.__enter__()
        self.command.until(lambda: "submitted successfully" in self.command.said())
        (self.name,) = re.findall(r"Job '(\w+)' submitted", self.command.said())
        return self

    def __exit__(self, *_: object) -> None:
        self.command.__exit__()

    def ray_job(self, verb: str, folder: Path) -> None:
        """`ray job VERB` for this job."""
        command = f"ray job {verb} --address http://{self.lab.head}:8265 {self.name}"
        with Command(
            folder, "-c", command, program=("bash",), environment=self.lab.environment
        ) as done:
            assert done.ended() == 0, done.said()


@pytest.fixture(scope="module")
def place(s3: EmbeddedStore) -> str:
    """An empty place in S3: BUCKET/PREFIX."""
    return f"{s3.url}/ray-jobs".removeprefix("s3://")


@pytest.fixture(scope="module")
def lab(s3: EmbeddedStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayLab]:
    """A head and two workers."""
    with ray_lab(tmp_path_factory.mktemp("lab"), 2, s3.endpoint, s3.environment) as lab:
        yield lab


def training(lab: RayLab) -> list[Node]:
    """The nodes that train."""
    return [
        node
        for node in lab.nodes
        if any(said.startswith("ray::RayTrainWorker") for said in node.titles().values())
    ]


def epochs(run: Store, experiment: str) -> list[EpochRecord]:
    try:
        lines = run.get(f"{experiment}/{EPOCHS}").splitlines()
    except ObjectMissing:
        return []
    return [EpochRecord.model_validate_json(line) for line in lines]


@pytest.fixture(scope="module")
def data(place: str, small_cinic: Path) -> str:
    """The address of the data set of the recipe."""
    store = open_store(f"s3://{place}/cinic10")
    ingest(str(small_cinic), store, rows_per_shard=50, processes=1)
    return store.url


@pytest.fixture
def checked(
    lab: RayLab, data: str, place: str, small_disk: Path, tmp_path: Path
) -> tuple[str, set[str], str]:
    """What `check` found on the lab with one more node, on which much is wrong.

    Its table, its errors, and the end of the job.
    """
    other = tmp_path / "tensorflow-2.20.0.dist-info" / "METADATA"
    other.parent.mkdir()
    other.write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.20.0\n")
    wrong = {
        "AWS_ACCESS_KEY_ID": "wrong",
        "AWS_SECRET_ACCESS_KEY": "x" * 40,
        "PYTHONPATH": str(tmp_path),
        "XDG_CACHE_HOME": str(small_disk),
    }
    (command,) = recipe("Ray", HEAD=lab.head, BUCKET=place)
    check = command.replace("jobs/run_all.py", "jobs/check.py")
    assert check != command
    assert data in check
    with one_more(lab, wrong) as bad:
        forbid(bad, 2)
        with Submission(lab, tmp_path, f"{check} --weights none {PATIENT}") as job:
            assert job.command.ended() == 1
            message = lab.jobs()[job.name]["message"]
            lines = job.command.said().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("error: "))
    return "\n".join(lines[:first]), {line for line in lines if line.startswith("error: ")}, message


def test_check_names_what_is_wrong_with_one_node_and_nothing_of_the_others(
    checked: tuple[str, set[str], str], lab: RayLab, place: str, small_disk: Path
) -> None:
    table, errors, message = checked
    print(table)
    assert "exit code 2" in message
    marks = re.findall(r"(?m)^ (ray\d)? +(\w+) +(ok|FAULT) ", table)
    checks = ["versions", "clock", "device", "data", "output", "disk", "network"]
    assert [check for _, check, _ in marks] == 3 * checks
    assert [node for node, check, _ in marks if check == "versions"] == ["ray2", "ray3", "ray4"]
    faults = {number for number, (_, _, mark) in enumerate(marks) if mark == "FAULT"}
    # ray2 is well, and cannot reach ray4.
    assert faults == {6, 14, 17, 18, 19, 20}

    network = lab.head.rpartition(".")[0]
    refused = (
        f"{lab.endpoint} refuses the credentials (InvalidAccessKeyId); check AWS_PROFILE or "
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they belong to this endpoint"
    )
    versions = (
        "tensorflow is 2.20.0, and 2.21.0 at the driver; install the same versions on all nodes, "
        "or use one environment that all of them see"
    )
    disk = (
        f"cache folder {small_disk}/tlcluster: 1.05 MB are free, and the shards take 1.86 MB; free "
        "some space or name another folder with --cache"
    )
    unreached = "open TCP ports 32768-60999 between the nodes, or train with --workers 1"
    assert {re.sub(rf"({network}\.\d):\d+", r"\1", line) for line in errors} == {
        f"error: ray4: {versions}",
        f"error: ray4: s3://{place}/cinic10: {refused}",
        f"error: ray4: s3://{place}/runs: {refused}",
        f"error: ray4: {disk}",
        f"error: ray2: no connection to ray4 ({network}.4: timed out); {unreached}",
        f"error: ray4: no connection to ray2 ({network}.2: permission denied); {unreached}",
    }
    # Nothing is left of it.
    assert open_store(f"s3://{place}/runs").list() == []
    assert set(lab.left()) <= EVERY_RUN
    assert list(small_disk.iterdir()) == []


@pytest.fixture(scope="module")
def stages(
    lab: RayLab,
    s3: EmbeddedStore,
    place: str,
    data: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Stage]:
    """The recipe's run: first one experiment, then two more that are stopped and lose a node."""
    folder = tmp_path_factory.mktemp("jobs")
    run = open_store(f"s3://{place}/runs/first")
    (command,) = recipe("Ray", HEAD=lab.head, BUCKET=place)

    assert data in command

    def submitted(*flags: str, command: str = command) -> Submission:
        return Submission(lab, folder, f"{command} {shlex.join([*FLAGS, *flags])}")

    def stage(job: Submission) -> Stage:
        status = job.command.ended()
        deadline = time.monotonic() + 30
        while (left := set(lab.left()) - EVERY_RUN) and time.monotonic() < deadline:
            time.sleep(0.2)
        known = {item.key for item in run.list("")}
        names = [name for name in ("frozen", *LONGER) if f"{name}/{RESULT}" in known]
        return Stage(
            status,
            job.command.said(),
            lab.jobs()[job.name],
            left,
            json.loads(run.get("report/results.json")),
            {n: ExperimentResult.model_validate_json(run.get(f"{n}/{RESULT}")) for n in names},
            {name: epochs(run, name) for name in names},
        )

    def further(job: Submission, already: dict[str, int]) -> None:
        """Wait for both of the longer experiments to go on."""
        for name in LONGER:
            job.command.until(lambda name=name: len(epochs(run, name)) > already.get(name, 0))

    found = {}
    # As for a cluster whose nodes do not know where storage is: every name that is forwarded.
    names_storage = {
        **{name: value for name, value in s3.environment.items() if name in FORWARDED},
        "AWS_ENDPOINT_URL": lab.endpoint,
        "AWS_ENDPOINT_URL_S3": lab.endpoint,
        "AWS_CA_BUNDLE": ssl.get_default_verify_paths().cafile or "",
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
        "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
    }
    assert names_storage.keys() == set(FORWARDED)
    begin = '{"env_vars": {'
    assert begin in command
    more = command.replace(begin, begin + json.dumps(names_storage)[1:-1] + ", ")
    with submitted("--experiments", "frozen", command=more) as job:
        found["finished"] = stage(job)
    both = ("--experiments", ",".join(LONGER), "--workers", "1")
    with submitted(*both) as job:
        further(job, {})
        job.ray_job("stop", folder)
        found["stopped"] = stage(job)
    with submitted(*both) as job:
        further(job, {name: len(epochs(run, name)) for name in LONGER})
        os.kill(training(lab)[0].raylet(), signal.SIGKILL)
        found["lost a node"] = stage(job)
    return found


def status_of(stage: Stage) -> dict[str, str]:
    return {experiment["name"]: experiment["status"] for experiment in stage.results["experiments"]}


def test_the_recipe_trains_on_several_nodes_from_and_into_s3(
    stages: dict[str, Stage], lab: RayLab, place: str
) -> None:
    done = stages["finished"]
    assert (done.status, done.job["status"], done.job["driver_exit_code"]) == (0, "SUCCEEDED", 0)
    assert f"\ns3://{place}/runs/first/report/index.html\n" in done.said
    assert status_of(done) == {"frozen": "finished"}
    assert len(done.epochs["frozen"]) == 2
    first, second = done.ended["frozen"].workers
    assert first.host != second.host
    hosts = [node["host"] for node in done.results["run"]["hardware"]]
    assert hosts == [node.name for node in lab.nodes]
    assert {first.host, second.host} == set(hosts[1:])


def test_a_job_whose_runtime_env_names_the_storage_runs(stages: dict[str, Stage]) -> None:
    done = stages["finished"]
    variables = done.job["runtime_env"]["env_vars"]
    assert set(FORWARDED) <= variables.keys()
    assert done.job["status"] == "SUCCEEDED"


def test_the_cluster_answers_nobody_without_its_token(lab: RayLab) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        lab._replace(token="0" * 40).jobs()
    assert refused.value.code == 403


def test_the_jobs_api_shows_no_credential(
    stages: dict[str, Stage], lab: RayLab, s3: EmbeddedStore
) -> None:
    assert stages
    keys = re.findall(r"= (\w{20,})", s3.credentials_file.read_text())
    assert len(keys) == 2
    shown = json.dumps(lab.jobs())
    assert "runtime_env" in shown
    assert [secret for secret in (*keys, lab.token) if secret in shown] == []


def test_a_job_that_is_stopped_leaves_a_partial_report_that_says_so(
    stages: dict[str, Stage],
) -> None:
    stopped = stages["stopped"]
    assert stopped.job["status"] == "STOPPED"
    assert "/runs/first/report/index.html\n" in stopped.said
    assert status_of(stopped) == {"frozen": "finished"} | dict.fromkeys(LONGER, "interrupted")
    assert stopped.results["run"]["status"] == "interrupted"
    for experiment in stopped.results["experiments"][1:]:
        history = experiment["history"]["val_accuracy"]
        recorded = [epoch.val_accuracy for epoch in stopped.epochs[experiment["name"]]]
        # Workers that do not stop in time are killed after the report is written, for Ray gives
        # the driver three seconds: an epoch may end in between.
        assert history == recorded[: len(history)]
        assert len(history) >= len(recorded) - 1
        assert 0 < len(history) < 9


def test_no_job_leaves_anything_on_the_cluster(stages: dict[str, Stage]) -> None:
    assert {name: stage.left for name, stage in stages.items() if stage.left} == {}


def untimed(records: list[EpochRecord]) -> list[dict[str, Any]]:
    return [record.model_dump(exclude=EPOCH_TIMES) for record in records]


def test_submitted_again_the_same_run_goes_on(stages: dict[str, Stage]) -> None:
    before, after = stages["stopped"], stages["lost a node"]
    assert (after.status, after.job["driver_exit_code"]) == (0, 0)
    assert status_of(after) == dict.fromkeys(("frozen", *LONGER), "finished")
    assert after.ended["frozen"] == stages["finished"].ended["frozen"]
    for name in LONGER:
        assert [epoch.epoch for epoch in after.epochs[name]] == list(range(1, 10))
        already = untimed(before.epochs[name])
        assert untimed(after.epochs[name])[: len(already)] == already


def test_an_experiment_whose_node_is_lost_goes_on_elsewhere_and_the_other_does_not_notice(
    stages: dict[str, Stage], lab: RayLab
) -> None:
    before, after = stages["stopped"].ended, stages["lost a node"].ended
    attempts = sorted(after[name].attempts - before[name].attempts for name in LONGER)
    assert attempts == [1, 2]
    # The node that is left had one CPU for both, one after the other.
    (left,) = (node.name for node in lab.nodes[1:] if node.holder.poll() is None)
    assert {after[name].workers[0].host for name in LONGER} == {left}


@pytest.mark.parametrize(
    ("store", "output", "why"),
    [
        (
            "embedded",
            "OUTPUT",
            (
                "--store embedded: this cluster has NODES nodes, and the embedded store is on one; "
                "fill a store that all nodes reach with python jobs/ingest.py and name it"
            ),
        ),
        (
            "s3://BUCKET/cinic10",
            "runs",
            (
                "--output runs: a job's working directory is deleted when the job is over; name "
                "s3://BUCKET/PREFIX, or a directory that all nodes reach by its absolute path"
            ),
        ),
    ],
)
def test_what_other_nodes_would_not_see_is_refused(
    store: str, output: str, why: str, lab: RayLab, place: str, tmp_path: Path
) -> None:
    (command,) = recipe("Ray", HEAD=lab.head, BUCKET=place)
    output = output.replace("OUTPUT", str(tmp_path))
    where = shlex.join(["--store", store.replace("BUCKET", place), "--output", output])
    with Submission(lab, tmp_path, f"{command} --weights none {where}") as job:
        # Ray has one exit status for all that is not 0, and tells which it was.
        assert job.command.ended() == 1
        told = lab.jobs()[job.name]
    assert (told["status"], told["driver_exit_code"]) == ("FAILED", 2)
    nodes = sum(node.holder.poll() is None for node in lab.nodes)
    last = told["message"].splitlines()[-1]
    assert last == f"error: {why.replace('NODES', str(nodes))}"
    assert last in job.command.said().splitlines()
    assert "Traceback" not in job.command.said()
