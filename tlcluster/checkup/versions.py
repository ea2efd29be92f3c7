"""The versions that must be equal on all nodes of a run."""

import importlib.metadata
import platform
from collections.abc import Mapping

import tlcluster
from tlcluster.checkup.finding import Finding

LIBRARIES = ("tensorflow", "ray")
SHOWN = ("tensorflow", "ray")
"""What the table shows if all is equal."""
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


def differing(here: Mapping[str, str], drivers: Mapping[str, str]) -> list[str]:
    """The names whose versions are not as at the driver.

    Python's patch level may differ: 3.11.8 and 3.11.9 work together.
    """
    return [
        name
        for name, version in drivers.items()
        if _significant(name, here.get(name, MISSING)) != _significant(name, version)
    ]


def difference(here: Mapping[str, str], drivers: Mapping[str, str]) -> str:
    """What is not as at the driver, as one line with a way out; empty if all is."""
    wrong = [
        f"{name} is {here.get(name, MISSING)}, and {drivers[name]} at the driver"
        for name in differing(here, drivers)
    ]
    if not wrong:
        return ""
    return (
        f"{'; '.join(wrong)}; install the same versions on all nodes, or use one environment "
        "that all of them see"
    )


def _significant(name: str, version: str) -> str:
    return ".".join(version.split(".")[:2]) if name == "python" else version


def versions_finding(here: Mapping[str, str], drivers: Mapping[str, str]) -> Finding:
    wrong = differing(here, drivers)
    shown = ", ".join(f"{name} {here.get(name, MISSING)}" for name in wrong or SHOWN)
    found = f"{shown}, unlike the driver" if wrong else f"as the driver's: {shown}"
    return Finding("versions", found, difference(here, drivers))
