"""The batch scripts of slurm/: shellcheck, and the facts that stand in them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from real_run import ROOT

from tlcluster.experiments import EXPERIMENTS
from tlcluster.orchestration.decide import PREEMPTION_GRACE_SECONDS

SLURM = ROOT / "slurm"
SCRIPTS = sorted([*SLURM.glob("*.sbatch"), *SLURM.glob("*.sh")])
RUNS = ("run_all.sbatch", "run_one.sbatch")
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
REPORT_SECONDS = 20
"""What the report of an interrupted run takes at most, after the checkpoints."""


def shellcheck(*scripts: Path) -> str:
    """What shellcheck has to say."""
    return subprocess.run(
        [SHELLCHECK, "--external-sources", "--color=never", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def options(script: str) -> dict[str, str]:
    """What the lines of a batch script ask of Slurm."""
    lines = re.findall(r"(?m)^#SBATCH --([a-z-]+)(?:=(.*))?$", (SLURM / script).read_text())
    assert len(dict(lines)) == len(lines), "something stands there twice"
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
    assert not re.search(r"(?:nodes|ntasks|workers)[= ]\"?\d", rest)
    for what in ("--nodes=", "--ntasks=", "--workers "):
        assert f'{what}"$SLURM_JOB_NUM_NODES"' in rest


def test_the_array_has_a_task_for_each_experiment() -> None:
    assert options("run_one.sbatch")["array"] == f"0-{len(EXPERIMENTS) - 1}"


def chosen(task: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a task of the array trains: run_one.sbatch without Ray."""
    script = (SLURM / "run_one.sbatch").read_text()
    stub = f'python=("{sys.executable}"); with_ray() {{ echo "with_ray $*"; }}'
    return subprocess.run(
        ["bash", "-c", script.replace("source slurm/ray.sh", stub), "run_one.sbatch", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLURM_ARRAY_TASK_ID": str(task)},
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
