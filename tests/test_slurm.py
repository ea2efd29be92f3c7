"""The batch scripts in a real Slurm of two nodes; what they leave is read back."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import readme
from real_run import PATIENCE, ROOT, epochs, result, results_json
from slurm_lab import GPUS, NODES, Lab, slurm, why_not

from tlcluster.backbones import BACKBONES
from tlcluster.cinic10 import ARCHIVE_URL
from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.sample import SAMPLE_ROWS_PER_SHARD
from tlcluster.experiments import EXPERIMENTS
from tlcluster.storage.open import open_store

WHY_NOT = why_not()
pytestmark = [
    pytest.mark.cluster,
    # In CI, the tests fail instead.
    pytest.mark.skipif(
        WHY_NOT is not None and os.environ.get("CI") != "true", reason=f"no Slurm: {WHY_NOT}"
    ),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all nodes see."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def store(shared: Path, small_cinic: Path) -> Path:
    """A store for runs that are interrupted."""
    folder = shared / "small"
    ingest(str(small_cinic), open_store(str(folder), create=True), rows_per_shard=50, processes=1)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if WHY_NOT:
        pytest.fail(WHY_NOT)
    with slurm(ROOT, Path(sys.prefix), tmp_path_factory.getbasetemp()) as running:
        yield running


# --- the recipe of the README ------------------------------------------------------------------


SHORTER = (
    "--profile paper",
    # The lab's GPUs have no driver.
    "--profile paper --weights none --epochs 1 --gpus-per-worker 0",
)


@pytest.fixture(scope="module")
def recipe(lab: Lab, shared: Path, small_cinic: Path) -> dict[str, str]:
    """The README's commands, submitted together and over: what a job does → its id.

    They are made shorter: a small data set, random weights, one epoch, one experiment in the job
    and two in the array; and smaller, so that the jobs fit into the lab together.
    """
    install, *commands = readme.recipe("Slurm")
    assert install == "make env GPU=1"
    ingest, weights = commands[:2]
    assert weights == f"wget -P /shared/cinic10/weights {BACKBONES['vgg16'].weights_url}"
    block = "\n".join([ingest, *commands[2:]])
    for old, new in (
        (f"--source {ARCHIVE_URL}", f"--source {small_cinic} --rows-per-shard 50"),
        (".venv/bin/python", sys.executable),
        ("/shared", str(shared)),
        SHORTER,
        ("--gpus-per-node 4", "--gpus-per-node 1"),
        ("--cpus-per-gpu 8", "--cpus-per-gpu 3"),
        ("--mem-per-gpu 32G", "--mem-per-gpu 8G"),
        # Ray gives up what four of its nodes at once start too slowly on a small machine.
        ("slurm/run_all.sbatch", "--wait slurm/run_all.sbatch --experiments frozen"),
        ("slurm/run_one.sbatch", f"--array 0,1 --nodelist {NODES[0]} slurm/run_one.sbatch"),
    ):
        assert old in block
        block = block.replace(old, new)
    said = lab.call("bash", "-euc", f"{block}\necho $job").stdout.splitlines()
    whole, report = (
        line.removeprefix("Submitted batch job ") for line in said if line.startswith("Submitted")
    )
    jobs = {"all": whole, "report": report}
    jobs |= {"frozen": f"{said[-1]}_0", "augmented": f"{said[-1]}_1"}
    for job in jobs.values():
        ended = lab.ended(job)
        assert (ended.state, ended.status) == ("COMPLETED", "0:0"), lab.said(job)
    return jobs


def test_one_job_trains_every_experiment_on_all_of_its_nodes(
    lab: Lab, shared: Path, recipe: dict[str, str]
) -> None:
    run = shared / "runs" / f"slurm-{recipe['all']}"
    assert lab.said(recipe["all"]).splitlines()[-1] == str(run / "report" / "index.html")
    results = results_json(run)
    assert results["run"]["status"] == "finished"
    assert [node["host"] for node in results["run"]["hardware"]] == list(NODES)
    for experiment in results["experiments"]:
        assert experiment["status"] == "finished"
        assert sorted(worker["host"] for worker in experiment["workers"]) == list(NODES)


def test_the_tasks_of_an_array_train_one_experiment_each_in_one_run(
    shared: Path, recipe: dict[str, str]
) -> None:
    run = shared / "runs" / f"slurm-{recipe['frozen'].removesuffix('_0')}"
    results = results_json(run)
    assert results["run"]["status"] == "finished"
    told = [(e["name"], e["status"], e["attempts"]) for e in results["experiments"]]
    assert told == [("frozen", "finished", 1), ("augmented", "finished", 1)]


def test_a_job_has_what_slurm_gave_it_and_no_more(shared: Path, recipe: dict[str, str]) -> None:
    for name in ("all", "frozen"):
        run = shared / "runs" / f"slurm-{recipe[name].removesuffix('_0')}"
        for node in results_json(run)["run"]["hardware"]:
            assert (node["cpus"], node["gpus"], node["memory_bytes"]) == (3, 1, 8 * 2**30)


@pytest.mark.parametrize(
    "asked",
    [
        ("--gpus-per-node", 1, "--cpus-per-gpu", 2, "--mem-per-gpu", "1G"),
        ("--gpus-per-node", 1, "--cpus-per-gpu", 2, "--mem-per-cpu", "1G"),
        ("--gres", "gpu:1", "--cpus-per-task", 2, "--mem", "2G"),
        ("--exclusive", "--mem", 0),
    ],
    ids=lambda asked: asked[-2].removeprefix("--") + asked[0].removeprefix("-"),
)
@pytest.mark.parametrize("script", ["run_all", "run_one", "report"])
def test_cpus_and_memory_can_be_asked_for_in_every_way(
    script: str, asked: tuple[object, ...], lab: Lab
) -> None:
    done = lab.call("sbatch", "--test-only", *asked, f"slurm/{script}.sbatch", check=False)
    assert done.returncode == 0, done.stderr


def test_slurm_would_refuse_some_ways_if_a_header_had_another(lab: Lab, shared: Path) -> None:
    script = shared / "header.sbatch"
    for header, flag in (("--mem=8G", "--mem-per-gpu"), ("--cpus-per-task=4", "--cpus-per-gpu")):
        script.write_text(f"#!/bin/bash\n#SBATCH {header}\n")
        asked = ("--gpus-per-node", 1, flag, 2, script)
        done = lab.call("sbatch", "--test-only", *asked, check=False)
        assert done.returncode == 1
        assert "mutually exclusive" in done.stderr


def test_the_report_waits_for_all_tasks(lab: Lab, shared: Path, recipe: dict[str, str]) -> None:
    report = lab.job(recipe["report"])
    assert report.start >= max(lab.job(recipe[name]).end for name in ("frozen", "augmented"))
    run = shared / "runs" / f"slurm-{recipe['frozen'].removesuffix('_0')}"
    assert lab.said(recipe["report"]) == f"{run}/report/index.html\n"


def test_two_jobs_ran_on_one_node_at_the_same_time(lab: Lab, recipe: dict[str, str]) -> None:
    one, other = lab.job(recipe["frozen"]), lab.job(recipe["augmented"])
    assert one.nodes == other.nodes == NODES[0]
    assert one.start < other.end
    assert other.start < one.end


def test_check_looks_at_every_node_of_a_job(lab: Lab, shared: Path, store: Path) -> None:
    output = shared / "checked"
    job = lab.submit(
        "--nodes", 2, "--cpus-per-task", 2, "--mem", "4G", "slurm/check.sbatch",
        "--store", store, "--output", output, "--weights", "none", "--seconds", PATIENCE,
    )  # fmt: skip
    ended, said = lab.ended(job), lab.said(job)
    print(said)
    assert (ended.state, ended.status) == ("COMPLETED", "0:0"), said
    assert said.splitlines()[-1] == "A run can start on 2 nodes."
    marks = re.findall(r"(?m)^ (\w+)? +(\w+) +(ok|FAULT) ", said)
    assert [node for node, check, _ in marks if check == "versions"] == list(NODES)
    assert [mark for _, _, mark in marks] == 14 * ["ok"]
    assert not output.exists()


# --- interruptions -----------------------------------------------------------------------------


EPOCHS = 6


def submitted(lab: Lab, store: Path, name: str) -> tuple[str, Path]:
    """A job of some epochs of two seconds, and the folder of its run."""
    shared = store.parent
    job = lab.submit(
        "--nodes", 1, "--cpus-per-task", 4, "--mem", "8G", "slurm/run_all.sbatch", "--store", store,
        "--output", shared / "runs", "--run-name", name, "--weights", "none",
        "--experiments", "frozen,finetuned", "--epochs", EPOCHS,
        "--set", f"*.patience={EPOCHS}",
    )  # fmt: skip
    return job, shared / "runs" / name


def sent_back(lab: Lab, job: str, run: Path) -> None:
    """Announce the end of a job's allocation and wait until it is in the queue again."""
    # As Slurm does it, 120 seconds before the allocation ends.
    lab.call("scancel", "--batch", "--signal=USR1", job)
    lab.until(job, lambda: lab.job(job).restarts)
    assert "requeued, 1 of 20" in lab.said(job)
    assert results_json(run)["run"]["status"] == "interrupted"


