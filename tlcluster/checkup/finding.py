"""What the checks found on each node, and what is printed of it."""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tlcluster.errors import StoreUnavailable, UserError

CHECKS = ("worker", "versions", "clock", "device", "data", "output", "disk", "network")
"""The checks of a node, in the order of the table. `worker` is one that did not start."""


class Finding(NamedTuple):
    """What one check found on one node."""

    check: str
    """One of `CHECKS`."""
    found: str
    """What the table shows: a few words."""
    fault: str = ""
    """One line that names the value, what is allowed and the way out; empty if a run can start."""
    note: str = ""
    """One line about what works, but not as well as it could."""


Nodes = Mapping[str, Sequence[Finding]]
"""Name of a node → what was found on it."""


class Row(NamedTuple):
    """One row of the table."""

    node: str
    """Empty below the first row of a node."""
    check: str
    mark: str
    """`ok` or `FAULT`."""
    found: str


def explained(check: str, probe: Callable[[], Finding]) -> Finding:
    """The finding of a probe, or the error that a run would end with as a fault."""
    try:
        return probe()
    except (UserError, StoreUnavailable) as error:
        # The table names the node.
        return Finding(check, "failed", str(error).removeprefix(f"{socket.gethostname()}: "))


def rows(nodes: Nodes) -> list[Row]:
    """The rows of the table: the checks of a node below each other."""
    return [
        Row("" if number else node, one.check, "FAULT" if one.fault else "ok", one.found)
        for node, findings in nodes.items()
        for number, one in enumerate(sorted(findings, key=lambda one: CHECKS.index(one.check)))
    ]


def faults(nodes: Nodes) -> list[str]:
    """One line for each fault, with the nodes that have it."""
    return _lines(nodes, lambda finding: finding.fault)


def notes(nodes: Nodes) -> list[str]:
    """One line for each note, with the nodes that have it."""
    return _lines(nodes, lambda finding: finding.note)


def _lines(nodes: Nodes, text: Callable[[Finding], str]) -> list[str]:
    found: dict[str, list[str]] = {}
    for check in CHECKS:
        for node, findings in nodes.items():
            for said in (text(finding) for finding in findings if finding.check == check):
                if said:
                    having = found.setdefault(said, [])
                    having += [node] if node not in having else []
    return [f"{_named(having)}: {said}" for said, having in found.items()]


def _named(nodes: Sequence[str]) -> str:
    """`ray1`, `ray1, ray2`, `ray1, ray2, ray3 and 61 more`."""
    first, more = nodes[:3], len(nodes) - 3
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def size(count: float) -> str:
    """A number of bytes for a reader: `1.5 GB`, `310 MB`."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} bytes"
