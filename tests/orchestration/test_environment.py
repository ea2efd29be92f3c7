"""What the driver and every worker find in their environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tlcluster.errors import UserError
from tlcluster.orchestration.environment import (
    FORWARDED,
    defaults,
    quiet_import,
    refuse_passwords,
    runtime_env,
    tensorflow_environment,
    worker_environment,
)

ROOT = Path(__file__).parents[2]
HOOK = "tlcluster.orchestration.ray_internals.leave_tensorflow_out"


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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("KERAS_HOME", "/elsewhere"),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jit=2"),
        ("TF_SET_ONEDNN_FPMATH_MODE", "BF16"),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "ANY"),
        ("DNNL_MAX_CPU_ISA", "SSE41"),
        ("TF_USE_LEGACY_KERAS", "0"),
    ],
)
def test_settings_of_the_account_for_other_programs_do_not_reach_workers(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert worker_environment()[name] != value


def as_job(patch: pytest.MonkeyPatch, runtime_env: dict[str, object]) -> None:
    """Let this process be the driver of a job with this `runtime_env`, as Ray does it."""
    config = {"runtime_env": runtime_env, "metadata": {}}
    patch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))


def test_a_run_that_is_no_submitted_job_gives_workers_the_hook_and_all_variables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert runtime_env(here=False) == {
        "worker_process_setup_hook": HOOK,
        "env_vars": worker_environment(),
    }
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "[]")
    assert runtime_env(here=False)["env_vars"] == worker_environment()


@pytest.mark.parametrize("name", FORWARDED)
def test_a_variable_of_the_job_is_not_given_to_workers_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in FORWARDED:
        monkeypatch.setenv(other, "ours")
    as_job(monkeypatch, {"env_vars": {name: "ours"}, "working_dir": "gcs://x"})
    variables = runtime_env(here=False)["env_vars"]
    assert variables.keys() == worker_environment().keys() - {name}


def test_ray_takes_our_runtime_env_together_with_that_of_any_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray merges the two as here, and refuses a key that is in both."""
    for name in FORWARDED:
        monkeypatch.setenv(name, "ours")
    everything = {"env_vars": worker_environment(), "worker_process_setup_hook": "theirs.hook"}
    for job in ({}, {"env_vars": None}, {"pip": ["a"]}, everything):
        as_job(monkeypatch, job)
        ours = runtime_env(here=True)
        assert not ours.keys() & (job.keys() - {"env_vars"})
        assert not ours["env_vars"].keys() & (job.get("env_vars") or {}).keys()


def test_a_python_in_a_path_with_a_space_is_quoted_for_workers_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert "py_executable" not in runtime_env(here=True)
    monkeypatch.setattr(sys, "executable", "/srv/My Project/.venv/bin/python")
    quoted = "'/srv/My Project/.venv/bin/python'"
    assert runtime_env(here=True)["py_executable"] == quoted
    assert "py_executable" not in runtime_env(here=False)


def test_defaults_are_set_in_the_block_only_and_change_nothing_that_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_A", "theirs")
    monkeypatch.delenv("RAY_B", raising=False)
    before = dict(os.environ)
    with defaults({"RAY_A": "ours", "RAY_B": "ours"}):
        assert (os.environ["RAY_A"], os.environ["RAY_B"]) == ("theirs", "ours")
    assert dict(os.environ) == before


IMPORTED = """
import importlib, os, pkgutil, sys
import ray.train, sklearn  # they change the environment themselves

environment, finders = dict(os.environ), list(sys.meta_path)
import tlcluster.orchestration

for module in pkgutil.iter_modules(tlcluster.orchestration.__path__):
    importlib.import_module(f"tlcluster.orchestration.{module.name}")
print(sorted(set(os.environ.items()) ^ set(environment.items())))
print([type(one).__name__ for one in sys.meta_path if one not in finders])
"""


def test_an_import_changes_neither_the_environment_nor_how_modules_are_found() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n[]\n"


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


@pytest.mark.parametrize("name", FORWARDED)
def test_an_address_with_a_password_is_refused_and_never_forwarded(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in FORWARDED:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "https://user:canary@127.0.0.1:9")
    with pytest.raises(UserError, match=f"^{name}: the address has a user or a password") as caught:
        refuse_passwords()
    assert "canary" not in str(caught.value)
    assert "canary" not in str(worker_environment())
    monkeypatch.setenv(name, "https://127.0.0.1:9/user@host")
    refuse_passwords()
    assert worker_environment()[name].endswith("user@host")
