"""When to train more seeds, and when to stop: a rule that may look at the results several times.

Every look has an equal part of the 5 %, so that the probability of any wrong
decision, at any look, is at most 5 %, however the looks depend on each other
(Bonferroni's inequality; as "alpha spending" K. K. G. Lan and D. L. DeMets,
Biometrika 70 (1983) 659–663). At a look, Holm's test is made of the pairs that
are not decided yet: Y. Ye, A. Li, L. Liu and B. Yao, "A group sequential Holm
procedure with multiple primary endpoints", Statistics in Medicine 32 (2013)
1112–1124.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tlcluster.report.seeds.holm import holm
from tlcluster.report.seeds.moments import Right, difference, moments
from tlcluster.report.seeds.proportions import SIGNIFICANT, Interval
from tlcluster.seeds import FEWEST


class Standing(NamedTuple):
    """How far a pair of experiments is."""

    a: str
    b: str
    better: str | None
    """The better one; None while it is not decided."""
    seeds: int
    """Of each at the last look that this pair had part in; 0 before the first."""
    difference: float | None
    """Accuracy of `a` less that of `b` at that look; None before the first."""
    interval: Interval | None
    """Of the difference, and wider than 95 %: it covers at all looks together with 95 % (C.
    Jennison and B. W. Turnbull, "Interim analyses: the repeated confidence interval approach",
    Journal of the Royal Statistical Society B 51 (1989) 305–361)."""
    p_holm: float | None
    """At that look, to compare with `Resolution.level`."""


class Resolution(NamedTuple):
    """What the seeds that are there decide, and which are wanted."""

    level: float
    """Of each look."""
    pairs: tuple[Standing, ...]
    wanted: Mapping[str, int]
    """Experiment → how many seeds it must have for the next look. Empty at the end: every pair is
    decided, or the most seeds are there."""


def looks(first: int, most: int) -> tuple[int, ...]:
    """Numbers of seeds at which to look: each time twice as many, up to the most.

    New seeds train at the same time, so that few large rounds end sooner than
    many small ones, and fewer looks leave more of the 5 % to each.

    Raises:
        ValueError: not `FEWEST` ≤ first ≤ most.
    """
    if not FEWEST <= first <= most:
        raise ValueError(f"first look at {first} seeds, most {most}; {FEWEST} ≤ first ≤ most")
    sizes = [first]
    while sizes[-1] < most:
        sizes.append(min(2 * sizes[-1], most))
    return tuple(sizes)


def resolve(experiments: Mapping[str, Right], first: int, most: int) -> Resolution:
    """The state of every pair after the looks that the seeds allow.

    The looks of the past are made again from the first seeds of each
    experiment. So the answer depends on the arrays alone, and an interrupted
    run needs no record of it; but `first`, `most` and the order of the seeds
    must stay the same.

    Args:
        experiments: their (seeds, images), the same images in the same order.
        first: seeds of each at the first look.
        most: seeds that an experiment may get.

    Raises:
        ValueError: not `FEWEST` ≤ first ≤ most.
    """
    sizes = looks(first, most)
    level = SIGNIFICANT / len(sizes)
    pairs = {
        pair: Standing(*pair, None, 0, None, None, None)
        for pair in itertools.combinations(experiments, 2)
    }
    for seeds in sizes:
        undecided = [pair for pair, standing in pairs.items() if standing.better is None]
        wanted = {
            name: seeds
            for name in experiments
            if len(experiments[name]) < seeds and any(name in pair for pair in undecided)
        }
        if wanted:
            # A look is made of all open pairs at once: Holm's test is about all of them.
            return Resolution(level, tuple(pairs.values()), wanted)
        pairs |= _look(experiments, undecided, seeds, level)
    return Resolution(level, tuple(pairs.values()), {})


def _look(
    experiments: Mapping[str, Right], undecided: Sequence[tuple[str, str]], seeds: int, level: float
) -> dict[tuple[str, str], Standing]:
    names = {name for pair in undecided for name in pair}
    of = {name: moments(experiments[name][:seeds]) for name in names}
    found = [difference(of[a], of[b]) for a, b in undecided]
    adjusted = holm([one.p_value() for one in found])
    return {
        (a, b): Standing(
            a=a,
            b=b,
            better=(a if one.value > 0 else b) if p_holm < level else None,
            seeds=seeds,
            difference=one.value,
            interval=one.interval(1 - level),
            p_holm=p_holm,
        )
        for (a, b), one, p_holm in zip(undecided, found, adjusted, strict=True)
    }
