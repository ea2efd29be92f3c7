"""The figures of a search's page."""

import itertools
from collections.abc import Mapping

from tlcluster.report.figures.canvas import Figure, heading, new_canvas, panel, render
from tlcluster.report.figures.style import MUTED, Style, own_look
from tlcluster.report.formats import time_unit
from tlcluster.tuning.records import TrialRecord
from tlcluster.tuning.trials import RECIPE_TRIAL


@own_look()
def progress(name: str, style: Style, trials: Mapping[int, TrialRecord]) -> Figure:
    """Validation accuracy of the trials over the worker time spent, with the best so far.

    Args:
        name: of the experiment.
        style: its look.
        trials: its trials by number; at least one has a validation accuracy.
    """
    canvas = new_canvas(400, 236)
    heading(canvas, f"{name}: validation accuracy, %", style)
    axes = panel(canvas, left=34, top=28, width=358, height=172)
    search = [one for one in trials.values() if one.role != "finalist" and one.best is not None]
    spent = list(itertools.accumulate(one.worker_seconds for one in search))
    unit, seconds = time_unit(spent[-1])
    times = [time / seconds for time in spent]
    values = [100 * (one.best or 0.0) for one in search]
    whole = [one.status == "finished" for one in search]
    for shown, marker in ((True, style.marker), (False, ".")):
        axes.plot(
            [t for t, full in zip(times, whole, strict=True) if full is shown],
            [v for v, full in zip(values, whole, strict=True) if full is shown],
            marker, color=style.colour.light, alpha=1.0 if shown else 0.5, markersize=4,
        )  # fmt: skip
    best = list(itertools.accumulate(values, max))
    axes.step(times, best, where="post", color=style.colour.light)
    own = trials.get(RECIPE_TRIAL)
    if own is not None and own.best is not None:
        axes.axhline(100 * own.best, color=MUTED.light, linewidth=1, linestyle=(0, (4, 2)))
    axes.set_xlim(left=0)
    axes.set_xlabel(f"worker time spent, {unit}; dots were stopped early, dashed: the recipe")
    return render(
        canvas,
        f"search_{name}",
        f"{name}: best validation accuracy of {len(search)} trials is {best[-1]:.1f} %.",
    )
