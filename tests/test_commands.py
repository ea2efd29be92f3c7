"""`tlcluster COMMAND` and `jobs/*.py` are the same commands; messages repeat what was typed."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

import tlcluster
from tlcluster import paths
from tlcluster.commands import COMMANDS, main
from tlcluster.errors import UserError
from tlcluster.paths import typed

ROOT = Path(__file__).parent.parent


def ended(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_tlcluster_alone_lists_its_commands(
    arguments: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, "tlcluster") == 0
    assert re.findall(r"(?m)^  (\S+) +\S", capsys.readouterr().out) == list(COMMANDS)


def test_tlcluster_says_its_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"], "tlcluster") == 0
    assert capsys.readouterr().out == f"tlcluster {tlcluster.__version__}\n"


def test_an_unknown_command_gets_the_nearest_one() -> None:
    with pytest.raises(UserError) as caught:
        main(["verfiy"], "tlcluster")
    assert str(caught.value) == (
        "verfiy: no such command; did you mean verify? allowed: run, run-one, check, tune, "
        "ingest, audit, report, verify, compare, track, export, predict, bench"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_is_the_command_of_its_name(name: str) -> None:
    script = typed(name).removeprefix("python ")
    by_script, by_name = ended(script, "--help"), ended("-m", "tlcluster", name, "--help")
    assert by_script.stdout.startswith(f"usage: python {script} [-h]")
    usage, said = (done.stdout.partition("\n\n") for done in (by_script, by_name))
    assert usage[2] == said[2]


def test_every_script_belongs_to_a_command() -> None:
    scripts = {f"python jobs/{path.name}" for path in (ROOT / "jobs").glob("*.py")}
    assert scripts == {typed(name) for name in COMMANDS}


@pytest.mark.parametrize("command", [("jobs/report.py",), ("-m", "tlcluster", "report")])
def test_a_message_names_the_command_as_it_was_typed(command: Sequence[str]) -> None:
    done = ended(*command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: the following arguments are required: --run; "
        f"see python {' '.join(command)} --help\n"
    )


def test_pip_installs_the_command() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"tlcluster": "tlcluster.__main__:main"}


def test_without_a_checkout_messages_name_the_installed_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert typed("ingest") == "python jobs/ingest.py"
    monkeypatch.setattr(paths, "IN_CHECKOUT", False)
    assert [typed(name) for name in COMMANDS] == [f"tlcluster {name}" for name in COMMANDS]


def test_a_wrong_recipe_is_refused_before_ray_and_tensorflow_are_imported(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[every]\nepoch = 3\n")
    for command in (["run"], ["run-one", "frozen"]):
        done = ended("-X", "importtime", "-m", "tlcluster", *command, "--profile", "r.toml",
                     cwd=tmp_path)  # fmt: skip
        *times, last = done.stderr.splitlines()
        assert (done.returncode, last[:40]) == (2, "error: r.toml: every.epoch: no such key;")
        imported = {line.rpartition("|")[2].strip() for line in times}
        assert not imported & {"ray", "tensorflow", "boto3"}


def test_the_experiments_of_a_recipe_are_listed_one_per_line(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[experiments.wide]\n")
    listing = ("-m", "tlcluster", "run", "--list-experiments", "--profile")
    assert ended(*listing, "r.toml", cwd=tmp_path).stdout.split() == [
        *("frozen", "augmented", "regularized", "finetuned", "wide")
    ]
    some = ended(*listing, "r.toml", "--experiments", "wide,frozen", cwd=tmp_path)
    assert some.stdout.split() == ["frozen", "wide"]