@pytest.mark.drill
def test_a_job_whose_end_is_announced_goes_on_after_a_requeue_where_it_was(
    lab: Lab, store: Path
) -> None:
    before = lab.left()
    job, run = submitted(lab, store, "requeued")
    lab.until(job, lambda: epochs(run, "frozen") and epochs(run, "finetuned"))
    sent_back(lab, job, run)
    done = {name: epochs(run, name) for name in ("frozen", "finetuned")}
    assert 0 < len(done["finetuned"]) < EPOCHS

    ended = lab.ended(job)
    assert (ended.state, ended.restarts) == ("COMPLETED", 1), lab.said(job)
    assert results_json(run)["run"]["status"] == "finished"
    for name, earlier in done.items():
        assert [record.epoch for record in epochs(run, name)] == list(range(1, EPOCHS + 1))
        # Trained again, they would have taken another time.
        assert epochs(run, name)[: len(earlier)] == earlier
    assert result(run, "finetuned").attempts == 2
    assert lab.left() == before


@pytest.mark.drill  # the scripts are tested with stand-ins
def test_a_requeued_and_cancelled_job_leaves_nothing_on_its_nodes_and_a_report_can_follow(
    lab: Lab, store: Path
) -> None:
    before = lab.left()
    job, run = submitted(lab, store, "cancelled")
    report = lab.submit(
        "--dependency", f"afterany:{job}", "--mem", "4G", "slurm/report.sbatch", "--run", run
    )
    lab.until(job, lambda: epochs(run, "frozen"))
    assert lab.left() != before
    sent_back(lab, job, run)
    assert lab.left() == before

    lab.until(job, lambda: lab.said(job).count("run cancelled") == 2)
    lab.until(job, lambda: lab.left() != before)
    lab.call("scancel", job)
    assert lab.ended(job).state == "CANCELLED"
    assert lab.ended(report).status == "0:0", lab.said(report)
    assert lab.left() == before
    assert results_json(run)["experiments"][0]["history"]["loss"]


