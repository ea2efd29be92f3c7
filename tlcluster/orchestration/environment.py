"""Environment variables that the driver and every worker run with."""

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from tlcluster.errors import UserError
from tlcluster.orchestration.ray_internals import job_runtime_env, leave_tensorflow_out

FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
)
"""What workers inherit from the driver: where storage is and how it is spoken with. None may hold a
credential; keys reach workers through each node's own credential chain."""


def refuse_passwords() -> None:
    """Ray puts what is forwarded into the arguments of processes and into logs.

    Raises:
        UserError: an address that would be forwarded has a password in it.
    """
    for name in FORWARDED:
        if holds_password(os.environ.get(name, "")):
            raise UserError(
                f"{name}: the address has a user or a password in it, which every account of the "
                "machine could read; give keys the way the AWS tools take them: AWS_PROFILE, "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role"
            )


def holds_password(value: str) -> bool:
    """Whether a value is an address such as `https://user:password@host`."""
    return "@" in value.partition("://")[2].partition("/")[0]


def tensorflow_environment() -> dict[str, str]:
    """Variables that TensorFlow reads when it is imported, so they must be set before."""
    return {
        # Keras 3 does not run under MultiWorkerMirroredStrategy.
        "TF_USE_LEGACY_KERAS": "1",
        # TensorFlow turns it on by itself on Intel processors only.
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


NO_SETTINGS_OF_OTHERS = {
    # `keras.json` there could choose another float type or another order of axes. There is no
    # folder below the null device, so TensorFlow's Keras finds and writes none.
    "KERAS_HOME": os.devnull,
    # Less precise products.
    "TF_SET_ONEDNN_FPMATH_MODE": "",
    "ONEDNN_DEFAULT_FPMATH_MODE": "STRICT",
    "DNNL_DEFAULT_FPMATH_MODE": "STRICT",
    # Other kernels, another order of sums.
    "TF_XLA_FLAGS": "",
    "TF_USE_DEEP_CONV2D": "0",
    "ONEDNN_MAX_CPU_ISA": "",
    "DNNL_MAX_CPU_ISA": "",
    # HDF5 would refuse to write on a file system without locks. Nobody shares its files.
    "HDF5_USE_FILE_LOCKING": "FALSE",
}
"""What the account may have set for other programs and what would change results, in workers."""


def worker_environment() -> dict[str, str]:
    """The variables of every worker, as Ray's `runtime_env` takes them."""
    return {
        **tensorflow_environment(),
        **NO_SETTINGS_OF_OTHERS,
        # Records are the only output; Ray would change into a folder of its own for artifacts.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        **{
            name: os.environ[name]
            for name in FORWARDED
            if name in os.environ and not holds_password(os.environ[name])
        },
    }


def runtime_env(*, here: bool) -> dict[str, Any]:
    """The `runtime_env` for `ray.init`, without what a submitted job already has.

    Ray gives the job's own variables to the driver and to the workers. It refuses to be told a
    variable or a setup hook twice.

    Args:
        here: all workers run on this machine.
    """
    ours: dict[str, Any] = {
        "worker_process_setup_hook": f"{leave_tensorflow_out.__module__}"
        f".{leave_tensorflow_out.__name__}"
    }
    quoted = shlex.quote(sys.executable)
    if here and quoted != sys.executable:
        # Ray starts workers by a line for the shell, in which it does not quote this path.
        ours["py_executable"] = quoted
    job = job_runtime_env()
    theirs = job.get("env_vars") or {}
    variables = {name: v for name, v in worker_environment().items() if name not in theirs}
    return {"env_vars": variables, **{key: v for key, v in ours.items() if key not in job}}


@contextlib.contextmanager
def defaults(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the variables that are not set yet, and remove them again at the end."""
    with replaced({name: v for name, v in variables.items() if name not in os.environ}):
        yield


@contextlib.contextmanager
def replaced(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set the variables, or remove those that are None; afterwards they are as before."""
    before = {name: os.environ.get(name) for name in variables}

    def put(values: Mapping[str, str | None]) -> None:
        for name, value in values.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(variables)
    try:
        yield
    finally:
        put(before)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Keep what TensorFlow prints while it is imported off the terminal.

    It writes lines about processor features and missing CUDA before its own log
    level counts. Exceptions are not affected.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
