"""The machine of a benchmark, and the versions of the packages that it compares."""

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path

import tlcluster
from tlcluster.bench.measures import Machine
from tlcluster.errors import UserError
from tlcluster.paths import IN_CHECKOUT

OURS = ("tensorflow", "keras", "tf_keras", "ray", "numpy")
PEERS = ("mosaicml-streaming", "webdataset", "litdata", "torch")
BESIDE_PEERS = ("boto3", "pillow")
"""What our programs for the peers import besides them."""

_ASK = (
    "import importlib.metadata as m, json, sys;"
    "print(json.dumps({name: m.version(name) for name in sys.argv[1:]}))"
)


def this_machine(peers: dict[str, str]) -> Machine:
    """The machine and its versions.

    Args:
        peers: versions of the peers that are measured, see `peer_versions`.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        processor=processor(),
        cores=len(cores()),
        memory_gib=memory / 2**30,
        system=f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        versions={
            "tlcluster": tlcluster.__version__,
            **{name: importlib.metadata.version(name) for name in OURS},
            **peers,
        },
    )


def peer_versions(python: Path) -> dict[str, str]:
    """Versions of the peers in their own environment.

    Raises:
        UserError: there is no such environment, or a peer is not in it.
    """
    how = (
        "make it with `make bench`"
        if IN_CHECKOUT
        else f"install {', '.join((*PEERS, *BESIDE_PEERS))} into an environment of their own"
    )
    way_out = f"{how}, or name the interpreter of another with --peers"
    try:
        done = subprocess.run(
            [python, "-I", "-c", _ASK, *PEERS], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise UserError(f"{python}: the peers' environment is missing; {way_out}") from None
    except OSError as error:
        reason = (error.strerror or "cannot be started").lower()
        raise UserError(f"--peers {python}: {reason}; {way_out}") from None
    if done.returncode:
        why = (done.stderr.strip().splitlines() or ["it does not start"])[-1]
        raise UserError(f"{python}: not all peers are installed there ({why}); {way_out}")
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


def cores() -> list[int]:
    """The cores that this process may use.

    Raises:
        UserError: the system cannot bind a process to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise UserError(
            f"{platform.system()}: the benchmark binds programs to cores, which only Linux can; "
            "run it there"
        )
    return sorted(os.sched_getaffinity(0))


def processor() -> str:
    """Name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
