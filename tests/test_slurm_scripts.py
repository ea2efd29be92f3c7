"""The scripts of slurm/: shellcheck, the headers, and how they call Slurm, Ray and the driver."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from real_run import ROOT

from tlcluster.cli import parse
from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration.admission import admit
from tlcluster.orchestration.decide import PREEMPTION_GRACE_SECONDS
from tlcluster.records import NodeRecord
from tlcluster.settings import RunSettings, worker_range

SLURM = ROOT / "slurm"
SCRIPTS = sorted([*SLURM.glob("*.sbatch"), *SLURM.glob("*.sh")])
RUNS = ("run_all.sbatch", "run_one.sbatch")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
REPORT_SECONDS = 20
"""Most seconds for the report of an interrupted run, after the checkpoints."""


def shellcheck(*scripts: Path) -> str:
    """The output of shellcheck."""
    return subprocess.run(
        [SHELLCHECK, "--external-sources", "--color=never", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def options(script: str) -> dict[str, str]:
    """The options in the header of a batch script."""
    lines = re.findall(r"(?m)^#SBATCH --([a-z-]+)(?:=(.*))?$", (SLURM / script).read_text())
    assert len(dict(lines)) == len(lines), "an option is there twice"
    return dict(lines)


def code(*names: str) -> str:
    """Scripts without their comments."""
    return re.sub(r"(?m)^\s*#.*\n", "", "".join((SLURM / name).read_text() for name in names))


def test_shellcheck_finds_nothing() -> None:
    assert shellcheck(*SCRIPTS) == ""


def test_what_shellcheck_would_find_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "new.sh"
    script.write_text("#!/bin/bash\nrm -rf $1/x\n")
    assert "SC2086" in shellcheck(script)


@pytest.mark.parametrize("script", RUNS)
def test_a_job_hears_of_its_end_in_time_for_checkpoints_and_report(script: str) -> None:
    to, _, seconds = options(script)["signal"].partition("@")
    assert to == "B:USR1"
    assert int(seconds) >= PREEMPTION_GRACE_SECONDS + REPORT_SECONDS


@pytest.mark.parametrize("script", RUNS)
def test_a_job_can_go_back_into_the_queue_and_keeps_what_it_said(script: str) -> None:
    assert "requeue" in options(script)
    assert options(script)["open-mode"] == "append"


@pytest.mark.parametrize("script", RUNS)
def test_the_number_of_nodes_stands_in_one_place(script: str) -> None:
    rest = code(script, "ray.sh", "node.sh")
    assert options(script)["nodes"].isdecimal()
    assert not re.search(r"(?:nodes|ntasks)[= ]\"?\d", rest)
    for what in ("--nodes=", "--ntasks="):
        assert f'{what}"$SLURM_JOB_NUM_NODES"' in rest


@pytest.mark.parametrize("script", sorted(path.name for path in SLURM.glob("*.sbatch")))
def test_no_header_asks_for_what_slurm_lets_users_ask_for_in_several_ways(script: str) -> None:
    # Slurm would refuse --mem-per-gpu on the command line if the header had --mem.
    assert not [name for name in options(script) if re.match("mem|cpus|gpus|gres|tres", name)]


def test_the_array_has_a_task_for_each_experiment() -> None:
    assert options("run_one.sbatch")["array"] == f"0-{len(EXPERIMENTS) - 1}"


def chosen(task: int, *arguments: str, last: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run run_one.sbatch as a task of the array, of which `last` is the last, without Ray."""
    number = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MAX": task if last is None else last}
    script = (SLURM / "run_one.sbatch").read_text()
    stub = f'python=("{sys.executable}"); with_ray() {{ echo "with_ray $*"; }}'
    return subprocess.run(
        ["bash", "-c", script.replace("source slurm/ray.sh", stub), "run_one.sbatch", *arguments],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            **{name: str(value) for name, value in number.items()},
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_task_of_the_array_trains_the_experiment_of_its_number_in_the_recipe(
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "my recipe.toml"
    recipe.write_text("[experiments.wide]\n")
    assert chosen(3, "--profile", "paper").stdout == (
        "experiment 3 of 0 to 3: finetuned\nwith_ray jobs/run_one.py --profile paper finetuned\n"
    )
    assert chosen(4, "--profile", str(recipe)).stdout == (
        f"experiment 4 of 0 to 4: wide\nwith_ray jobs/run_one.py --profile {recipe} wide\n"
    )


def test_a_task_trains_all_seeds_of_its_experiment_or_one_if_the_array_is_as_long() -> None:
    seeds = ("--seeds", "7,9")
    assert chosen(3, *seeds, last=3).stdout == (
        "experiment 3 of 0 to 3: finetuned\nwith_ray jobs/run_one.py --seeds 7,9 finetuned\n"
    )
    assert chosen(3, *seeds, last=7).stdout == (
        "experiment and seed 3 of 0 to 7: finetuned, 7\n"
        "with_ray jobs/run_one.py --seeds 7,9 --only-seed 7 finetuned\n"
    )
    assert chosen(4, *seeds, last=7).stdout == (
        "experiment and seed 4 of 0 to 7: frozen, 9\n"
        "with_ray jobs/run_one.py --seeds 7,9 --only-seed 9 frozen\n"
    )
    beyond = chosen(8, *seeds, last=8)
    assert (beyond.returncode, beyond.stdout) == (2, "")
    assert beyond.stderr.startswith(
        "error: task 8: this recipe has the pairs of experiment and seed 0 to 7, frozen 7 "
    )


def test_a_task_without_an_experiment_or_with_a_wrong_recipe_starts_no_ray(tmp_path: Path) -> None:
    recipe = tmp_path / "wrong.toml"
    recipe.write_text("[experiment.wide]\n")
    for done, said in (
        (chosen(4), "error: task 4: this recipe has the experiments 0 to 3, frozen augmented"),
        (chosen(0, "--profile", str(recipe)), f"error: {recipe}: experiment: no such key"),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_stops_at_the_first_error(script: Path) -> None:
    sourced = script.name in ("ray.sh", "site.sh")
    assert sourced == ("set -euo pipefail" not in script.read_text())


def test_no_token_is_in_an_argument_or_an_environment() -> None:
    for script in SCRIPTS:
        assert not re.search(r"RAY_AUTH_TOKEN=|--\S*token|export token", code(script.name))


# --- with stand-ins that record how they were called ---------------------------


class Job:
    """The scripts in a folder of their own, in the environment of a job of two nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(SLURM, folder / "slurm")
        (folder / "bin").mkdir()
        self.site(f"scratch={folder}")
        self.environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_CPUS_ON_NODE": "8",
            "SLURMD_NODENAME": "n1",
            "SLURM_NODEID": "0",
        }

    def site(self, line: str) -> None:
        """Set something at the end of site.sh."""
        with (self.folder / "slurm/site.sh").open("a") as file:
            file.write(f"{line}\n")

    def program(self, name: str, script: str) -> str:
        """Put a shell script in the place of a program; returns its path."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a line of a batch script that has sourced ray.sh."""
        return subprocess.run(
            ["bash", "-c", f"set -euo pipefail; source slurm/ray.sh; {script}"],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def said(self, name: str) -> list[str]:
        return (self.folder / name).read_text().splitlines()


@pytest.fixture
def job() -> Iterator[Job]:
    # Ray's sockets, and so the scripts, need a short path.
    with tempfile.TemporaryDirectory(prefix="s-") as folder:
        yield Job(Path(folder))


def driver(job: Job, *arguments: str, **environment: str) -> RunSettings:
    """The settings of a job's driver, for these arguments of the batch script."""
    done = job.run(
        "start_nodes() { address=h port=1; }; attend() { printf '%s\\n' \"$@\" >said; }; "
        f"with_ray jobs/run_all.py {shlex.join(arguments)}",
        **environment,
    )
    assert done.returncode == 0, done.stderr
    words = job.said("said")
    return parse(RunSettings, "run_all.py", "", words[words.index("jobs/run_all.py") + 1 :])


def test_without_gpus_an_experiment_has_as_many_workers_as_there_are_nodes(job: Job) -> None:
    assert driver(job).workers == "2"
    assert driver(job, SLURM_GPUS_ON_NODE="0").workers == "2"
    assert driver(job, "--workers", "5").workers == "5"


def test_with_gpus_an_experiment_has_as_many_workers_as_find_a_gpu_of_their_own(job: Job) -> None:
    most = driver(job, SLURM_GPUS_ON_NODE="8").workers
    assert most == "1:16"
    assert driver(job, "--workers", "5", SLURM_GPUS_ON_NODE="8").workers == "5"
    nodes = [NodeRecord(host=host, cpus=64, gpus=8, memory_bytes=1) for host in "ab"]
    found = admit(nodes, len(EXPERIMENTS), worker_range(most))
    assert (found.workers, found.gpus_per_worker, found.at_once) == (4, 1, 4)


def test_copies_of_shards_go_to_the_jobs_folder_on_each_nodes_own_disk(job: Job) -> None:
    assert driver(job).cache == f"{job.folder}/tlcluster-7/cache"
    assert driver(job, "--cache", "/elsewhere").cache == "/elsewhere"


def on_a_node(job: Job, mib: int = 0) -> tuple[int, list[str]]:
    """Run node.sh until it ends by itself: its exit status, and what it said."""
    with subprocess.Popen(
        ["bash", "slurm/node.sh", "127.0.0.1", "20000", f"{job.folder}/own", "60", str(mib)],
        cwd=job.folder,
        env=job.environment | {"SLURM_GPUS_ON_NODE": "2"},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as node:
        assert node.stdin
        assert node.stderr
        node.stdin.write("token\n")
        node.stdin.flush()
        return node.wait(60), node.stderr.read().splitlines()


@pytest.mark.parametrize(
    ("starts", "times", "last"),
    [
        ("false", 3, "error: n1: Ray has ended: timed out"),
        ("[[ $(wc -l <tries) == 2 ]]", 2, "error: n1: Ray has ended: raylet died"),
        ("true", 1, "error: n1: Ray has ended: raylet died"),
    ],
    ids=["never", "with the second try", "and is lost later"],
)
def test_ray_that_does_not_start_is_tried_again_but_not_one_that_is_lost(
    starts: str, times: int, last: str, job: Job
) -> None:
    job.program("hostname", "echo n1")
    ray = f"""echo >>tries
if {starts}; then echo 'Ray runtime started.'; echo 'raylet died'; else echo 'timed out'; fi"""
    job.site(f"python=({job.program('fake', ray)})")
    status, said = on_a_node(job)
    again = (times - 1) * ["n1: Ray did not start and is started again: timed out"]
    assert (status, said) == (1, [*again, last])
    assert len(job.said("tries")) == times


REFUSED = "echo 'slurm_load_node error: Access/permission denied' >&2; exit 1"
KNOWN = "echo 'NodeName=n1 Arch=x86_64 NodeAddr=10.9.8.7 NodeHostName=n1 Version=23'"
NAMES = """case $2 in
  n1) printf '127.0.1.1 STREAM n1\\n%s' "$N1" ;;
  *) echo "$2 STREAM $2" ;;
esac"""


@pytest.mark.parametrize(
    ("scontrol", "n1", "address"),
    [
        (KNOWN, "", "10.9.8.7"),
        (REFUSED, "198.51.100.1 STREAM\n198.51.100.1 DGRAM\n", "198.51.100.1"),
        (REFUSED, "", "203.0.113.5"),
    ],
    ids=["slurm knows it", "PrivateData=nodes", "and only a loopback for its name"],
)
def test_the_head_is_found_also_if_slurm_does_not_show_nodes(
    scontrol: str, n1: str, address: str, job: Job
) -> None:
    job.program("scontrol", scontrol)
    job.program("getent", NAMES)
    job.program("hostname", "echo 203.0.113.5 192.0.2.9")
    done = job.run("own_address", N1=n1)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{address}\n", "")


def test_a_named_interface_wins_and_one_that_a_node_lacks_is_an_error_of_one_line(
    job: Job,
) -> None:
    job.program("ip", '[[ $5 == ib0 ]] || exit 1; echo "3: ib0    inet 10.1.1.4/16 brd x scope y"')
    job.program("hostname", "echo n1")
    job.site("interface=ib0")
    assert job.run("own_address").stdout == "10.1.1.4\n"
    job.site("interface=ib7")
    done = job.run("address=$(own_address); echo not reached")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: n1: ib7 has no IPv4 address; set interface in slurm/")
    assert done.stderr.count("\n") == 1


MEMORY = [
    ({}, 0),
    ({"SLURM_MEM_PER_NODE": "16000"}, 16_000),
    ({"SLURM_MEM_PER_CPU": "500"}, 4_000),
    ({"SLURM_MEM_PER_GPU": "3000", "SLURM_GPUS_ON_NODE": "2"}, 6_000),
    ({"SLURM_MEM_PER_NODE": "0"}, 0),
]


@pytest.mark.parametrize(("given", "mib"), MEMORY)
def test_nodes_are_told_of_the_jobs_memory_and_srun_of_the_sites_flags(
    given: dict[str, str], mib: int, job: Job
) -> None:
    job.program("srun", "printf '%s\\n' \"$@\" >srun; cat")
    job.site("srun_flags=(--mpi=none '--comment=two words')")
    done = job.run("own_address() { echo 127.0.0.1; }; start_nodes; end_nodes", **given)
    assert done.returncode == 0, done.stderr
    *flags, bash, script, _, _, folder, _, told = job.said("srun")
    assert (bash, script) == ("bash", "slurm/node.sh")
    assert flags[-2:] == ["--mpi=none", "--comment=two words"]
    # The step has all of the job's memory, however the job asked for it.
    assert "--mem=0" in flags
    assert folder == f"{job.folder}/tlcluster-7"
    assert int(told) == mib


@pytest.mark.parametrize(("mib", "objects"), [(0, 500), (1_000, 200), (4_000, 400), (64_000, 500)])
def test_ray_takes_the_memory_of_the_job_for_that_of_the_node(
    mib: int, objects: int, job: Job
) -> None:
    python = job.program("fake", "printf '%s\\n' \"$@\" >started; env >environment")
    job.site(f"python=({python}) interface=ib0")
    on_a_node(job, mib=mib)
    started = job.said("started")
    flags = dict(itertools.pairwise(started))
    assert flags["--object-store-memory"] == str(objects * 10**6)
    assert flags.get("--memory") == (str(mib * 2**20) if mib else None)
    assert (flags["--num-cpus"], flags["--num-gpus"]) == ("8", "2")
    environment = job.said("environment")
    assert "RAY_memory_monitor_refresh_ms=0" in environment
    assert "NCCL_SOCKET_IFNAME=ib0" in environment
    assert not [
        line for line in [*started, *environment] if "=token" in line and "MODE" not in line
    ]
