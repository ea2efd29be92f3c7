"""What the report says about seeds, in words."""

from collections.abc import Mapping, Sequence

from tlcluster.report.formats import listing, percent
from tlcluster.report.seeds.replication import Replication


def limits(seeds: Mapping[str, int]) -> str:
    """What the intervals and tests of a run cover, and what they cannot say.

    Args:
        seeds: experiment → how many seeds it was trained with.
    """
    single = [name for name, count in seeds.items() if count == 1]
    if not single:
        return "Intervals and tests cover the choice of the test images and of the seeds."
    if len(single) == len(seeds):
        who = "The experiment was" if len(seeds) == 1 else "Every experiment was"
    else:
        who = f"{listing(single)} {'was' if len(single) == 1 else 'were'}"
    return (
        f"{who} trained with one seed. Intervals and tests "
        f"{'' if len(single) == len(seeds) else 'of that '}cover the choice of the test images "
        "alone: they cannot say whether another seed would give the same order."
    )


def replicated(
    name: str, found: Replication, test_images: int, differences: Sequence[str], digits: int = 2
) -> str:
    """The verdict on the study's figure.

    Args:
        name: of the experiment.
        found: its figure beside ours.
        test_images: of the study.
        differences: what is known to differ from the study, one sentence each.
        digits: decimals of a per cent.
    """
    if found.interval is None:
        return unjudged([name])
    figure = f"The study's {percent(found.published, digits)} % of {name}"
    low, high = (percent(bound, digits) for bound in found.interval)
    said = (
        f"{figure} is {'inside' if found.inside else 'outside'} {low}–{high} %, where one more "
        f"training of ours would be with 95 % on {test_images:,} other test images."
    )
    if not differences:
        return said
    caution = "The two differ" if found.inside else "That may be due to what differs"
    return " ".join([said, f"{caution}:", *differences])


def unjudged(names: Sequence[str]) -> str:
    """That the study's figures of some experiments cannot be judged: each has one seed of ours."""
    figures = "figure" if len(names) == 1 else "figures"
    return (
        f"The study's {figures} of {listing(names)} cannot be judged: one seed does not show how "
        "much trainings vary."
    )
