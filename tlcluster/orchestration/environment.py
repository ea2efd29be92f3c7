"""Environment variables that the driver and every worker run with."""

import contextlib
import os
import sys
from collections.abc import Iterator

FORWARDED = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
)
"""What workers inherit from the driver: where storage is. None holds a credential; keys reach
workers through each node's own credential chain."""


def tensorflow_environment() -> dict[str, str]:
    """Read when TensorFlow is imported, so they must be set before."""
    return {
        # Keras 3 does not run under MultiWorkerMirroredStrategy.
        "TF_USE_LEGACY_KERAS": "1",
        # TensorFlow turns it on by itself on Intel processors only.
        "TF_ENABLE_ONEDNN_OPTS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def worker_environment() -> dict[str, str]:
    """The variables of every worker, as Ray's `runtime_env` takes them."""
    return {
        **tensorflow_environment(),
        # Records are the only output; Ray would change into a folder of its own for artifacts.
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
        **{name: os.environ[name] for name in FORWARDED if name in os.environ},
    }


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
