"""Where the workers of an attempt stand → what keeps them, in one line: pure functions."""

import math
from collections.abc import Callable, Sequence

from tlcluster.records import RankRecord
from tlcluster.report.formats import listing
from tlcluster.training.witness import PROCESS

MOST_NAMED = 3
"""Workers that are named; the others are counted."""

BUSY_CORES = 0.5
"""A worker that uses more of the processor computes. Others only look now and then."""

_OWN = "tlcluster/"
_READING = ("tlcluster/dataset/", "tlcluster/storage/", "tlcluster/training/features.py")
"""Code that reads inputs, in threads of its own."""


def explanation(ranks: Sequence[RankRecord]) -> str:
    """What keeps the workers, as far as it follows from where they stand.

    Args:
        ranks: all that have said where their diaries are, in order.
    """
    if not ranks:
        return "its workers have not said where they are"
    known = [one for one in ranks if one.process in (PROCESS["R"], PROCESS["S"]) and one.doing]
    inside = [one for one in known if one.inside]
    if silent := [one for one in ranks if one not in known]:
        return "; ".join([_each(silent, _silence), *_waiting(inside)])
    furthest = max(one.exchanges or 0 for one in known)
    behind = [one for one in known if (one.exchanges or 0) < furthest]
    waiting = [one for one in inside if one not in behind]
    if behind and waiting:
        return f"{'; '.join(_waiting(waiting))} for {_each(behind, _place)}"
    if len(known) == 1 or behind or inside != known:
        return _each(known, _place)
    at_work = [one for one in inside if _reader(one)] or [
        one for one in inside if (one.cores or 0.0) > BUSY_CORES
    ]
    idle = [one for one in inside if one not in at_work]
    if at_work:
        return "; ".join([_each(at_work, _place), *_waiting(idle)])
    return "; ".join([*_waiting(idle), "see whether the network between their nodes works"])


def still(ranks: Sequence[RankRecord]) -> float:
    """Seconds since one of the workers began to do something else; infinite if none says when."""
    return min((one.seconds for one in ranks if one.seconds is not None), default=math.inf)


def _waiting(inside: Sequence[RankRecord]) -> list[str]:
    """Who waits in which exchange: `rank 0 on a waits in the test`."""
    said = []
    for exchange in dict.fromkeys(one.exchange for one in inside):
        of = [one for one in inside if one.exchange == exchange]
        names = listing([*map(_named, of[:MOST_NAMED]), *_more(of)])
        said.append(f"{names} {'wait' if len(of) > 1 else 'waits'} in the {exchange}")
    return said


def _each(ranks: Sequence[RankRecord], say: Callable[[RankRecord], str]) -> str:
    return ", ".join([*map(say, ranks[:MOST_NAMED]), *_more(ranks)])


def _more(ranks: Sequence[RankRecord]) -> list[str]:
    left = len(ranks) - MOST_NAMED
    return [f"{left} more"] if left > 0 else []


def _named(one: RankRecord) -> str:
    return f"rank {one.rank} on {one.host}"


def _silence(one: RankRecord) -> str:
    doing = f" in the {one.doing}" if one.doing else ""
    return f"{_named(one)} (process {one.pid}) is {one.process}{doing}"


def _place(one: RankRecord) -> str:
    """`rank 1 on b, in the test for 75 s (tlcluster/training/train.py:230 _test)`."""
    said = f"{_named(one)}, in the {one.doing}"
    if one.seconds is not None:
        said += f" for {one.seconds:.0f} s"
    if frame := next((frame for frame in reversed(one.stack) if frame.startswith(_OWN)), ""):
        said += f" ({frame})"
    if reader := _reader(one):
        said += f", reading its input ({reader})"
    elif (one.cores or 0.0) > BUSY_CORES:
        said += ", computing"
    return said


def _reader(one: RankRecord) -> str:
    """The innermost frame of a thread that reads inputs; "" if none does."""
    for frames in one.other_stacks:
        for frame in reversed(frames):
            if frame.startswith(_READING):
                return frame
    return ""
