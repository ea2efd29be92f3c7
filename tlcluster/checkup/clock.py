"""How far the clock of a node is from the driver's."""

from collections.abc import Sequence
from typing import NamedTuple

from tlcluster.checkup.finding import Finding

MOST_SECONDS = 30.0
"""S3 refuses requests of a clock that is 15 minutes off. Times in the report are of several nodes,
and files that nodes share are judged by their age in minutes."""


class Reading(NamedTuple):
    """A question about the time, in seconds since 1970."""

    asked: float
    """By the driver's clock, as `answered`."""
    remote: float
    """By the clock of the node, between the two."""
    answered: float


def clock_finding(readings: Sequence[Reading]) -> Finding:
    """Judge a node's clock by the question that was answered fastest.

    Args:
        readings: at least one.
    """
    best = min(readings, key=lambda one: one.answered - one.asked)
    uncertain = max(0.0, best.answered - best.asked) / 2
    ahead = best.remote - (best.asked + uncertain)
    # What the journey of the answer may explain is no difference.
    certain = max(0.0, abs(ahead) - uncertain)
    if certain < 0.001:
        return Finding("clock", "as the driver's")
    side = "ahead of" if ahead > 0 else "behind"
    found = f"{certain:.{3 if certain < 1 else 0}f} s {side} the driver's"
    if certain <= MOST_SECONDS:
        return Finding("clock", found)
    return Finding(
        "clock",
        found,
        f"the clock is {certain:.0f} s {side} the driver's, and {MOST_SECONDS:.0f} s are allowed; "
        "set the clocks of all nodes, for example with NTP",
    )