@pytest.mark.drill
def test_a_job_that_is_interrupted_too_often_gives_up(lab: Lab, store: Path) -> None:
    lab.environment["TLCLUSTER_REQUEUES"] = "1"
    try:
        job, _ = submitted(lab, store, "given-up")
    finally:
        del lab.environment["TLCLUSTER_REQUEUES"]
    for restarts in (0, 1):
        lab.until(job, lambda n=restarts: lab.said(job).count("run given-up") > n)
        lab.call("scancel", "--batch", "--signal=USR1", job)
    ended = lab.ended(job)
    assert (ended.state, ended.status, ended.restarts) == ("FAILED", "143:0", 1)
    assert lab.said(job).splitlines()[-1].startswith("not requeued: interrupted")


# --- what cannot work --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        (["--partition", "nowhere"], "invalid partition specified: nowhere"),
        (["--gpus-per-node", GPUS + 1], "Requested node configuration is not available"),
    ],
    ids=["partition", "gpus"],
)
def test_what_slurm_does_not_have_it_refuses_itself(
    asked: list[object], refused: str, lab: Lab
) -> None:
    done = lab.call("sbatch", *asked, "slurm/run_all.sbatch", check=False)
    assert done.returncode == 1
    assert refused in done.stderr
    assert done.stdout == ""


def test_wrong_use_ends_with_the_status_and_the_line_of_the_command(lab: Lab) -> None:
    job = lab.submit("--mem", "4G", "slurm/run_all.sbatch", "--weights", "none")
    assert lab.ended(job).status == "2:0"
    run, error = lab.said(job).splitlines()
    assert run.startswith(f"run slurm-{job}, ")
    assert error.startswith("error: --store embedded: this cluster has 2 nodes")


def test_a_job_fails_when_its_nodes_do_not_come_together(lab: Lab) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lab.environment, "TLCLUSTER_PATIENCE", "1")
        job = lab.submit("--mem", "4G", "slurm/run_all.sbatch")
    ended = lab.ended(job)
    assert (ended.state, ended.status) == ("FAILED", "1:0")
    assert "error: after 1 seconds Ray runs on 0 of 2 nodes" in lab.said(job)


def test_a_job_from_another_folder_than_the_checkout_says_so(lab: Lab, shared: Path) -> None:
    job = lab.submit("--mem", "4G", "--chdir", shared, "slurm/run_all.sbatch")
    assert lab.ended(job).status == "2:0"
    error = f"error: submit it from the checkout, not from {shared}"
    assert lab.said(job).splitlines()[-1] == error


# --- the whole ---------------------------------------------------------------------------------


@pytest.mark.drill
def test_the_quick_profile_trains_all_four_on_two_nodes(
    lab: Lab, shared: Path, sample_folder: Path, imagenet_weights: bytes
) -> None:
    weights = shared / "vgg16.h5"
    weights.write_bytes(imagenet_weights)
    store = open_store(str(shared / "sample"), create=True)
    ingest(str(sample_folder), store, rows_per_shard=SAMPLE_ROWS_PER_SHARD)
    job = lab.submit(
        "--cpus-per-task", 4, "--mem", "16G", "slurm/run_all.sbatch", "--store", shared / "sample",
        "--output", shared / "runs", "--weights", weights,
    )  # fmt: skip
    assert lab.ended(job).status == "0:0", lab.said(job)
    results = results_json(shared / "runs" / f"slurm-{job}")
    assert [node["host"] for node in results["run"]["hardware"]] == list(NODES)
    assert [experiment["name"] for experiment in results["experiments"]] == list(EXPERIMENTS)
    for experiment in results["experiments"]:
        assert experiment["status"] == "finished"
        assert sorted(worker["host"] for worker in experiment["workers"]) == list(NODES)
        assert experiment["test"]["accuracy"] > 0.30
