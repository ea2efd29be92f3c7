"""Statistics between runs: the same experiment in two runs, on the same test images."""

from collections.abc import Sequence
from typing import NamedTuple

from tlcluster.comparison.gather import Entry, Gathered
from tlcluster.report.formats import listing, points
from tlcluster.report.seeds.contrast import Contrast, paired
from tlcluster.report.seeds.proportions import SIGNIFICANT

MANY_PAIRS = 6
"""Of more pairs than this, the verdict only counts."""


class Pair(NamedTuple):
    """An experiment in two runs."""

    experiment: str
    seeds_a: int
    """How many were tested in the run `contrast.a`."""
    seeds_b: int
    contrast: Contrast
    """Between runs: `a` and `b` are their labels. `b` is the first that has the experiment."""


def pairs(gathered: Gathered) -> tuple[Pair, ...]:
    """Each experiment of each run with that of the first run that has it, on the same test images.

    The estimates, intervals and tests are those of the report between experiments, and p is
    adjusted for all of these pairs together.
    """
    found = [
        (name, (other.label, other.answers.right[name]), (first.label, first.answers.right[name]))
        for group in gathered.groups
        for name in dict.fromkeys(name for one in group for name in one.answers.right)
        for first, *others in [[one for one in group if name in one.answers.right]]
        for other in others
    ]
    contrasts = paired([(a, b) for _, a, b in found])
    return tuple(
        Pair(name, len(a[1]), len(b[1]), contrast)
        for (name, a, b), contrast in zip(found, contrasts, strict=True)
    )


def not_paired(gathered: Gathered) -> list[str]:
    """What is not compared, and why: one sentence for each reason."""
    first, *others = gathered.groups
    said = [
        f"{_runs(group)} tested on other images ({group[0].data}) than {first[0].label} "
        f"({first[0].data}): there are no statistics between them."
        for group in others
    ]
    found = {label for one in pairs(gathered) for label in (one.contrast.a, one.contrast.b)}
    for group in gathered.groups:
        alone = [one.label for one in group if one.label not in found]
        if alone and len(group) > 1:
            have = "has" if len(alone) == 1 else "have"
            said.append(
                f"{listing(alone)} {have} no tested experiment in common with another run on the "
                "same images."
            )
    return said


def _runs(group: Sequence[Entry]) -> str:
    return f"{listing(one.label for one in group)} {'was' if len(group) == 1 else 'were'}"


def verdict(of: Sequence[Pair], digits: int) -> str:
    """Which run is better, in words; empty if there are no pairs.

    Args:
        of: the pairs.
        digits: decimals of a percentage point.
    """
    sure = [one for one in of if one.contrast.p_holm < SIGNIFICANT]
    if not of:
        return ""
    if len(of) > MANY_PAIRS:
        better = sum(one.contrast.difference > 0 for one in sure)
        return (
            f"Of {len(of)} pairs, {len(sure)} differ at the 5 % level: {better} are better than in "
            f"the run that they are compared with, and {len(sure) - better} are worse."
        )
    clauses = [_clause(one, digits) for one in sure]
    said = f"At the 5 % level, {'; '.join(clauses)}. " if clauses else ""
    level = [one for one in of if one not in sure]
    if level:
        where = listing(
            f"{one.experiment} between {one.contrast.a} and {one.contrast.b}" for one in level
        )
        differ = "difference" if len(level) == 1 else "differences"
        said += f"The {differ} of {where} may be chance."
    return said.strip()


def _clause(one: Pair, digits: int) -> str:
    of = one.contrast
    better, worse = (of.a, of.b) if of.difference > 0 else (of.b, of.a)
    gain = points(abs(of.difference), digits)
    return f"{one.experiment} is better in {better} than in {worse} ({gain} points)"
