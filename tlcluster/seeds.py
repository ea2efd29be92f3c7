"""The seeds of a run, as `--seeds` gives them: a number, or a list."""

import itertools

MOST_SEEDS = 1000
FEWEST = 3
"""Seeds of an experiment at the first look of `--resolve`. With two, the intervals over seeds cover
less than they say."""
SEED_LIMIT = 2**31
"""Seeds are below it."""


def first_of(value: str) -> int | None:
    """The first seed of a list; None for anything else."""
    first, comma, _ = value.partition(",")
    return int(first) if comma and first.strip().isdecimal() else None


def parse_seeds(value: str, first: int) -> tuple[int, ...]:
    """`3` → as many seeds from the first on; `524,530,7` → these.

    Args:
        value: what `--seeds` says.
        first: the run's seed, with which its list must begin.

    Raises:
        ValueError: it is neither, or not allowed.
    """
    try:
        numbers = [int(part) for part in value.split(",")]
    except ValueError:
        raise ValueError("give how many seeds, or a list such as 524,530,7") from None
    seeds = numbers if "," in value else _from(first, numbers[0])
    if len(seeds) > MOST_SEEDS:
        raise ValueError(f"a run has at most {MOST_SEEDS:,} seeds")
    for seed in seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"{seed} is no seed; seeds are 0 to {SEED_LIMIT - 1}")
        if seeds.count(seed) > 1:
            raise ValueError(f"has {seed} twice; name each once")
    if seeds[0] != first:
        raise ValueError(
            f"its first seed is {seeds[0]}, and --seed is {first}; leave --seed out, or begin the "
            "list with it"
        )
    return tuple(seeds)


def _from(first: int, count: int) -> list[int]:
    if not 1 <= count <= MOST_SEEDS:
        raise ValueError(f"a run has 1 to {MOST_SEEDS:,} seeds")
    return list(range(first, first + count))


def further(seeds: tuple[int, ...], count: int) -> tuple[int, ...]:
    """A list with more seeds behind it: those above its highest one, then others.

    Args:
        seeds: the list.
        count: length of the result, if the list is no longer than that.
    """
    highest = max(seeds)
    others = itertools.chain(range(highest + 1, SEED_LIMIT), range(highest))
    new = (seed for seed in others if seed not in seeds)
    return (*seeds, *itertools.islice(new, max(0, count - len(seeds))))


def in_words(seeds: tuple[int, ...]) -> str:
    """`seed 524`, `seeds 524, 525, 526`, `40 seeds, 524 to 563`."""
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    if len(seeds) <= 8:
        return f"seeds {', '.join(map(str, seeds))}"
    if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))):
        return f"{len(seeds)} seeds, {seeds[0]} to {seeds[-1]}"
    return f"{len(seeds)} seeds, {', '.join(map(str, seeds[:5]))}, …"
