"""What drills have found out, for the table that is printed after the last of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One fault in one run."""

    fault: str
    happened: str
    """To the run, in words."""
    repeated: int
    """Steps that were trained twice."""
    lost: float
    """Seconds that the run took longer than one that met no fault."""
    same: bool | None
    """Whether the results are those of that run; None if there are none."""


TABLE: list[Row] = []
"""The rows of this session, in the order of their drills."""


def markdown(rows: Sequence[Row]) -> Iterator[str]:
    """The table, a line at a time."""
    yield "| fault | what happened | steps trained twice | seconds lost | same results |"
    yield "|---|---|---:|---:|---|"
    for row in rows:
        same = {True: "yes", False: "no", None: "–"}[row.same]
        yield f"| {row.fault} | {row.happened} | {row.repeated} | {row.lost:.0f} | {same} |"
