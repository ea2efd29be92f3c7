"""The versions that must be equal on all nodes of a run."""

import importlib.metadata
import platform
from collections.abc import Mapping

import tlcluster
from tlcluster.checkup.finding import Finding

LIBRARIES = ("tensorflow", "ray")
MISSING = "missing"


def versions() -> dict[str, str]:
    """Name → version, in this process. No library is imported for it."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = MISSING
    # Not the installed one: a submitted job brings the code with it.
    return {**found, "tlcluster": tlcluster.__version__}


def difference(here: Mapping[str, str], drivers: Mapping[str, str]) -> str:
    """What is not as on the driver's node, as one line with a way out; empty if all is equal.

    Python's patch level may differ: 3.11.8 and 3.11.9 work together.
    """
    differing = [
        f"{name} is {here.get(name, MISSING)}, and {version} at the driver"
        for name, version in drivers.items()
        if _significant(name, here.get(name, MISSING)) != _significant(name, version)
    ]
    if not differing:
        return ""
    return (
        f"{'; '.join(differing)}; install the same versions on all nodes, or use one environment "
        "that all of them see"
    )


def _significant(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "python" else version


def versions_finding(here: Mapping[str, str], drivers: Mapping[str, str]) -> Finding:
    shown = ", ".join(f"{name} {version}" for name, version in here.items())
    return Finding("versions", shown, difference(here, drivers))
