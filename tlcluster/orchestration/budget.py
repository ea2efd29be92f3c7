"""What a budget allows, and what goes on when it runs out: pure functions of what the driver knows.

The last tenth of a budget is for what is nearly done. Nothing new starts then; of what runs, the
training that is closest to its end goes on, and the next ones as long as what is left is enough
for them too. The others write a checkpoint and stop, as all do when the budget is spent.
"""

import math

from tlcluster.money import Money
from tlcluster.orchestration.state import Standing, State
from tlcluster.settings import RunSettings
from tlcluster.training.progress import Phase, seconds_left

LAST_PART = 0.1


def allowed_seconds(settings: RunSettings, gpus: float) -> float | None:
    """The time of workers that a budget allows, all of them together; None without a budget.

    Args:
        settings: of the run.
        gpus: that each worker reserves.
    """
    budget, price = settings.allowance, settings.money_an_hour
    if isinstance(budget, Money):
        # Without a price, the settings refuse it.
        return 3600 * budget.amount / (price.amount * (gpus or 1.0)) if price else None
    return None if budget is None else 3600 * budget


def spent(state: State) -> float:
    """The time of all workers so far, earlier drivers included."""
    return sum(one.all_seconds for one in state.experiments)


def is_closing(state: State) -> bool:
    """Whether the last part of the budget has begun."""
    budget = state.limits.budget
    return budget is not None and spent(state) >= (1 - LAST_PART) * budget


def is_over(state: State) -> bool:
    """Whether the budget ends the run: it is spent, or nothing is left that it is for."""
    budget = state.limits.budget
    if budget is None:
        return False
    running = any(one.status == "running" for one in state.experiments)
    return spent(state) >= budget or (is_closing(state) and not running)


def given_up(state: State, now: float) -> tuple[str, ...]:
    """What stops so that others can end within the budget."""
    budget = state.limits.budget
    if budget is None or not is_closing(state):
        return ()
    running = [one for one in state.experiments if one.busy and not one.outcome and not one.asked]
    needs = {one.name: seconds_needed(one, now) for one in running}
    left = budget - spent(state)
    first, *others = sorted(needs, key=lambda name: needs[name]) or [""]
    left -= needs.get(first, 0.0)
    stopping = []
    for name in others:
        if needs[name] <= left:
            left -= needs[name]
        else:
            stopping.append(name)
    return tuple(stopping)


def seconds_needed(one: Standing, now: float) -> float:
    """Time of its workers until its last epoch at its present pace; infinite if nothing is known.

    Early stopping may end it sooner.
    """
    if one.progress is None or one.began is None:
        return math.inf
    if one.progress.phase == Phase.TESTING:
        return 0.0
    left = seconds_left(one.progress, now - one.began, one.resumed)
    return math.inf if left is None else left * one.workers
